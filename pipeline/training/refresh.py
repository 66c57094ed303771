"""Negatives that a training makes anew with its own weights while it goes on (ANCE)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pipeline.training.batches import Batches, Share
from pipeline.training.objective import Objective


class Refresher(Protocol):
    """Makes versions of the rows; `pipeline.stages.refresh` has one."""

    def hand_over(self, objective: Objective, version: int) -> None:
        """Keep the weights as they are now for making a version. Rank 0 calls it.

        What an earlier attempt has handed over stays.
        """

    def exchanged(self, objective: Objective, version: int) -> Objective:
        """The objective with the rows of a version, once they are made. Every rank calls it."""

    def overlap_with_previous(self, version: int) -> float:
        """The share of a version's candidates that the version before had."""

    def retain(self, versions: Collection[int], current: int) -> None:
        """Forget what the making of `current` has left, and older versions but the given ones.

        Rank 0 calls it, when `current` comes into force.
        """


@dataclass(frozen=True, eq=False)
class Section:
    """Consecutive steps on the same rows: all of them, where rows are never made anew.

    Attributes:
        objective: with these rows.
        batches: of these rows; their steps count from the section's first.
        first: 0-based step.
        version: of the rows.
    """

    objective: Objective
    batches: Batches
    first: int = 0
    version: int = 0

    def epoch(self, step: int) -> int:
        """The 0-based epoch over these rows that `step` of the training belongs to."""
        return self.batches.epoch(step - self.first)

    def share(self, step: int, rank: int, size: int) -> Share:
        """What `rank` among `size` ranks sees in `step` of the training."""
        return replace(self.batches.share(step - self.first, rank, size), step=step)


def summary(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What a journal says of its versions.

    Returns:
        `refreshed`, versions that came into force; `seconds_waited` for them in all;
        `staleness_mean` and `staleness_max`, by how many steps the weights that found a step's
        negatives were older than those it trained; `overlap_with_previous`, the share of a
        version's candidates that the version before had, its mean.
    """
    stale = [line["step"] - 1 - line["negatives_of_step"] for line in lines]
    overlaps = [line["overlap_with_previous"] for line in lines if "overlap_with_previous" in line]
    found = {
        "refreshed": len({line["negatives_of_step"] for line in lines} - {0}),
        "seconds_waited": sum(line["seconds_waited"] for line in lines),
        "staleness_mean": sum(stale) / len(stale),
        "staleness_max": max(stale),
    }
    return found | ({"overlap_with_previous": sum(overlaps) / len(overlaps)} if overlaps else {})
