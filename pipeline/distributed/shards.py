"""Shard work on Ray Data: one row per task goes through an actor pool.

A task names its input and output shards; the actor reads, computes and writes them itself and sends
back only counts, so that the object store carries names and no embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from typing import Any, Generic, TypeVar

from pipeline.artifacts.store import Store
from pipeline.distributed.cluster import (
    HasResources,
    connect,
    gpus_per_worker,
    quieten,
    wanted_room,
    worker_count,
)
from pipeline.distributed.shared_root import Probe, shared_root
from pipeline.distributed.tally import (
    ANSWER_SECONDS,
    CountsProgress,
    RemoteProgress,
    counting,
    reasons,
)
from pipeline.models.reservation import reserved

T = TypeVar("T")
Report = dict[str, Any]
ShardWork = Callable[[T, CountsProgress], Report]
MAX_ATTEMPTS = 3


class ShardFailure(Exception):
    """Work on a shard failed; finished shards are kept and a new run goes on from there."""


def _refuse_endless_retries(what: str, attempt: int) -> None:
    if attempt > MAX_ATTEMPTS:
        raise ShardFailure(
            f"{what} ended its process {MAX_ATTEMPTS} times (out of memory, or killed); "
            "give the stage fewer workers or a smaller token budget, and run again"
        )


class _PoolActor(Generic[T]):
    """Runs tasks one after the other with work that is made once (models load here)."""

    def __init__(
        self,
        make: Callable[[], ShardWork[T]],
        tally: Any,
        probe: Probe | None = None,
        gpus: float = 0,
    ) -> None:
        import ray

        self._tally = tally
        ray.get(tally.enlist.remote(ray.get_runtime_context().current_actor))
        try:
            if probe is not None:
                probe.check()
            with reserved(gpus):
                self._work = make()
        except Exception as error:
            ray.get(tally.fail.remote(f"{type(error).__name__}: {error}"))
            raise

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import ray
        from ray import cloudpickle

        index = int(batch["index"][0])
        _refuse_endless_retries(f"task {index}", ray.get(self._tally.begin.remote(index)))
        progress = RemoteProgress(self._tally)
        try:
            report = self._work(cloudpickle.loads(batch["task"][0]), progress)
        except Exception as error:
            ray.get(self._tally.fail.remote(f"{type(error).__name__}: {error}"))
            raise
        progress.finish()
        return {"index": [index], "report": [cloudpickle.dumps(report)]}


def run_shards(
    make: Callable[[], ShardWork[T]],
    tasks: Sequence[T],
    resources: HasResources,
    progress: CountsProgress,
    store: Store | None = None,
) -> list[Report]:
    """Do all `tasks`, in any order and place; their reports in the order of the tasks.

    Args:
        make: makes the work, once per worker; sent to the workers, so it carries paths, not data.
        tasks: small picklable descriptions. Doing one twice must give the same files.
        resources: `workers: 0` does them here, one after the other, without Ray.
        progress: counts the rows that the work says it has done.
        store: the root that the work reads and writes: every node has to see it.

    Raises:
        ShardFailure: a task failed in a worker; the message carries its error.
        UnsharedRoot: some node does not see the root.
    """
    if not tasks:
        return []
    if resources.workers == 0:
        with reserved(resources.gpus_per_worker):
            work = make()
        return [work(task, progress) for task in tasks]
    connect()
    with shared_root(store) if store is not None else nullcontext() as probe:
        return _run_on_ray(make, tasks, resources, progress, probe)


def _run_on_ray(
    make: Callable[[], ShardWork[T]],
    tasks: Sequence[T],
    resources: HasResources,
    progress: CountsProgress,
    probe: Probe | None,
) -> list[Report]:
    import ray
    from ray import cloudpickle

    rows = [{"index": i, "task": cloudpickle.dumps(task)} for i, task in enumerate(tasks)]
    gpus = gpus_per_worker(resources)
    workers = min(worker_count(resources), len(tasks))
    pool = ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2)
    quieten("ray.data")
    ray.data.DataContext.get_current().enable_progress_bars = False
    with counting(progress, wanted_room(workers, resources.cpus_per_worker, gpus)) as tally:
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _PoolActor,
            batch_size=1,
            batch_format="numpy",
            num_cpus=resources.cpus_per_worker,
            num_gpus=gpus or None,
            compute=pool,
            fn_constructor_kwargs={"make": make, "tally": tally, "probe": probe, "gpus": gpus},
        )
        try:
            done = dataset.take_all()
        except ray.exceptions.RayError as error:
            raise ShardFailure(reasons(tally, error)) from error
        finally:
            _end_workers(tally)
    done.sort(key=lambda row: row["index"])
    return [cloudpickle.loads(row["report"]) for row in done]


def _end_workers(tally: Any) -> None:
    """End the pool's actors: their room is needed for what comes next.

    Ray Data lets go of its actors and leaves them to Python's garbage collection, which after a
    failure may be minutes away, while training waits for the resources that they hold.
    """
    import ray

    with suppress(ray.exceptions.RayError):
        for worker in ray.get(tally.workers.remote(), timeout=ANSWER_SECONDS):
            ray.kill(worker)
