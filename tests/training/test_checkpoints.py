from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.training.checkpoints import DIGESTS, TEMPORARY, FolderCheckpoints


def saved(tmp_path: Path, *steps: int, note: list[str] | None = None) -> FolderCheckpoints:
    notes: list[str] = [] if note is None else note
    checkpoints = FolderCheckpoints(tmp_path / "checkpoints", note=notes.append)
    for step in steps:
        source = tmp_path / f"source-{step}"
        source.mkdir()
        (source / "weights").write_bytes(bytes([step]) * 100)
        checkpoints.save(step, source)
    return checkpoints


def test_the_last_two_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, 2, 10)
    found = checkpoints.latest()
    assert found is not None
    step, folder = found
    assert step == 10
    assert (folder / "weights").read_bytes() == bytes([10]) * 100
    assert sorted(path.name for path in checkpoints.path.iterdir()) == ["step-10", "step-2"]


def test_none_at_first(tmp_path: Path) -> None:
    assert FolderCheckpoints(tmp_path / "nowhere").latest() is None


@pytest.mark.parametrize("damage", ["changed", "cut", "missing", "no digests"])
def test_a_damaged_one_falls_back_to_the_one_before(tmp_path: Path, damage: str) -> None:
    notes: list[str] = []
    checkpoints = saved(tmp_path, 4, 5, note=notes)
    newest = checkpoints.path / "step-5"
    if damage == "changed":
        (newest / "weights").write_bytes(bytes([6]) * 100)
    elif damage == "cut":
        (newest / "weights").write_bytes(bytes([5]) * 99)
    else:
        (newest / ("weights" if damage == "missing" else DIGESTS)).unlink()
    found = checkpoints.latest()
    assert found is not None
    assert found[0] == 4
    assert len(notes) == 1
    assert "step-5 is damaged" in notes[0]


def test_a_half_written_one_is_not_seen_and_makes_way(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 3)
    torn = checkpoints.path / TEMPORARY
    torn.mkdir()
    (torn / "weights").write_bytes(b"half")
    found = checkpoints.latest()
    assert found is not None
    assert found[0] == 3
    saved(tmp_path, 6)
    assert not torn.exists()
