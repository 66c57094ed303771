"""Perturbing a table of embeddings along its gradient (FGM, Miyato et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def perturbation(gradient: Tensor, size: float) -> Tensor:
    """Step along a gradient: size * g / sqrt(sum g^2 + 1e-8), one norm over the whole table.

    As in RocketQA's released ranker, with size 0.01. Shapes: [vocabulary, width].
    """
    return size * gradient / torch.sqrt(gradient.square().sum() + 1e-8)


@contextmanager
def perturbed(table: Tensor, gradient: Tensor, size: float) -> Iterator[None]:
    """Move `table` by `perturbation` within the block; afterwards it is as before, bit for bit."""
    # Subtracting what was added would leave rounding errors behind, which add up over the steps.
    before = table.detach().clone()
    with torch.no_grad():
        table.add_(perturbation(gradient, size))
    try:
        yield
    finally:
        with torch.no_grad():
            table.copy_(before)
