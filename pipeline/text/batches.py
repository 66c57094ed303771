"""Batches of similar length under a budget of padded tokens, and of equal length."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def token_budget_batches(lengths: ArrayLike, token_budget: int) -> list[NDArray[np.int64]]:
    """Cut rows into batches of similar length whose padded size stays within a budget.

    Rows go from the longest to the shortest, so that a batch that does not fit in memory fails
    first. Equal lengths keep their order: the batches depend on lengths and budget alone.

    Args:
        lengths: tokens per row, [rows].
        token_budget: upper bound of rows * longest row in one batch.

    Returns:
        Arrays of positions in `lengths`; each position occurs in exactly one of them.

    Raises:
        ValueError: a single row is longer than the budget.
    """
    row_lengths = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-row_lengths, kind="stable")
    batches = []
    start = 0
    while start < len(order):
        longest = int(row_lengths[order[start]])
        if longest > token_budget:
            raise ValueError(
                f"a row has {longest} tokens and the token budget of a batch is {token_budget}: "
                f"raise the budget to {longest} or more"
            )
        rows = token_budget // max(longest, 1)
        batches.append(order[start : start + rows])
        start += rows
    return batches


def equal_length_batches(lengths: ArrayLike) -> list[NDArray[np.int64]]:
    """Cut rows into batches without any padding.

    Args:
        lengths: tokens per row, [rows].

    Returns:
        Arrays of positions in `lengths`, one for each length, the longest first.
    """
    row_lengths = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-row_lengths, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(row_lengths[order])) + 1)
