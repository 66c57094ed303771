"""Locks are exclusive and taken over when stale; checkpoints survive damage."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

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


def test_a_dead_process_of_this_host_holds_nothing(tmp_path: Path) -> None:
    import socket

    store = Store(str(tmp_path))
    holder = {"host": socket.gethostname(), "pid": 2**22 + 1, "process_start": "12",
              "heartbeat": time.time(), "every": 10, "token": "t"}  # fmt: skip
    store.write_bytes("lock", json.dumps(holder).encode())
    with Lock(store, "lock", "it"):
        assert store.read_json("lock")["token"] != "t"


def test_checkpoints_fall_back_when_damaged(any_store: Store, tmp_path: Path) -> None:
    notes: list[str] = []
    checkpoints = StoreCheckpoints(any_store, "train/checkpoints", notes.append)
    assert checkpoints.latest() is None
    for step in (5, 10, 15):
        folder = tmp_path / f"save-{step}"
        folder.mkdir()
        (folder / "weights").write_text(f"weights {step}")
        checkpoints.save(step, folder)
    latest = checkpoints.latest()
    assert latest is not None and latest[0] == 15
    assert (latest[1] / "weights").read_text() == "weights 15"
    any_store.write_bytes("train/checkpoints/step-15/weights", b"weights 1_")
    latest = checkpoints.latest()
    assert latest is not None and latest[0] == 10
    assert "step 15 is damaged" in notes[0]
    assert any_store.read_json_if_any("train/checkpoints/step-5.json") is None
    checkpoints.clear()
    assert checkpoints.latest() is None
