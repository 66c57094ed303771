"""Locks are exclusive and taken over when stale; checkpoints survive damage."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import pytest

from pipeline.artifacts import locks
from pipeline.artifacts.cache import CACHE_VARIABLE
from pipeline.artifacts.checkpoints import StoreCheckpoints
from pipeline.artifacts.locks import Lock, Locked
from pipeline.artifacts.store import Store


def test_a_held_lock_refuses_and_is_released(any_store: Store) -> None:
    with Lock(any_store, "a/lock.json", "stage a"):
        with pytest.raises(Locked, match="stage a is being made by process"):
            Lock(any_store, "a/lock.json", "stage a").__enter__()
    with Lock(any_store, "a/lock.json", "stage a"):
        pass
    assert not any_store.exists("a/lock.json")


def test_the_heartbeat_keeps_it(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with Lock(store, "lock", "it", heartbeat_seconds=0.02):
        before = store.read_json("lock")["heartbeat"]
        time.sleep(0.2)
        assert store.read_json("lock")["heartbeat"] > before


@pytest.mark.parametrize(
    "holder",
    [
        {"host": "elsewhere", "pid": 1, "heartbeat": time.time() - 1000, "every": 10, "token": "t"},
        {},
    ],
)
def test_a_silent_lock_is_taken_over(any_store: Store, holder: dict[str, object]) -> None:
    any_store.write_bytes("lock", json.dumps(holder).encode())
    with Lock(any_store, "lock", "it"):
        assert any_store.read_json("lock")["token"] != "t"


def held_by(pid: int, **more: object) -> bytes:
    """The lock of a process, as it would have written it now."""
    holder = {"host": socket.gethostname(), "pid": pid, "process_start": "12",
              "process_space": locks._process_space(),
              "heartbeat": time.time(), "every": 10, "token": "t"}  # fmt: skip
    return json.dumps(holder | more).encode()


def test_a_dead_process_of_this_host_holds_nothing(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write_bytes("lock", held_by(2**22 + 1))
    with Lock(store, "lock", "it"):
        assert store.read_json("lock")["token"] != "t"


@pytest.mark.parametrize("space", ["another boot", "boot pid:[1]", "", None])
def test_a_process_that_cannot_be_seen_from_here_is_not_dead(
    tmp_path: Path, space: str | None
) -> None:
    store = Store(str(tmp_path))
    store.write_bytes("lock", held_by(2**22 + 1, process_space=space))
    with pytest.raises(Locked):
        Lock(store, "lock", "it").__enter__()


def test_a_clock_that_is_behind_costs_no_lock(any_store: Store) -> None:
    any_store.write_bytes("lock", held_by(1, process_space="", heartbeat=time.time() - 40))
    with pytest.raises(Locked):
        Lock(any_store, "lock", "it").__enter__()
    assert any_store.list() == ["lock"]


def test_silence_by_the_clock_of_the_store_frees_a_lock(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write_bytes("lock", held_by(1, process_space="", heartbeat=time.time() - 40))
    os.utime(store.local("lock"), (0, time.time() - 40))
    with Lock(store, "lock", "it"):
        assert store.list() == ["lock"]


@pytest.mark.parametrize("moment", ["before the look", "before the removal"])
def test_of_two_that_take_over_one_wins(
    any_store: Store, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    any_store.write_bytes("lock", held_by(1, process_space="", heartbeat=0))
    first, second = Lock(any_store, "lock", "it"), Lock(any_store, "lock", "it")
    if moment == "before the removal" and any_store.is_local:
        take = Store.take

        def late(store: Store, path: str) -> bytes | None:
            monkeypatch.setattr(Store, "take", take)
            first.__enter__()
            return take(store, path)

        monkeypatch.setattr(Store, "take", late)
    else:
        is_stale = second._is_stale

        def slow(holder: dict[str, object]) -> bool:
            first.__enter__()
            return is_stale(holder)

        monkeypatch.setattr(second, "_is_stale", slow)
    with pytest.raises(Locked):
        second.__enter__()
    assert any_store.read_json("lock")["token"] == first._token
    assert any_store.list() == ["lock"]
    first.__exit__(None, None, None)
    assert any_store.list() == []


def test_an_answer_that_got_lost_locks_nobody_out(
    any_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = Store.create

    def refused(store: Store, path: str, data: bytes) -> bool:
        create(store, path, data)
        return False

    monkeypatch.setattr(Store, "create", refused)
    with Lock(any_store, "lock", "it"):
        pass
    assert any_store.list() == []


def saved(checkpoints: StoreCheckpoints, tmp_path: Path, *steps: int) -> None:
    for step in steps:
        folder = tmp_path / f"save-{step}"
        folder.mkdir()
        (folder / "weights").write_text(f"weights {step}")
        checkpoints.save(step, folder)


def test_checkpoints_fall_back_when_damaged(
    any_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    checkpoints = StoreCheckpoints(any_store, "train/checkpoints", notes.append)
    assert checkpoints.latest() is None
    saved(checkpoints, tmp_path, 5, 10, 15)
    latest = checkpoints.latest()
    assert latest is not None and latest[0] == 15
    assert (latest[1] / "weights").read_text() == "weights 15"
    any_store.write_bytes("train/checkpoints/step-15/weights", b"weights 1_")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "another-node"))
    latest = checkpoints.latest()
    assert latest is not None and latest[0] == 10
    assert "step 15 is damaged" in notes[0]
    assert any_store.read_json_if_any("train/checkpoints/step-5.json") is None
    checkpoints.clear()
    assert checkpoints.latest() is None


@pytest.mark.parametrize("left", [b"weights", None])
def test_a_node_with_a_copy_falls_back_like_the_others(
    any_store: Store, tmp_path: Path, left: bytes | None
) -> None:
    checkpoints = StoreCheckpoints(any_store, "train/checkpoints")
    saved(checkpoints, tmp_path, 5, 10)
    assert (checkpoints.latest() or (0, None))[0] == 10
    any_store.delete("train/checkpoints/step-10/weights")
    if left is not None:
        any_store.write_bytes("train/checkpoints/step-10/weights", left)
    assert (checkpoints.latest() or (0, None))[0] == 5


def test_ranks_of_a_node_leave_each_other_their_checkpoint(
    any_store: Store, tmp_path: Path, own_cache: Path
) -> None:
    checkpoints = StoreCheckpoints(any_store, "train/checkpoints")
    saved(checkpoints, tmp_path, 5)
    _, folder = checkpoints.latest() or (0, Path())
    with (folder / "weights").open() as being_read:
        assert checkpoints.latest() == (5, folder)
        assert os.fstat(being_read.fileno()).st_nlink == 1, "it is still there"
    saved(checkpoints, tmp_path, 10, 15)
    assert checkpoints.latest() is not None
    assert not folder.exists(), "copies of what is no longer kept go"
    checkpoints.clear()
    assert not list(own_cache.rglob("weights"))
