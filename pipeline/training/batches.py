"""Which rows a training step sees: a function of seed and step alone, whatever the restarts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]

# Between the seeds of two parts: farther than replicates will be.
_BETWEEN_PARTS = 1_000_003
# Between the seeds of two sources of rows: farther than parts will be.
_BETWEEN_SOURCES = 1_000_000_000_039


def part_seed(seed: int, number: int) -> int:
    """The seed of the 1-based part `number` of a training: batches and draws of its own."""
    return seed + (number - 1) * _BETWEEN_PARTS


def source_seed(seed: int, number: int) -> int:
    """The seed of the 1-based source `number` of a training's rows.

    Of two pools of one query, draws that share their noise would share their negatives.
    """
    return seed + (number - 1) * _BETWEEN_SOURCES


@dataclass(frozen=True, eq=False)
class Share:
    """One rank's part of a step.

    Attributes:
        rows: row numbers.
        step: 0-based, of the whole training.
        epoch: 0-based; rows whose negatives are drawn anew in every epoch depend on it.
    """

    rows: IntArray
    step: int = 0
    epoch: int = 0


@lru_cache(maxsize=2)
def _permutation(rows: int, seed: int, epoch: int) -> IntArray:
    return np.random.default_rng([seed, epoch]).permutation(rows).astype(np.int64, copy=False)


class TooFewRows(ValueError):
    """They do not fill one global batch."""


@dataclass(frozen=True)
class Batches:
    """Global batches of a seeded permutation per epoch, cut into one contiguous share per rank.

    The rows that do not fill a whole batch at an epoch's end are dropped for that epoch; since
    every epoch is shuffled anew, other rows are dropped in the next.

    Attributes:
        rows: number of training rows.
        global_batch_size: rows of one step over all ranks.
        seed: seed of the permutations.
        num_train_epochs: passes over the rows; a fraction ends within an epoch.
        max_steps: number of steps that takes the place of `num_train_epochs`, or None.

    Raises:
        TooFewRows: there are fewer rows than one global batch.
    """

    rows: int
    global_batch_size: int
    seed: int
    num_train_epochs: float = 1.0
    max_steps: int | None = None

    def __post_init__(self) -> None:
        if self.global_batch_size < 1:
            raise ValueError(
                f"global_batch_size is {self.global_batch_size}; it must be at least 1"
            )
        if not self.rows:
            raise TooFewRows(
                "there are no training rows: the last lines of the stages that made the lists say "
                "what they have dropped, and why"
            )
        if self.rows < self.global_batch_size:
            raise TooFewRows(
                f"{self.rows} training rows are fewer than one global batch of "
                f"{self.global_batch_size}: lower global_batch_size to {self.rows} or less, or "
                "give more training lists"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self.rows // self.global_batch_size

    @property
    def dropped_per_epoch(self) -> int:
        """Rows that an epoch leaves out because they fill no whole batch."""
        return self.rows % self.global_batch_size

    @property
    def total_steps(self) -> int:
        """Steps of the whole training, at least one."""
        if self.max_steps is not None:
            return self.max_steps
        return max(1, round(self.num_train_epochs * self.steps_per_epoch))

    def epoch(self, step: int) -> int:
        """The 0-based epoch that 0-based `step` belongs to."""
        return step // self.steps_per_epoch

    def global_rows(self, step: int) -> IntArray:
        """Row numbers of 0-based `step`, [global_batch_size]."""
        first = step % self.steps_per_epoch * self.global_batch_size
        order = _permutation(self.rows, self.seed, self.epoch(step))
        return order[first : first + self.global_batch_size]

    def share(self, step: int, rank: int, size: int) -> Share:
        """The share of `rank` among `size` ranks, global_batch_size / size rows.

        Raises:
            ValueError: `size` does not divide the global batch.
        """
        share, rest = divmod(self.global_batch_size, size)
        if rest:
            raise ValueError(
                f"{size} workers cannot share a global batch of {self.global_batch_size} rows "
                f"evenly: use a number of workers that divides {self.global_batch_size}"
            )
        rows = self.global_rows(step)[rank * share : (rank + 1) * share]
        return Share(rows, step, self.epoch(step))
