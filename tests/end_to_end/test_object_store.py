"""The tiny world end to end on an S3-compatible store."""

from __future__ import annotations

from tests.benches import contents
from tests.end_to_end.runs import Run


def test_a_run_on_an_object_store_gives_the_same_artifacts(tiny_run: Run, s3_root: str):
    remote = tiny_run.below(s3_root)
    assert remote() == 0
    for planned in tiny_run.plan().stages:
        there, here = remote.artifact(planned.name), tiny_run.artifact(planned.name)
        assert there.key == here.key and contents(there) == contents(here), planned.name
    assert remote() == 0
    assert set(remote.results()[-1].values()) == {"cached"}
    assert remote("verify") == 0


def test_a_damaged_object_is_found_and_made_again(tiny_run: Run, s3_root: str, capsys):
    remote = tiny_run.below(s3_root)
    assert remote("--until", "tokens") == 0
    tokens = remote.artifact("tokens")
    record = next(file for file in tokens.manifest.files if file.part == "passages")
    damaged = bytearray(tokens.store.read_bytes(f"{tokens.directory}/{record.path}"))
    damaged[len(damaged) // 2] ^= 0xFF
    tokens.store.write_bytes(f"{tokens.directory}/{record.path}", bytes(damaged))
    assert remote("verify", "--apply") == 3
    assert f"tokens: {record.path} has another hash" in capsys.readouterr().out
    assert remote("--until", "tokens") == 0
    assert contents(remote.artifact("tokens")) == contents(tiny_run.artifact("tokens"))
