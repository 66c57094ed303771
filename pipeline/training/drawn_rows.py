"""Rows whose negatives are drawn anew in every epoch, and rows of several sources together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.methods.pools import Pools
from pipeline.methods.samplers import epoch_seed, random_units
from pipeline.training.batches import IntArray
from pipeline.training.rows import Rows, TrainingRows


@dataclass(frozen=True, eq=False)
class DrawnRows:
    """Rows that draw their negatives from pools, when they are asked for.

    What a row draws depends on (seed, epoch, query, positive) alone, not on its batch or its rank.

    Attributes:
        pools: of (query, positive) pairs, none of them empty.
        num_negatives: how many are drawn; a pool of fewer gives all, and absent places.
        seed: of the draws.
        one_row_per_query: a query with several positives shows one of them, another in each epoch;
            otherwise each pair is a row.
    """

    pools: Pools
    num_negatives: int
    seed: int
    one_row_per_query: bool = True

    def __len__(self) -> int:
        return len(self._first)

    @property
    def ragged(self) -> bool:
        """Whether some pool is too small."""
        return bool((self.pools.lists.lengths < self.num_negatives).any())

    @property
    def positive_pairs(self) -> tuple[IntArray, IntArray]:
        """The pools' queries and positives."""
        queries = self.pools.lists.query_indices.astype(np.int64)
        return queries, self.pools.positives.astype(np.int64)

    def batch(self, rows: IntArray, epoch: int = 0) -> TrainingRows:
        """Draw the given rows."""
        pools = self.pools.take(self._chosen(rows, epoch))
        drawn = pools.keep(pools.draw(self.num_negatives, self.seed, epoch)).lists
        shape = (len(rows), self.num_negatives)
        negatives = np.repeat(pools.positives[:, None].astype(np.int64), shape[1], axis=1)
        absent = np.ones(shape, dtype=np.bool_)
        places = drawn.rows, drawn.ranks - 1
        negatives[places], absent[places] = drawn.passage_indices, False
        return TrainingRows(
            drawn.query_indices.astype(np.int64),
            pools.positives.astype(np.int64),
            negatives,
            absent if self.ragged else None,
        )

    @cached_property
    def _order(self) -> IntArray:
        """The pools, those of a query next to each other."""
        return np.argsort(self.pools.lists.query_indices, kind="stable")

    @cached_property
    def _first(self) -> IntArray:
        """Where in `_order` each row's pools begin."""
        if not self.one_row_per_query:
            return np.arange(len(self.pools))
        queries = self.pools.lists.query_indices[self._order]
        return np.flatnonzero(np.diff(queries, prepend=-1))

    def _chosen(self, rows: IntArray, epoch: int) -> IntArray:
        """The pool that each row shows in this epoch."""
        counts = np.diff(np.append(self._first, len(self.pools)))[rows]
        queries = self.pools.lists.query_indices[self._order[self._first[rows]]]
        # Another stream than the negatives': theirs have three counters.
        units = random_units(epoch_seed(self.seed, epoch), queries)
        chosen: IntArray = self._order[self._first[rows] + (units * counts).astype(np.int64)]
        return chosen


@dataclass(frozen=True, eq=False)
class JoinedRows:
    """The rows of several sources, one after the other.

    Attributes:
        parts: at least one; all with the same number of negatives.
    """

    parts: Sequence[Rows]

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def num_negatives(self) -> int:
        """Negatives of each row."""
        return self.parts[0].num_negatives

    @property
    def ragged(self) -> bool:
        """Whether one of them is."""
        return any(part.ragged for part in self.parts)

    @property
    def positive_pairs(self) -> tuple[IntArray, IntArray]:
        """Those of all."""
        queries, positives = zip(*(part.positive_pairs for part in self.parts), strict=True)
        return np.concatenate(queries), np.concatenate(positives)

    def batch(self, rows: IntArray, epoch: int = 0) -> TrainingRows:
        """The given rows, each from its source, in the order that they are asked for."""
        source = np.searchsorted(self._ends, rows, side="right")
        starts = np.concatenate([[0], self._ends])
        found, places = [], []
        for number in np.unique(source):
            at = np.flatnonzero(source == number)
            found.append(self.parts[number].batch(rows[at] - starts[number], epoch))
            places.append(at)
        order = np.argsort(np.concatenate(places))
        return TrainingRows(
            np.concatenate([each.query_indices for each in found])[order],
            np.concatenate([each.positives for each in found])[order],
            np.concatenate([each.negatives for each in found])[order],
            np.concatenate([each.absent_passages[:, 1:] for each in found])[order]
            if self.ragged
            else None,
        )

    @cached_property
    def _ends(self) -> IntArray:
        return np.cumsum([len(part) for part in self.parts])
