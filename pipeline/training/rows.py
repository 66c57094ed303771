"""Training lists (one query, its positives, its negatives) laid out as rows of equal shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.training.batches import IntArray


class Rows(Protocol):
    """Rows of one query, one positive and `num_negatives` negatives."""

    def __len__(self) -> int:
        """Number of rows."""

    @property
    def num_negatives(self) -> int:
        """Negatives of each row."""

    @property
    def ragged(self) -> bool:
        """Whether some rows have fewer negatives, with `absent` places in their batches."""

    @property
    def positive_pairs(self) -> tuple[IntArray, IntArray]:
        """Queries and positives that any epoch may show, [n] each."""

    def batch(self, rows: IntArray, epoch: int = 0) -> TrainingRows:
        """The given rows, as they are in 0-based `epoch`."""


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """Rows that are the same in every epoch.

    Attributes:
        query_indices: [R].
        positives: passage indices, [R].
        negatives: passage indices, [R, n]; n may be 0.
        absent: bool [R, n], places without a negative, which hold the positive; None: there are no
            such places.
        dropped: lists that gave no row, by reason.
    """

    query_indices: IntArray
    positives: IntArray
    negatives: IntArray
    absent: NDArray[np.bool_] | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.query_indices)

    @property
    def num_negatives(self) -> int:
        """Negatives of each row."""
        return int(self.negatives.shape[1])

    @property
    def ragged(self) -> bool:
        """Whether some rows have absent negatives."""
        return self.absent is not None

    @property
    def positive_pairs(self) -> tuple[IntArray, IntArray]:
        """Every row's query and positive."""
        return self.query_indices, self.positives

    @property
    def passages(self) -> IntArray:
        """The passages of each row, positive first: [R, 1 + n]."""
        return np.concatenate([self.positives[:, None], self.negatives], axis=1)

    @property
    def absent_passages(self) -> NDArray[np.bool_]:
        """Which of `passages` are none: bool [R, 1 + n]."""
        found = np.zeros((len(self), 1 + self.num_negatives), dtype=np.bool_)
        if self.absent is not None:
            found[:, 1:] = self.absent
        return found

    def pairs(self) -> tuple[IntArray, IntArray]:
        """Queries and passages, row by row, positive first: [R * (1 + n)] each."""
        passages = self.passages
        return np.repeat(self.query_indices, passages.shape[1]), passages.ravel()

    def batch(self, rows: IntArray, epoch: int = 0) -> TrainingRows:
        """The given rows."""
        absent = None if self.absent is None else self.absent[rows]
        return TrainingRows(
            self.query_indices[rows], self.positives[rows], self.negatives[rows], absent
        )

    @classmethod
    def from_lists(cls, lists: pa.Table, num_negatives: int) -> TrainingRows:
        """Rows of a table with columns `query_index`, `positives` and `negatives`.

        A list's negatives are cut in order into groups of `num_negatives`, which its positives
        share out in order, and each group and each positive is used: P positives with 4 P
        negatives and `num_negatives=1` give 4 P rows, the first four with the first positive (the
        layout of RocketQA's training lines). With fewer groups than positives the groups repeat.
        """
        queries = lists["query_index"].to_numpy().astype(np.int64)
        own, others = _Ragged.of(lists, "positives"), _Ragged.of(lists, "negatives")
        groups = others.lengths // num_negatives if num_negatives else np.ones_like(queries)
        lacking = {
            "no positive": own.lengths == 0,
            f"fewer than {num_negatives} negatives": (own.lengths > 0) & (groups == 0),
        }
        counts = np.maximum(own.lengths, groups)
        counts[np.logical_or(*lacking.values())] = 0
        at = np.repeat(np.arange(len(queries)), counts)
        number = np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts, counts)
        positive = own.starts[at] + number * own.lengths[at] // counts[at]
        first = others.starts[at] + number * groups[at] // counts[at] * num_negatives
        return cls(
            queries[at],
            own.values[positive],
            others.values[first[:, None] + np.arange(num_negatives)],
            dropped={reason: int(mask.sum()) for reason, mask in lacking.items() if mask.any()},
        )


@dataclass(frozen=True, eq=False)
class TrainingPairs:
    """One query, one passage and whether it is relevant, a row.

    Attributes:
        query_indices: [R].
        passage_indices: [R].
        labels: 1.0 relevant, 0.0 not, [R].
    """

    query_indices: IntArray
    passage_indices: IntArray
    labels: np.ndarray[tuple[int], np.dtype[np.float32]]

    def __len__(self) -> int:
        return len(self.query_indices)

    def batch(self, rows: IntArray, epoch: int = 0) -> TrainingPairs:
        """The given rows, the same in every epoch."""
        return TrainingPairs(
            self.query_indices[rows], self.passage_indices[rows], self.labels[rows]
        )

    def pairs(self) -> tuple[IntArray, IntArray]:
        """Queries and passages, [R] each."""
        return self.query_indices, self.passage_indices

    @classmethod
    def from_lists(cls, lists: pa.Table) -> TrainingPairs:
        """All positives and all negatives of a table as in `TrainingRows.from_lists`, flattened."""
        queries = lists["query_index"].to_numpy().astype(np.int64)
        both = [_Ragged.of(lists, name) for name in ("positives", "negatives")]
        # Each list's positives, then its negatives: sorted by list, and by kind within it.
        at = np.concatenate([np.repeat(np.arange(len(queries)), each.lengths) for each in both])
        order = np.argsort(at, kind="stable")
        labels = np.repeat(np.array([1, 0], np.float32), [len(each.values) for each in both])
        passages = np.concatenate([each.values for each in both])
        return cls(queries[at[order]], passages[order], labels[order])


@dataclass(frozen=True, eq=False)
class _Ragged:
    """A column of lists: all values, int64, and where each list begins and how long it is."""

    values: IntArray
    starts: IntArray
    lengths: IntArray

    @classmethod
    def of(cls, lists: pa.Table, name: str) -> _Ragged:
        column = lists[name].combine_chunks()
        lengths = column.value_lengths().to_numpy().astype(np.int64)
        values = column.flatten().to_numpy().astype(np.int64)
        return cls(values, np.cumsum(lengths) - lengths, lengths)
