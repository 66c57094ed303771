from __future__ import annotations

import gc
import os
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import ray

from pipeline.dag.contract import Resources
from pipeline.distributed import tally
from pipeline.distributed.shards import ShardFailure, run_shards
from pipeline.models import reservation
from tests.benches import Counter
from tests.distributed.work import Device, Holder, Squares, marks

TWO = Resources(workers=2, cpus_per_worker=0.5, gpus_per_worker=0)
HERE = Resources(workers=0)


def test_without_ray_everything_happens_here(tmp_path: Path):
    progress = Counter()
    reports = run_shards(Squares(tmp_path), [3, 1, 2], HERE, progress)
    assert [report["square"] for report in reports] == [9, 1, 4]
    assert {report["process"] for report in reports} == {os.getpid()} and progress.rows == 30
    with pytest.raises(RuntimeError, match="cannot square 1"):
        run_shards(Squares(tmp_path, fails=1), [3, 1, 2], HERE, progress)
    assert run_shards(Squares(tmp_path), [], TWO, progress) == []


@pytest.mark.parametrize(("gpus", "gpu"), [(0, False), (0.5, True), ("auto", None)])
def test_work_without_ray_takes_the_device_that_is_reserved(gpus, gpu):
    here = Resources(workers=0, gpus_per_worker=gpus)
    assert run_shards(Device(), [0], here, Counter()) == [{"gpu": gpu}]
    assert reservation.wanted() is None, "what comes after it is free again"


@pytest.mark.ray
@pytest.mark.parametrize("gpus", [0, "auto"])
def test_actors_without_a_gpu_keep_to_the_cpu(ray_cluster, gpus):
    resources = Resources(workers=1, cpus_per_worker=0.5, gpus_per_worker=gpus)
    assert run_shards(Device(), [0], resources, Counter()) == [{"gpu": False}]


@pytest.mark.ray
def test_reports_come_in_the_order_of_the_tasks(ray_cluster, tmp_path: Path):
    progress = Counter()
    tasks = [5, 3, 4, 1, 2, 0]
    reports = run_shards(Squares(tmp_path), tasks, TWO, progress)
    assert [report["square"] for report in reports] == [task * task for task in tasks]
    processes = {report["process"] for report in reports}
    assert os.getpid() not in processes and len(processes) <= 2
    assert len(marks(tmp_path, "worker")) <= 2, "the work is made once a worker"
    assert progress.rows == 60, "all rows are counted at the driver, none twice"


@pytest.mark.ray
def test_an_error_in_a_worker_reaches_the_driver_in_its_own_words(ray_cluster, tmp_path: Path):
    with pytest.raises(ShardFailure, match="RuntimeError: cannot square 3"):
        run_shards(Squares(tmp_path, fails=3), [1, 2, 3], TWO, Counter())
    assert len(marks(tmp_path, "task-3")) == 1, "an error is not tried again"


@pytest.mark.ray
@pytest.mark.parametrize("waits", [False, True])
def test_who_waits_for_room_says_so(ray_cluster, tmp_path: Path, monkeypatch, waits: bool):
    monkeypatch.setattr(tally, "PATIENCE_SECONDS", 1.0 if waits else 60.0)
    cpus = ray.cluster_resources()["CPU"]
    holder = ray.remote(num_cpus=cpus)(Holder).remote()
    ray.get(holder.ready.remote())
    progress = Counter()
    release = threading.Timer(4.0, lambda: ray.kill(holder))
    release.start()
    run_shards(Squares(tmp_path), [1], TWO, progress)
    release.join()
    said = [
        f"waiting for room: workers wanted 1, each with 0.5 CPU, free 0 of {cpus:g} CPU "
        "(`ray status` shows what holds the rest)"
    ]
    assert progress.notes == (said if waits else [])


@pytest.mark.ray
@pytest.mark.parametrize("fails", [None, 3])
def test_workers_end_with_the_work(ray_cluster, tmp_path: Path, fails: int | None):
    """At once: whoever wants their room next may wait in a process that collects no garbage."""
    gc.disable()
    try:
        with nullcontext() if fails is None else pytest.raises(ShardFailure):
            run_shards(Squares(tmp_path, fails=fails), [1, 2, 3], TWO, Counter())
        deadline = time.monotonic() + 60
        while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        gc.enable()


@pytest.mark.ray
def test_a_killed_actor_costs_nothing_but_time(ray_cluster, tmp_path: Path):
    tasks = [1, 2, 3, 4, 5]
    reports = run_shards(Squares(tmp_path, dies=3), tasks, TWO, Counter())
    assert [report["square"] for report in reports] == [1, 4, 9, 16, 25]
    assert len(marks(tmp_path, "task-3")) == 2


@pytest.mark.ray
def test_an_actor_that_always_dies_is_given_up_after_three_attempts(ray_cluster, tmp_path: Path):
    with pytest.raises(ShardFailure, match=r"task 1 ended its process 3 times \(out of memory"):
        run_shards(Squares(tmp_path, dies=2, deaths=99), [1, 2, 3], TWO, Counter())
    assert len(marks(tmp_path, "task-2")) == 3
