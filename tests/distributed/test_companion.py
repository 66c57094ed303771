from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from pipeline.dag.contract import Resources
from pipeline.distributed import companion
from pipeline.distributed.companion import NoRoomBeside, Room, accompanied, room_beside
from pipeline.distributed.training import SharedGpu, _ranks
from tests.distributed.work import Attendant, marks

ROOM = Room(workers=1, cpus=0, gpus=0)


@pytest.mark.parametrize(
    ("cluster", "resources", "ranks", "room"),
    [
        ({"CPU": 8}, {"gpus_per_worker": 0}, 3, Room(5, 1, 0)),
        ({"CPU": 8}, {"gpus_per_worker": 0, "cpus_per_worker": 3}, 2, ROOM),
        ({"CPU": 2}, {"gpus_per_worker": 0}, 2, ROOM),
        ({"CPU": 64, "GPU": 8}, {"cpus_per_worker": 4}, 5, Room(3, 4, 1)),
        ({"CPU": 4, "GPU": 8}, {}, 4, Room(1, 0, 1)),
        ({"CPU": 16, "GPU": 1}, {}, 1, Room(1, 1, 0.5)),
        ({"CPU": 64, "GPU": 4}, {"gpus_per_worker": 0.5}, 4, Room(4, 1, 0.5)),
    ],
)
def test_the_room_is_what_the_ranks_leave(cluster, resources, ranks, room, monkeypatch):
    monkeypatch.setattr(ray, "cluster_resources", lambda: cluster)
    assert room_beside(Resources(**resources), ranks) == room


@pytest.mark.parametrize(
    ("gpus", "resources", "ranks"),
    [(8, {"gpus_per_worker": 1}, 8), (1, {"gpus_per_worker": 1}, 1), (4, {}, 4)],
)
def test_ranks_on_all_gpus_leave_no_room(gpus, resources, ranks, monkeypatch):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 64, "GPU": gpus})
    with pytest.raises(NoRoomBeside, match=f"all {gpus} GPU with {ranks} workers of 1 each"):
        room_beside(Resources(**resources), ranks)


@pytest.mark.parametrize(
    ("cluster", "workers", "accompanied", "ranks"),
    [
        ({"CPU": 4}, "auto", False, 4),
        ({"CPU": 4}, "auto", True, 2),
        ({"CPU": 4}, 4, True, 4),
        ({"CPU": 16, "GPU": 4}, "auto", False, 4),
        ({"CPU": 16, "GPU": 4}, "auto", True, 2),
        ({"CPU": 16, "GPU": 1}, "auto", True, 1),
    ],
)
def test_ranks_leave_room_unless_they_are_counted(
    cluster, workers, accompanied, ranks, monkeypatch
):
    monkeypatch.setattr(ray, "cluster_resources", lambda: cluster)
    resources = Resources(workers=workers)
    assert _ranks(resources, [1, 2, 4], accompanied) == ranks


def test_no_two_ranks_meet_on_a_gpu(monkeypatch):
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 16, "GPU": 4})
    for part, ranks in ((0.5, 1), (0.6, 4), (1, 4)):
        assert _ranks(Resources(gpus_per_worker=part), [1, 2, 4], accompanied=False) == ranks
    with pytest.raises(SharedGpu, match=r"gpus_per_worker 0.5 may put two of 2 ranks"):
        _ranks(Resources(workers=2, gpus_per_worker=0.5), [1, 2], accompanied=False)
    assert _ranks(Resources(workers=2, gpus_per_worker=0), [1, 2], accompanied=False) == 2


def wait_for(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.ray
def test_a_companion_that_dies_is_begun_anew_and_ends_with_the_block(ray_cluster, tmp_path: Path):
    with accompanied(Attendant(tmp_path, deaths=1), ROOM, max_failures=1):
        wait_for(lambda: len(marks(tmp_path, "served")) == 2)
    beats = len(marks(tmp_path, "beat"))
    time.sleep(1)
    assert len(marks(tmp_path, "beat")) == beats
    assert not (tmp_path / "given-up").exists(), "that it was ended is no failure"


@pytest.mark.ray
@pytest.mark.parametrize(
    ("attendant", "why"),
    [({"fails": True}, "RuntimeError: cannot serve"), ({"deaths": 2}, "ActorDiedError")],
)
def test_the_ranks_are_told_when_nobody_serves(ray_cluster, tmp_path: Path, attendant, why):
    with accompanied(Attendant(tmp_path, **attendant), ROOM, max_failures=1):
        wait_for((tmp_path / "given-up").exists)
    assert (tmp_path / "given-up").read_text().startswith(why)


def serving(patch: pytest.MonkeyPatch, error: Exception, until_ended: bool = False) -> list[str]:
    """Have each process of a companion's end in an error; grows by one with each of them."""
    begun: list[str] = []

    def serve_once(self) -> None:
        begun.append(threading.current_thread().name)
        if until_ended:
            self._ended.wait()
        raise error

    patch.setattr(companion._Attendance, "_serve_once", serve_once)
    return begun


@pytest.mark.parametrize(
    ("error", "begun"),
    [
        (ray.exceptions.ActorDiedError(), 2),
        # What Ray says of a process that it has killed to save the node's memory.
        (ray.exceptions.OutOfMemoryError("killed"), 2),
        (RuntimeError("cannot serve"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_a_process_that_died_is_begun_anew(tmp_path: Path, monkeypatch, error, begun):
    serve = serving(monkeypatch, error)
    with accompanied(Attendant(tmp_path), ROOM, max_failures=1):
        wait_for((tmp_path / "given-up").exists)
    assert len(serve) == begun
    assert (tmp_path / "given-up").read_text().startswith(type(error).__name__)


@pytest.mark.parametrize(
    "error", [ray.exceptions.ActorDiedError(), ray.exceptions.RaySystemError("lost")], ids=repr
)
def test_what_fails_when_it_is_ended_is_neither_told_nor_begun_anew(
    tmp_path: Path, monkeypatch, error
):
    """Calls to a node that has died may come back long after the block."""
    serve = serving(monkeypatch, error, until_ended=True)
    with accompanied(Attendant(tmp_path), ROOM, max_failures=3):
        wait_for(lambda: bool(serve))
    assert len(serve) == 1
    assert not (tmp_path / "given-up").exists()


@pytest.mark.ray
def test_a_companion_that_is_ended_while_it_starts_does_not_serve(ray_cluster, tmp_path: Path):
    for _ in range(3):
        with accompanied(Attendant(tmp_path), ROOM, max_failures=1):
            pass
    time.sleep(2)
    beats = len(marks(tmp_path, "beat"))
    time.sleep(1)
    assert len(marks(tmp_path, "beat")) == beats
    assert not (tmp_path / "given-up").exists()
