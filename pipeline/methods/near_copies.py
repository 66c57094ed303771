"""Passages that are nearly copies of a positive, and would be false negatives."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pipeline.methods.lists import Integers, Mask, PassageLists

Shingles = npt.NDArray[np.uint64]


def shingles(tokens: Integers, width: int = 5) -> Shingles:
    """The runs of `width` tokens as sorted, distinct 64-bit hashes; a shorter text is one run."""
    # Padding as a small number: the complement of all bits, as -1, undoes what a token has done.
    padded = np.zeros(max(width, len(tokens)), dtype=np.int64)
    padded[: len(tokens)] = np.asarray(tokens, np.int64) + 1
    runs = np.lib.stride_tricks.sliding_window_view(padded, width).astype(np.uint64)
    hashes = np.full(len(runs), 0xCBF29CE484222325, dtype=np.uint64)
    for column in runs.T:
        # FNV-1a, a token in place of a byte.
        hashes = (hashes ^ column) * np.uint64(0x100000001B3)
    return np.unique(hashes)


def jaccard(left: Shingles, right: Shingles) -> float:
    """Size of the intersection over size of the union."""
    common = len(np.intersect1d(left, right, assume_unique=True))
    return common / (len(left) + len(right) - common)


def near_copies(
    lists: PassageLists,
    positives: PassageLists,
    tokens_of: Callable[[int], Integers],
    threshold: float,
    width: int = 5,
) -> Mask:
    """Candidates that share at least `threshold` of their token runs with a positive: bool [N].

    Args:
        lists: candidates of Q queries.
        positives: the known positives of each, row by row.
        tokens_of: token ids of a passage index.
        threshold: of the Jaccard similarity.
        width: tokens of a run.
    """
    of = lru_cache(maxsize=100_000)(lambda passage: shingles(tokens_of(passage), width))
    found: list[bool] = []
    for (_, passages), (_, own) in zip(lists, positives, strict=True):
        relevant = [of(passage) for passage in own.tolist()]
        found += [
            any(jaccard(of(passage), each) >= threshold for each in relevant)
            for passage in passages.tolist()
        ]
    return np.array(found, dtype=np.bool_)
