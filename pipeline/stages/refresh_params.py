"""Parameters of negatives that a training makes anew while it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from pipeline.dag.contract import Params, Resources

if TYPE_CHECKING:
    from pipeline.methods.refresh import RefreshSchedule


class RefreshParams(Params):
    """When training makes its pools anew with its own weights, as the wired ones were made (ANCE).

    The weights of every `every` steps encode the corpus, search and weigh, beside the training. The
    result is in force from a fixed step on, for which training waits if it must: so it depends
    neither on speed nor on the number of workers.

    Attributes:
        every: steps between two versions of the pools.
        lag: steps from the weights to the step from which on their pools are in force; `every`
            where it is left out, at most that. 0 waits for the new pools at once.
    """

    every: int = Field(ge=1)
    lag: int | None = Field(default=None, ge=0)

    @property
    def schedule(self) -> RefreshSchedule:
        """Which steps train on which version."""
        from pipeline.methods.refresh import RefreshSchedule

        return RefreshSchedule(self.every, self.every if self.lag is None else self.lag)

    def mismatches(self, wired: Mapping[str, int], resources: Resources) -> Sequence[str]:
        """One version in the making at a time."""
        if self.lag is not None and self.lag > self.every:
            return (
                f"refresh.lag {self.lag} exceeds refresh.every {self.every}: one version of the "
                "pools is in the making at a time",
            )
        return ()
