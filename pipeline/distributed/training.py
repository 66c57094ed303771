"""Launching a training loop: in this process, or on N ranks under Ray Train."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.artifacts.store import Store
from pipeline.distributed.cluster import (
    HasResources,
    connect,
    gpus_per_worker,
    is_lost,
    quieten,
    wanted_room,
    worker_count,
)
from pipeline.distributed.companion import Companion, accompanied, room_beside
from pipeline.distributed.shared_root import shared_root
from pipeline.distributed.tally import CountsProgress, RemoteProgress, counting, reasons
from pipeline.models.reservation import reserved

if TYPE_CHECKING:
    import torch

R = TypeVar("R")
Loop = Callable[["torch.device", CountsProgress], R]


class TrainingFailure(Exception):
    """Training stopped; a new run goes on from the last checkpoint."""


class SharedGpu(ValueError):
    """Ranks of one training that would share a GPU."""


def launch(
    loop: Loop[R],
    resources: HasResources,
    store: Store,
    name: str,
    group_sizes: Sequence[int],
    progress: CountsProgress,
    companion: Companion | None = None,
) -> R:
    """Run `loop(device, progress)` on every rank; what rank 0 returns.

    With more than one process `torch.distributed`'s default group is initialised.

    The loop keeps its own checkpoints, and begins by looking for the last one: a rank that dies
    makes Ray Train restart the whole group, `resources.max_failures` times.

    Args:
        loop: picklable; its return value on rank 0 is small.
        resources: `workers: 0` runs one rank in this process without Ray.
        store: where Ray Train may keep its own records, on storage that all nodes see.
        name: of the run, for Ray's records.
        group_sizes: how many ranks can share the global batch, 1 among them; `workers: auto` takes
            the most of these for which there is room.
        progress: shows what rank 0 reports.
        companion: what works beside the ranks as long as they train; without Ray nobody does.

    Raises:
        TrainingFailure: the loop failed in a worker; the message carries its error.
        UnsharedRoot: some node does not see the root.
        NoRoomBeside: the ranks leave no GPU to the companion.
        SharedGpu: two ranks may meet on one GPU.
    """
    if resources.workers == 0:
        from pipeline.models.device import choose_device

        with reserved(resources.gpus_per_worker):
            device = choose_device()
        return loop(device, progress)
    connect()
    ranks = _ranks(resources, group_sizes, companion is not None)
    return _launch_on_ray(loop, resources, ranks, store, name, progress, companion)


def _ranks(resources: HasResources, group_sizes: Sequence[int], accompanied: bool) -> int:
    """The wanted number of ranks; `auto` fills the cluster, but for the room of a companion.

    Raises:
        SharedGpu: several ranks are wanted, of which two may meet on one GPU.
    """
    # Ray puts such parts together on one GPU, where NCCL takes one rank alone.
    meeting = 0 < gpus_per_worker(resources, accompanied) <= 0.5
    if isinstance(resources.workers, int):
        if meeting and resources.workers > 1:
            raise SharedGpu(
                f"gpus_per_worker {resources.gpus_per_worker} may put two of {resources.workers} "
                "ranks on one GPU, which cannot train together: give each more than half of one, "
                "or `workers: 1`"
            )
        return resources.workers
    most = 1 if meeting else max(1, worker_count(resources, accompanied) - accompanied)
    return max(ranks for ranks in group_sizes if ranks <= most)


def _rank_loop(config: dict[str, Any]) -> Any:
    """What every rank runs."""
    import ray
    import torch
    from ray import train
    from ray.train.torch import get_device

    loop, tally = config["loop"], config["tally"]
    tally.record.remote("arrive", None)
    if not config["use_gpu"]:
        torch.set_num_threads(max(1, int(config["cpus"])))
    progress = RemoteProgress(tally) if train.get_context().get_world_rank() == 0 else Silent()
    if told := ray.get(tally.hopeless.remote()):
        # Ray Train restarts the group whatever went wrong; what would go wrong again ends at once.
        raise TrainingFailure(told)
    try:
        config["probe"].check()
        result = loop(get_device(), progress)
    except Exception as error:
        final = isinstance(error, ValueError | ArithmeticError)
        ray.get(tally.fail.remote(f"{type(error).__name__}: {error}", final))
        raise
    if isinstance(progress, RemoteProgress):
        progress.finish()
    return result


class Silent:
    """The progress of ranks other than the first, and of work beside them."""

    def start(self, what: str, total: int | None, unit: str = "rows") -> None:
        """Say nothing."""

    def advance(self, amount: int) -> None:
        """Count nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""


def _launch_on_ray(
    loop: Loop[R],
    resources: HasResources,
    ranks: int,
    store: Store,
    name: str,
    progress: CountsProgress,
    companion: Companion | None,
) -> R:
    from ray import train

    quieten("ray.train")
    gpus = gpus_per_worker(resources, companion is not None)
    per_worker = {"CPU": resources.cpus_per_worker, **({"GPU": gpus} if gpus else {})}
    scaling = train.ScalingConfig(
        num_workers=ranks, use_gpu=bool(gpus), resources_per_worker=per_worker
    )
    beside: AbstractContextManager[None] = nullcontext()
    if companion is not None:
        left = room_beside(resources, ranks)
        beside = accompanied(companion, left, resources.max_failures)
    with (
        shared_root(store) as probe,
        counting(progress, wanted_room(ranks, resources.cpus_per_worker, gpus)) as tally,
        beside,
    ):
        config = {
            "loop": loop,
            "tally": tally,
            "probe": probe,
            "use_gpu": bool(gpus),
            "cpus": resources.cpus_per_worker,
        }
        try:
            value: R = _fit(config, scaling, resources.max_failures, store, name)
        except Exception as error:
            raise TrainingFailure(reasons(tally, error)) from error
    return value


def _fit(config: dict[str, Any], scaling: Any, max_failures: int, store: Store, name: str) -> Any:
    """Run Ray Train, again where it lost a rank while it set the group to work.

    A group that loses a rank later is restarted by Ray Train itself; in that moment it gives up.
    """
    import ray
    from ray import train
    from ray.train.torch import TorchTrainer

    lost = 0
    while True:
        # A name of its own for each attempt: Ray Train silently resumes a run whose name it knows,
        # and the loop's own checkpoints already decide where to go on.
        record = f"{name}-{uuid.uuid4().hex[:8]}"
        trainer = TorchTrainer(
            _rank_loop,
            train_loop_config=config,
            scaling_config=scaling,
            run_config=train.RunConfig(
                name=record,
                failure_config=train.FailureConfig(max_failures=max_failures),
                logging_config=train.LoggingConfig(log_level="CRITICAL"),
                **_storage(store),
            ),
        )
        try:
            value = trainer.fit().return_value
        except train.ControllerError as error:
            lost += 1
            lost_a_rank = isinstance(error.controller_failure, ray.exceptions.RayActorError)
            if not lost_a_rank or lost > max_failures or is_lost():
                raise
        else:
            return value
        finally:
            store.delete(f"runs/ray-train/{record}")


def _storage(store: Store) -> dict[str, Any]:
    if store.is_local:
        return {"storage_path": str(store.local("runs/ray-train"))}
    import fsspec
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    filesystem, path = fsspec.core.url_to_fs(store.full("runs/ray-train"))
    return {
        "storage_path": path,
        "storage_filesystem": PyFileSystem(FSSpecHandler(filesystem)),
    }
