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

    def report(self, version: int) -> Mapping[str, Any]:
        """What the journal tells of a version: JSON values.

        `overlap_with_previous`, the share of its candidates that the version before had; `pools`,
        with the `counts`, `metrics` and `warnings` of the stage that made them.
        """

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


def summary(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a journal says of its versions.

    Returns:
        `refreshed`, versions that came into force; `seconds_waited` for them in all;
        `staleness_mean` and `staleness_max`, by how many steps the weights that found a step's
        negatives were older than those it trained; `overlap_with_previous`, the share of a
        version's candidates that the version before had, its mean; and the last version's metrics,
        as `last_...`.
    """
    stale = [line["step"] - 1 - line["negatives_of_step"] for line in lines]
    found: dict[str, Any] = {
        "refreshed": len({line["negatives_of_step"] for line in lines} - {0}),
        "seconds_waited": sum(line["seconds_waited"] for line in lines),
        "staleness_mean": sum(stale) / len(stale),
        "staleness_max": max(stale),
    }
    first_lines = [line for line in lines if "pools" in line]
    if not first_lines:
        return found
    overlaps = [line["overlap_with_previous"] for line in first_lines]
    found["overlap_with_previous"] = sum(overlaps) / len(overlaps)
    last = first_lines[-1]["pools"]["metrics"]
    return found | {f"last_{name}": value for name, value in last.items()}


def cautions(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """The warnings of the last version that has any, and how many have."""
    told = [line for line in lines if "pools" in line]
    warned = [line for line in told if line["pools"]["warnings"]]
    if not warned:
        return []
    last = warned[-1]
    share = f"{len(warned)} of {len(told)} versions warn"
    return [
        f"negatives of step {last['negatives_of_step']} ({share}): {warning}"
        for warning in last["pools"]["warnings"]
    ]
