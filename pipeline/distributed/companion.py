"""Work that goes on beside a training's ranks, in a process of its own that may die."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from pipeline.distributed.cluster import HasResources, gpus_per_worker

ANSWER_SECONDS = 60.0
POLL_SECONDS = 0.2


class NoRoomBeside(Exception):
    """The ranks leave no GPU to what works beside them."""


@dataclass(frozen=True)
class Room:
    """What the ranks leave of the cluster.

    Attributes:
        workers: that a companion may start, at least one.
        cpus: reserved for each; 0 where the ranks have them all, which one worker then shares.
        gpus: reserved for each, as for a rank.
    """

    workers: int
    cpus: float
    gpus: float


def room_beside(resources: HasResources, ranks: int) -> Room:
    """The workers for which there is room beside so many ranks of these resources.

    Raises:
        NoRoomBeside: the ranks hold the GPUs; a corpus would be encoded on a CPU, and all wait.
    """
    import ray

    gpus = gpus_per_worker(resources, accompanied=True)
    found = ray.cluster_resources()
    workers = int(found.get("CPU", 0) / resources.cpus_per_worker) - ranks
    if gpus:
        on_gpus = int(found.get("GPU", 0) / gpus) - ranks
        if on_gpus < 1:
            raise NoRoomBeside(
                f"training takes all {found.get('GPU', 0):g} GPU with {ranks} workers of {gpus:g} "
                "each, and what makes its negatives anew needs one too: give "
                + ("`gpus_per_worker: 0.5`" if ranks == 1 else "fewer `workers`")
            )
        workers = min(workers, on_gpus)
    # A worker that waits for what the ranks hold would wait for ever, and they for it.
    return Room(workers, resources.cpus_per_worker, gpus) if workers >= 1 else Room(1, 0, gpus)


class Companion(Protocol):
    """What works beside the ranks. Picklable; both sides meet over files."""

    def serve(self, room: Room) -> None:
        """Work until this process is ended. Begun anew where it dies."""

    def give_up(self, why: str) -> None:
        """Tell the ranks that nobody serves any more."""


class _CompanionActor:
    def serve(self, companion: Companion, room: Room) -> None:
        companion.serve(room)


class _Attendance:
    """Keeps a process of the companion's at work; a new one takes the place of one that died.

    Ray can restart an actor and retry its task itself, and goes on to do so with one that is being
    ended. Each process here is a new actor with neither, and one thread makes all of these calls.
    """

    def __init__(self, companion: Companion, room: Room, max_failures: int) -> None:
        self._companion = companion
        self._room = room
        self._max_failures = max_failures
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._attend, name="companion", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join(ANSWER_SECONDS)

    def _attend(self) -> None:
        from ray.exceptions import OutOfMemoryError, RayActorError

        try:
            for failures in range(self._max_failures + 1):
                try:
                    return self._serve_once()
                except (RayActorError, OutOfMemoryError):
                    if failures == self._max_failures or self._ended.is_set():
                        raise
        except Exception as error:  # Whatever it is, the ranks must not wait for ever.
            # Once the block has ended none do, and others may have begun in the same place.
            if not self._ended.is_set():
                cause = getattr(error, "cause", None) or error
                self._companion.give_up(f"{type(cause).__name__}: {cause}")

    def _serve_once(self) -> None:
        """Until the block ends or the companion fails."""
        import ray

        actor = ray.remote(num_cpus=0)(_CompanionActor).remote()
        try:
            serving = actor.serve.remote(self._companion, self._room)
            while not self._ended.is_set():
                if ray.wait([serving], timeout=POLL_SECONDS)[0]:
                    ray.get(serving)
                    return
        finally:
            ray.kill(actor)


@contextmanager
def accompanied(companion: Companion, room: Room, max_failures: int) -> Iterator[None]:
    """Have a companion work while the block runs; its process is started again where it dies."""
    attendance = _Attendance(companion, room, max_failures)
    attendance.begin()
    try:
        yield
    finally:
        attendance.end()
