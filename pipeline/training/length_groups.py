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


def by_length(encode: Callable[[IntArray], Tensor], lengths: IntArray) -> Tensor:
    """`encode` of rows 0..B-1, called for groups of similar length; results in row order.

    Args:
        encode: row numbers [b] -> [b, ...].
        lengths: tokens of each row, [B].
    """
    groups = max(1, min(GROUPS, len(lengths) // LEAST_ROWS))
    if groups == 1 or lengths.min() == lengths.max():
        return encode(np.arange(len(lengths)))
    order = np.argsort(lengths, kind="stable")
    results = torch.cat([encode(rows) for rows in np.array_split(order, groups)])
    place = torch.from_numpy(np.argsort(order)).to(results.device)
    return results[place]
