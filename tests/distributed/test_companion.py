from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray

from pipeline.dag.contract import Resources
from pipeline.distributed.companion import Room, accompanied, room_beside
from tests.distributed.work import Attendant, marks

ROOM = Room(workers=1, cpus=0, gpus=0)


@pytest.mark.parametrize(
    ("cluster", "resources", "ranks", "room"),
    [
        ({"CPU": 8}, {"gpus_per_worker": 0}, 3, Room(5, 1, 0)),
        ({"CPU": 8}, {"gpus_per_worker": 0, "cpus_per_worker": 3}, 2, ROOM),
        ({"CPU": 2}, {"gpus_per_worker": 0}, 2, ROOM),
        ({"CPU": 64, "GPU": 8}, {"cpus_per_worker": 4}, 5, Room(3, 4, 1)),
        ({"CPU": 64, "GPU": 4}, {}, 4, ROOM),
        ({"CPU": 64, "GPU": 4}, {"gpus_per_worker": 0.5}, 4, Room(4, 1, 0.5)),
    ],
)
def test_the_room_is_what_the_ranks_leave(cluster, resources, ranks, room, monkeypatch):
    monkeypatch.setattr(ray, "cluster_resources", lambda: cluster)
    assert room_beside(Resources(**resources), ranks) == room


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
