"""From token states to one vector per text. Sums are float32 whatever the states' format."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Pooling = Literal["cls", "mean"]


def pool(states: Tensor, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """Pool the last layer's token states.

    Args:
        states: [batch, length, width], any floating format.
        attention_mask: [batch, length], 1 for tokens and 0 for padding on the right.
        pooling: `cls` takes the first token's state (RocketQA: no pooler, no projection on top);
            `mean` the mean over the tokens, special tokens included.

    Returns:
        [batch, width], float32.
    """
    if pooling == "cls":
        # A copy: a view of float32 states would keep all of them as long as the vectors live.
        return states[:, 0].to(torch.float32, copy=True)
    padding = attention_mask.unsqueeze(-1) == 0
    total = states.masked_fill(padding, 0).sum(dim=1, dtype=torch.float32)
    return total / attention_mask.sum(dim=1, keepdim=True).clamp(min=1)


def unit_length(vectors: Tensor) -> Tensor:
    """Scale each row of [batch, width] to Euclidean length 1."""
    return F.normalize(vectors, dim=-1)
