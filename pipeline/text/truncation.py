"""Longest-first truncation of two sequences as a closed form over arrays of lengths."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def longest_first(
    first: ArrayLike, second: ArrayLike, room: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many tokens each of two sequences keeps when together they may hold `room` tokens.

    The rule takes tokens one at a time from the end of the longer sequence, and from the second
    one where both are equally long (RocketQA's readers). It ends in one of three states: the first
    sequence is short and untouched, the second is, or both share the room evenly, the odd token
    going to the first.

    Args:
        first: lengths of the first sequences, any shape.
        second: lengths of the second sequences, same shape.
        room: tokens that both may take together, special tokens not counted.

    Returns:
        Kept lengths of the first and of the second sequences.
    """
    a = np.asarray(first, dtype=np.int64)
    b = np.asarray(second, dtype=np.int64)
    kept_first = np.minimum(a, np.maximum(room - room // 2, room - b))
    kept_second = np.minimum(b, np.maximum(room // 2, room - a))
    return kept_first, kept_second
