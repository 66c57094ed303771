"""Scores of given pairs of vectors, as exact search would compute them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_PAIRS_AT_ONCE = 1 << 16

Vectors = npt.NDArray[np.floating]
Rows = npt.NDArray[np.integer]


def pair_scores(
    left: Vectors, left_rows: Rows, right: Vectors, right_rows: Rows
) -> npt.NDArray[np.float32]:
    """Inner products of left[left_rows[i]] with right[right_rows[i]], in float32: [pairs].

    Args:
        left: [rows, d], in whatever format vectors are stored; may be a memory map.
        left_rows: int [pairs].
        right: [rows, d].
        right_rows: int [pairs].
    """
    found = np.empty(len(left_rows), dtype=np.float32)
    for first in range(0, len(found), _PAIRS_AT_ONCE):
        some = slice(first, first + _PAIRS_AT_ONCE)
        both = (left[left_rows[some]], right[right_rows[some]])
        found[some] = np.einsum("pd,pd->p", *(each.astype(np.float32) for each in both))
    return found
