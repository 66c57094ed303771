"""One forward pass cut by length, so that short inputs are not padded to the longest."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pipeline.training.batches import IntArray

# More groups pad less but compute in smaller pieces.
GROUPS = 4
LEAST_ROWS = 4

# A GPU computes fewer tokens than this in less time than it takes to launch their kernels: an
# estimate for small encoders, which no benchmark has tried against other values.
LEAST_TOKENS_ON_GPU = 16384


def group_count(lengths: IntArray, device: torch.device) -> int:
    """How many groups rows of these lengths, [B], are cut into on `device`; at least one."""
    groups = min(GROUPS, len(lengths) // LEAST_ROWS)
    if device.type == "cuda":
        groups = min(groups, int(lengths.sum()) // LEAST_TOKENS_ON_GPU)
    return max(1, groups)


def by_length(
    encode: Callable[[IntArray], Tensor], lengths: IntArray, device: torch.device
) -> Tensor:
    """`encode` of rows 0..B-1, called for groups of similar length; results in row order.

    Args:
        encode: row numbers [b] -> [b, ...].
        lengths: tokens of each row, [B].
        device: where `encode` computes.
    """
    groups = group_count(lengths, device)
    if groups == 1 or lengths.min() == lengths.max():
        return encode(np.arange(len(lengths)))
    order = np.argsort(lengths, kind="stable")
    results = torch.cat([encode(rows) for rows in np.array_split(order, groups)])
    place = torch.from_numpy(np.argsort(order)).to(results.device)
    return results[place]
