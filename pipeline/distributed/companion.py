"""Work that goes on beside a training's ranks, in a process of its own that may die."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from pipeline.distributed.cluster import HasResources, gpus_per_worker

ANSWER_SECONDS = 60.0


@dataclass(frozen=True)
class Room:
    """What the ranks leave of the cluster.

    Attributes:
        workers: that a companion may start, at least one.
        cpus: reserved for each; 0 where the ranks have them all, which one worker then shares.
        gpus: likewise.
    """

    workers: int
    cpus: float
    gpus: float


def room_beside(resources: HasResources, ranks: int) -> Room:
    """The workers for which there is room beside so many ranks of these resources."""
    import ray

    gpus = gpus_per_worker(resources)
    found = ray.cluster_resources()
    left = [found.get("CPU", 0) / resources.cpus_per_worker - ranks]
    if gpus:
        left.append(found.get("GPU", 0) / gpus - ranks)
    workers = int(min(left))
    # A worker that waits for what the ranks hold would wait for ever, and they for it.
    return Room(workers, resources.cpus_per_worker, gpus) if workers >= 1 else Room(1, 0, 0)


class Companion(Protocol):
    """What works beside the ranks. Picklable; both sides meet over files."""

    def serve(self, room: Room) -> None:
        """Work until this process is ended. Begun anew where it dies."""

    def give_up(self, why: str) -> None:
        """Tell the ranks that nobody serves any more."""


class _CompanionActor:
    def serve(self, companion: Companion, room: Room) -> None:
        companion.serve(room)


@contextmanager
def accompanied(companion: Companion | None, room: Room, max_failures: int) -> Iterator[None]:
    """Have a companion work while the block runs; its process is started again where it dies."""
    if companion is None:
        yield
        return
    import ray

    limits = {"max_restarts": max_failures, "max_task_retries": max_failures}
    actor = ray.remote(num_cpus=0, **limits)(_CompanionActor).remote()
    ended = threading.Event()

    def watch() -> None:
        try:
            ray.get(actor.serve.remote(companion, room))
        except Exception as error:  # Whatever it is, the ranks must not wait for ever.
            if not ended.is_set():
                cause = getattr(error, "cause", None) or error
                companion.give_up(f"{type(cause).__name__}: {cause}")

    thread = threading.Thread(target=watch, name="companion", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        ray.kill(actor)
        thread.join(ANSWER_SECONDS)
