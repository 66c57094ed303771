"""Rankings of passages per query: score descending, then passage index ascending.

Inside the searches a scored passage is one 64-bit key: the upper half is the float32 score mapped
so that better scores are smaller integers, the lower half the passage index. Sorting keys is then
sorting by the ranking order, ties included, and merging is sorting what was put together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Keys = NDArray[np.uint64]

# Larger than the key of any passage; only a NaN score would have it.
EMPTY = np.uint64(2**64 - 1)

_HALF = np.uint64(32)
_SIGN = np.uint32(1 << 31)


@dataclass(frozen=True)
class TopK:
    """The best passages of each query, best first.

    Attributes:
        passage_index: [queries, depth] int32, -1 where a query has fewer passages.
        score: [queries, depth] float32, -inf there.
    """

    passage_index: NDArray[np.int32]
    score: NDArray[np.float32]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Passages found per query, [queries]."""
        counts: NDArray[np.int64] = (self.passage_index >= 0).sum(axis=1)
        return counts


@dataclass(frozen=True)
class Excluded:
    """Passages that a query must not be given, such as its known positives.

    Attributes:
        query_row: row of the query in the block that is searched.
        passage_index: the passage to leave out, same length.
    """

    query_row: NDArray[np.int64]
    passage_index: NDArray[np.int64]

    def __post_init__(self) -> None:
        if len(self.query_row) != len(self.passage_index):
            raise ValueError(
                f"excluded: {len(self.query_row)} query rows, "
                f"but {len(self.passage_index)} passages"
            )

    @classmethod
    def none(cls) -> Excluded:
        """Nothing is excluded."""
        return cls(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))

    def among(self, passages: NDArray[np.int64]) -> Excluded:
        """The part that concerns some passages."""
        concerned = np.isin(self.passage_index, passages)
        return Excluded(self.query_row[concerned], self.passage_index[concerned])

    def of_rows(self, start: int, stop: int) -> Excluded:
        """The part of the query rows from `start` to `stop`, counted from `start`."""
        concerned = (self.query_row >= start) & (self.query_row < stop)
        return Excluded(self.query_row[concerned] - start, self.passage_index[concerned])

    def drop(self, keys: Keys, query_rows: NDArray[np.int64]) -> None:
        """Empty the keys, [rows, any], of excluded passages in place.

        Args:
            keys: scored passages.
            query_rows: the query of each row of `keys`, each at most once.
        """
        concerned = np.flatnonzero(np.isin(query_rows, self.query_row))
        if not len(concerned):
            return
        passages = passages_of(keys[concerned]).astype(np.int64)
        rows = query_rows[concerned].astype(np.int64)
        found = np.isin(
            (rows[:, None] << 32) | passages, (self.query_row << 32) | self.passage_index
        )
        keys[concerned] = np.where(found, EMPTY, keys[concerned])


def keys_of(scores: NDArray[Any], passages: ArrayLike) -> Keys:
    """Keys of scored passages; `passages` broadcasts against `scores`."""
    # Adding zero turns -0.0 into 0.0: they are equal and must have equal keys.
    bits = (scores.astype(np.float32, copy=False) + np.float32(0)).view(np.uint32)
    falling = np.where(bits & _SIGN, bits, ~(bits | _SIGN))
    return (falling.astype(np.uint64) << _HALF) | np.asarray(passages, dtype=np.uint64)


def passages_of(keys: Keys) -> NDArray[np.uint32]:
    """Passage indices of keys."""
    return keys.astype(np.uint32)


def scores_of(keys: Keys) -> NDArray[np.float32]:
    """Scores of keys."""
    falling = (keys >> _HALF).astype(np.uint32)
    bits = np.where(falling & _SIGN, falling, ~falling & ~_SIGN)
    return bits.view(np.float32)


def best_keys(keys: Keys, depth: int) -> Keys:
    """The best `depth` keys of each row, filled up with EMPTY; the worst of them comes last."""
    if keys.shape[1] > depth:
        return np.partition(keys, depth - 1, axis=1)[:, :depth]
    filled = np.full((len(keys), depth), EMPTY)
    filled[:, : keys.shape[1]] = np.sort(keys, axis=1)
    return filled


def top_k(keys: Keys) -> TopK:
    """Rankings from the keys, [queries, depth] in any order, of the best passages."""
    keys = np.sort(keys, axis=1)
    empty = keys == EMPTY
    passages = np.where(empty, -1, passages_of(keys).astype(np.int64)).astype(np.int32)
    return TopK(passages, np.where(empty, np.float32(-np.inf), scores_of(keys)))


def merge_top_k(parts: Sequence[TopK], depth: int) -> TopK:
    """The best of rankings of the same queries over disjoint groups of passages.

    The result does not depend on the order or the grouping of the parts, as long as each of them
    is `depth` deep or holds all its group's passages.
    """
    if not parts:
        raise ValueError("no rankings to merge")
    keys = [
        np.where(
            part.passage_index < 0, EMPTY, keys_of(part.score, part.passage_index.view(np.uint32))
        )
        for part in parts
    ]
    return top_k(best_keys(np.concatenate(keys, axis=1), depth))
