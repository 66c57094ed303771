"""Work for shard pools and training groups; workers import it by name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from pipeline.models import reservation


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Squares:
    """Squares numbers; each task and each worker leaves a file behind.

    Attributes:
        folder: where.
        fails: the task that raises.
        dies: the task whose process is killed, the first `deaths` times.
    """

    folder: Path
    fails: int | None = None
    dies: int | None = None
    deaths: int = 1

    def __call__(self) -> Callable[[int, Any], dict[str, Any]]:
        (self.folder / f"worker-{os.getpid()}").touch()
        return self.square

    def square(self, task: int, progress: Any) -> dict[str, Any]:
        mark(self.folder, f"task-{task}")
        if task == self.fails:
            raise RuntimeError(f"cannot square {task}")
        if task == self.dies and len(marks(self.folder, f"task-{task}")) <= self.deaths:
            die()
        progress.advance(10)
        time.sleep(0.05)
        return {"square": task * task, "process": os.getpid()}


class Holder:
    """Holds what it was given."""

    def ready(self) -> None:
        """Answer once it has it."""


class Device:
    """Tells whether it was made to use a GPU."""

    def __call__(self) -> Callable[[int, Any], dict[str, Any]]:
        gpu = reservation.wanted()
        return lambda task, progress: {"gpu": gpu}


def mark(folder: Path, name: str) -> None:
    (folder / f"{name}-{time.monotonic_ns()}-{os.getpid()}").touch()


def marks(folder: Path, name: str) -> list[Path]:
    return list(folder.glob(f"{name}-*"))


@dataclass(frozen=True)
class SumOfRanks:
    """A loop that adds up ranks over the group, then ends in one of several ways.

    Attributes:
        ending: `well`, `error` (rank 1 raises), `mistake` (all do, and would again), `death` (rank
            1 is killed at the first attempt).
    """

    folder: Path
    ending: str = "well"

    def __call__(self, device: torch.device, progress: Any) -> dict[str, Any]:
        rank = distributed.get_rank() if distributed.is_initialized() else 0
        size = distributed.get_world_size() if distributed.is_initialized() else 1
        mark(self.folder, f"rank-{rank}")
        progress.start("adding", 1, "sums")
        if size > 1:
            # Nobody ends before everybody has left its mark.
            distributed.barrier()
        if rank == 1 and self.ending == "error":
            raise RuntimeError("rank 1 has had enough")
        if self.ending == "mistake":
            raise ValueError("this cannot be trained")
        if rank == 1 and self.ending == "death" and len(marks(self.folder, "rank-1")) == 1:
            die()
        total = torch.tensor(float(rank + 1))
        if size > 1:
            distributed.all_reduce(total)
        progress.note(f"rank {rank} of {size}")
        progress.advance(1)
        return {"total": float(total), "size": size, "threads": torch.get_num_threads()}


@dataclass(frozen=True)
class Attendant:
    """A companion that serves until it is ended, fails at once, or dies a few times."""

    folder: Path
    deaths: int = 0
    fails: bool = False

    def serve(self, room: Any) -> None:
        mark(self.folder, "served")
        if self.fails:
            raise RuntimeError("cannot serve")
        if len(marks(self.folder, "served")) <= self.deaths:
            die()
        while True:
            mark(self.folder, "beat")
            time.sleep(0.2)

    def give_up(self, why: str) -> None:
        half = self.folder / "given-up-half"
        half.write_text(why)
        half.rename(self.folder / "given-up")
