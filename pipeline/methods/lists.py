"""Lists of passages, one per query, as flat arrays: the form in which candidates move about.

A list column of an Arrow table is two arrays already (all values, and where each row starts), so
lists of unequal length need no padding. Whatever belongs to a candidate (score, logit, probability)
is a plain array of the same length as `passage_indices`, and so are the masks that filters and
samplers give back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class PassageLists:
    """For each of Q queries a list of passages, in rank order if they have one; N in all.

    Attributes:
        query_indices: int32 [Q], every query once (in pools: once for each of its positives).
        offsets: int64 [Q + 1]; row i holds entries `offsets[i]:offsets[i + 1]`.
        passage_indices: int32 [N].
    """

    query_indices: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    passage_indices: npt.NDArray[np.int32]

    def __post_init__(self) -> None:
        rows, entries = len(self.query_indices), len(self.passage_indices)
        if len(self.offsets) != rows + 1:
            raise ValueError(f"{rows} queries need {rows + 1} offsets, got {len(self.offsets)}")
        if self.offsets[0] != 0 or self.offsets[-1] != entries or np.any(np.diff(self.offsets) < 0):
            raise ValueError(f"offsets must rise from 0 to the number of passages, {entries}")

    @classmethod
    def from_lengths(
        cls, query_indices: npt.ArrayLike, lengths: npt.ArrayLike, passage_indices: npt.ArrayLike
    ) -> PassageLists:
        """Build from the length of each row [Q] and all passages in row order [N]."""
        offsets = np.zeros(np.size(lengths) + 1, dtype=np.int64)
        np.cumsum(np.asarray(lengths, dtype=np.int64), out=offsets[1:])
        return cls(
            np.asarray(query_indices, dtype=np.int32),
            offsets,
            np.asarray(passage_indices, dtype=np.int32),
        )

    @classmethod
    def from_rows(cls, query_indices: npt.ArrayLike, rows: Sequence[npt.ArrayLike]) -> PassageLists:
        """Build from one sequence of passages per query."""
        arrays = [np.asarray(row, dtype=np.int32) for row in rows]
        flat = np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int32)
        return cls.from_lengths(query_indices, [len(row) for row in arrays], flat)

    @classmethod
    def from_pairs(
        cls, query_indices: npt.ArrayLike, passage_indices: npt.ArrayLike
    ) -> PassageLists:
        """Group pairs by query, ascending; the passages of a query keep their order."""
        queries = np.asarray(query_indices, dtype=np.int32)
        order = np.argsort(queries, kind="stable")
        unique, lengths = np.unique(queries, return_counts=True)
        return cls.from_lengths(unique, lengths, np.asarray(passage_indices, dtype=np.int32)[order])

    def __len__(self) -> int:
        return len(self.query_indices)

    def __iter__(self) -> Iterator[tuple[int, npt.NDArray[np.int32]]]:
        for row, query in enumerate(self.query_indices.tolist()):
            yield query, self.passage_indices[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """int64 [Q], passages per query."""
        return np.diff(self.offsets)

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """int64 [N], the row that each entry stands in."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.lengths)

    @property
    def ranks(self) -> npt.NDArray[np.int64]:
        """int64 [N], the 1-based place of each entry in its row."""
        starts = np.repeat(self.offsets[:-1], self.lengths)
        return np.arange(1, len(self.passage_indices) + 1, dtype=np.int64) - starts

    @property
    def queries(self) -> npt.NDArray[np.int32]:
        """int32 [N], the query that each entry belongs to."""
        return np.repeat(self.query_indices, self.lengths)

    def entries(self, values: npt.NDArray[np.generic], what: str) -> None:
        """Check that `values` hold one value per entry; `what` names them in the error."""
        if values.shape != self.passage_indices.shape:
            raise ValueError(
                f"{what}: expected one value for each of {len(self.passage_indices)} passages, "
                f"got {values.shape}"
            )

    def count(self, mask: Mask) -> npt.NDArray[np.int64]:
        """int64 [Q], how many entries of each row are set in `mask` [N]."""
        self.entries(mask, "mask")
        return np.bincount(self.rows[mask], minlength=len(self)).astype(np.int64)

    def keep(self, mask: Mask) -> PassageLists:
        """The same queries with only the entries set in `mask` [N]; rows may become empty."""
        return PassageLists.from_lengths(
            self.query_indices, self.count(mask), self.passage_indices[mask]
        )

    def take(self, rows: Integers | Mask) -> PassageLists:
        """The given rows (numbers, or a mask [Q])."""
        chosen = np.arange(len(self))[rows]
        return PassageLists.from_lengths(
            self.query_indices[chosen],
            self.lengths[chosen],
            self.passage_indices[self.entries_of(chosen)],
        )

    def of(self, query_indices: Integers) -> PassageLists:
        """One row for each given query, in the given order; empty where the query is not here."""
        if len(self) == 0:
            return PassageLists.from_lengths(
                query_indices, np.zeros(len(query_indices), np.int64), []
            )
        order = np.argsort(self.query_indices, kind="stable")
        place = np.searchsorted(self.query_indices[order], query_indices)
        rows = order[np.minimum(place, len(self) - 1)]
        lengths = np.where(self.query_indices[rows] == query_indices, self.lengths[rows], 0)
        return PassageLists.from_lengths(
            query_indices, lengths, self.passage_indices[self.entries_of(rows[lengths > 0])]
        )

    def ordered_by(self, scores: Floats) -> npt.NDArray[np.int64]:
        """int64 [N], entry numbers that put each row in rank order of `scores` [N].

        Score descending, then passage index ascending; rows stay where they are. `scores[order]`
        and `passage_indices[order]` then belong together again.
        """
        self.entries(scores, "scores")
        if np.isnan(scores).any():
            raise ValueError("scores hold NaN, which has no place in a ranking")
        return np.lexsort((self.passage_indices, -scores, self.rows))

    def ranked(self, scores: Floats) -> PassageLists:
        """The lists in rank order of `scores` [N]."""
        order = self.ordered_by(scores)
        return PassageLists(self.query_indices, self.offsets, self.passage_indices[order])

    def entries_of(self, rows: Integers) -> npt.NDArray[np.int64]:
        """int64, the entry numbers of the given rows, row by row."""
        lengths = self.lengths[rows]
        shift = self.offsets[:-1][rows] - (np.cumsum(lengths) - lengths)
        entries: npt.NDArray[np.int64] = np.arange(int(lengths.sum())) + np.repeat(shift, lengths)
        return entries


def places(keys: Integers, wanted: Integers) -> npt.NDArray[np.int64]:
    """Where each of `wanted` [M] stands among distinct `keys` [N], -1 where it does not: [M]."""
    if len(keys) == 0:
        return np.full(len(wanted), -1, np.int64)
    order = np.argsort(keys)
    found: npt.NDArray[np.int64] = order[
        np.searchsorted(keys, wanted, sorter=order).clip(max=len(keys) - 1)
    ]
    found[keys[found] != wanted] = -1
    return found
