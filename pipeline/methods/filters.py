"""Filters: which candidates may be used, as masks over the entries of `PassageLists`.

A filter looks at each candidate by itself and gives a bool per entry; filters combine with `&`, `|`
and `~`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.methods.lists import Floats, Integers, Mask, PassageLists

# Cosines of vectors that are stored in half precision may lie so far beyond 1.
_ROUNDING = 0.01


def below(values: Floats, threshold: float) -> Mask:
    """Entries strictly below `threshold` (RocketQA's negatives: P(1) < 0.1); NaN never is."""
    return np.less(values, threshold)


def above(values: Floats, threshold: float) -> Mask:
    """Entries strictly above `threshold` (RocketQA's pseudo-positives: > 0.9); NaN never is."""
    return np.greater(values, threshold)


def below_positive(scores: Floats, positive_scores: Floats, margin: float) -> Mask:
    """Entries that score less than their positive by more than `margin` (NV-Retriever, MarginPos).

    Args:
        scores: [N].
        positive_scores: the positive's score for every entry, [N].
        margin: in the scores' unit.
    """
    found: Mask = np.less(scores, positive_scores - margin)
    return found


def below_share_of_positive(scores: Floats, positive_scores: Floats, share: float) -> Mask:
    """Entries that score less than `share` of their positive (NV-Retriever, PercPos).

    s_i < s+ - (1 - c) |s+|, which for a positive s+ is c s+; for a negative one c s+ would lie
    above s+ and let harder candidates pass than the positive itself.

    Args:
        scores: [N].
        positive_scores: the positive's score for every entry, [N].
        share: c, 0.95 in the paper.
    """
    found: Mask = np.less(scores, positive_scores - (1 - share) * np.abs(positive_scores))
    return found


def within_angle(scores: Floats, positive_scores: Floats, degrees: float) -> Mask:
    """Entries whose angle to the query differs from the positive's by at most so much (TriSampler).

    |arccos s_i - arccos s+| <= degrees, for cosines; the paper has 60.

    Raises:
        ValueError: scores lie beyond 1, and are no cosines.
    """
    largest = max(np.abs(each).max(initial=0) for each in (scores, positive_scores))
    if largest > 1 + _ROUNDING:
        raise ValueError(
            f"there is no angle for a score of {largest:.4g}: angles are for retrievers whose "
            "vectors have length one (`normalize: true`)"
        )
    angles = [np.arccos(np.clip(cosines, -1, 1)) for cosines in (scores, positive_scores)]
    found: Mask = np.less_equal(np.abs(angles[0] - angles[1]), np.deg2rad(degrees))
    return found


def window(lists: PassageLists, first: int, last: int | None) -> Mask:
    """Entries at ranks `first` to `last`, 1-based, both included; None is the list's end."""
    ranks = lists.ranks
    inside: Mask = ranks >= first
    return inside if last is None else inside & (ranks <= last)


def applied(lists: PassageLists, masks: Mapping[str, Mask]) -> tuple[Mask, dict[str, int]]:
    """Entries that pass all filters, and how many each dropped of what those before it had left.

    Args:
        lists: the candidates.
        masks: by the filter's name, bool [N].
    """
    allowed = np.ones(len(lists.passage_indices), dtype=np.bool_)
    dropped = {}
    for name, mask in masks.items():
        lists.entries(mask, name)
        dropped[name] = int((allowed & ~mask).sum())
        allowed &= mask
    return allowed, dropped


@dataclass(frozen=True, eq=False)
class KnownPairs:
    """A set of (query, passage) pairs with fast membership, such as all known positives.

    Attributes:
        keys: int64, sorted, unique; the query index in the upper half, the passage index in the
            lower.
    """

    keys: npt.NDArray[np.int64]

    @classmethod
    def of(cls, *tables: tuple[npt.ArrayLike, npt.ArrayLike]) -> KnownPairs:
        """The union of tables, each (query_index [n], passage_index [n])."""
        keys = [_keys(np.asarray(queries), np.asarray(passages)) for queries, passages in tables]
        return cls(np.unique(np.concatenate([np.empty(0, np.int64), *keys])))

    def __or__(self, other: KnownPairs) -> KnownPairs:
        return KnownPairs(np.union1d(self.keys, other.keys))

    def contains(self, query_indices: npt.ArrayLike, passage_indices: npt.ArrayLike) -> Mask:
        """Whether each pair is in the set, elementwise."""
        wanted = _keys(np.asarray(query_indices), np.asarray(passage_indices))
        if len(self.keys) == 0:
            return np.zeros(wanted.shape, dtype=np.bool_)
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return np.equal(self.keys[place], wanted)

    def among(self, lists: PassageLists) -> Mask:
        """Which entries of `lists` are known pairs [N]."""
        return self.contains(lists.queries, lists.passage_indices)

    def lists(self) -> PassageLists:
        """The pairs as one list per query, both ascending."""
        return PassageLists.from_pairs(self.keys >> 32, self.keys & 0xFFFFFFFF)

    def with_copies(self, content_hash: npt.NDArray[np.int64]) -> KnownPairs:
        """Adds, for every pair, the passages whose text equals that pair's passage.

        Args:
            content_hash: int64 [passages], equal for passages of equal text.
        """
        order = np.argsort(content_hash, kind="stable")
        ordered = content_hash[order]
        queries, passages = self.keys >> 32, self.keys & 0xFFFFFFFF
        first = np.searchsorted(ordered, content_hash[passages], side="left")
        copies = np.searchsorted(ordered, content_hash[passages], side="right") - first
        groups = PassageLists.from_lengths(
            np.arange(len(first)), copies, np.zeros(int(copies.sum()))
        )
        places = np.repeat(first, copies) + groups.ranks - 1
        return KnownPairs.of((np.repeat(queries, copies), order[places]))


def _keys(query_indices: Integers, passage_indices: Integers) -> npt.NDArray[np.int64]:
    if np.shape(query_indices) != np.shape(passage_indices):
        raise ValueError(
            f"pairs need equal shapes, got {query_indices.shape} and {passage_indices.shape}"
        )
    return (query_indices.astype(np.int64) << 32) | passage_indices.astype(np.int64)
