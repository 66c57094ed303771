"""Splits, search depths and folds, as parameters that several stages share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from pipeline.dag.contract import Params
from pipeline.sources.records import Split

Depths: TypeAlias = Annotated[dict[Split, Annotated[int, Field(ge=1)]], Field(min_length=1)]
"""split -> candidates per query."""


class FoldParams(Params):
    """A part of a split's queries, for models that have not seen them (cross-fitting).

    Attributes:
        number: 1, 2, … `of`.
        of: how many folds. They are of nearly equal size and always the same; queries that have a
            positive passage, a copy of one or their text in common are in one fold.
        keep: the queries `inside` the fold (to score them), or those `outside` (to train on them).
    """

    number: int = Field(ge=1)
    of: int = Field(ge=2)
    keep: Literal["inside", "outside"]

    def mistakes(self) -> Sequence[str]:
        """A number beyond the last fold."""
        return (f"fold {self.number} of {self.of} folds",) if self.number > self.of else ()
