"""Gradients of a loss over many embeddings in the memory of one micro-batch.

The loss of contrastive training couples all rows of a batch, so plain gradient accumulation would
change it. Its gradient with respect to the embeddings does not need the encoder's activations,
though: embed everything without them, take that gradient once, then embed each micro-batch again,
this time with activations, and send its part of the gradient through (Gao et al. 2021, GradCache).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.training.batches import IntArray


@dataclass(frozen=True)
class Side:
    """Inputs of one encoder, and how they are cut into micro-batches.

    Attributes:
        encode: numbers of inputs [b] -> their embeddings [b, d]; with a graph if gradients are on.
        micro_batches: the inputs' numbers 0..B-1, each in exactly one micro-batch.
    """

    encode: Callable[[IntArray], Tensor]
    micro_batches: Sequence[IntArray]

    @property
    def count(self) -> int:
        """Number of inputs, B."""
        return sum(len(batch) for batch in self.micro_batches)


class _RandomState:
    """The generators' state at a forward pass, to draw the same dropout masks a second time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cpu = torch.get_rng_state()
        self.accelerator = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.accelerator is not None:
            torch.cuda.set_rng_state(self.accelerator, self.device)


def backward(sides: Sequence[Side], loss: Callable[..., Tensor], device: torch.device) -> Tensor:
    """Add the gradient of `loss(*embeddings)` to the encoders' parameters.

    Where every side is one micro-batch this is a plain forward and backward pass; otherwise the
    gradient cache gives the same gradient, dropout included, for one more forward pass.

    Args:
        sides: one per argument of `loss`.
        loss: embeddings [B_1, d], [B_2, d], … in the order of the inputs' numbers -> scalar.
        device: where the encoders compute; its random state is replayed.

    Returns:
        The loss, detached.
    """
    if all(len(side.micro_batches) == 1 for side in sides):
        value = loss(*(side.encode(np.arange(side.count)) for side in sides))
        torch.autograd.backward(value)
        return value.detach()
    cached, states = [], []
    for side in sides:
        vectors, side_states = _embed_without_graph(side, device)
        cached.append(vectors.requires_grad_())
        states.append(side_states)
    value = loss(*cached)
    torch.autograd.backward(value)
    for side, vectors, side_states in zip(sides, cached, states, strict=True):
        if vectors.grad is None:
            raise RuntimeError("the loss does not depend on one of its sides")
        for batch, state in zip(side.micro_batches, side_states, strict=True):
            state.restore()
            torch.autograd.backward(side.encode(batch), vectors.grad[_places(batch, device)])
    return value.detach()


def embeddings(side: Side, device: torch.device) -> Tensor:
    """The embeddings [B, d] of a side that no gradient is wanted for."""
    return _embed_without_graph(side, device)[0]


def _embed_without_graph(side: Side, device: torch.device) -> tuple[Tensor, list[_RandomState]]:
    states, parts = [], []
    with torch.no_grad():
        for batch in side.micro_batches:
            states.append(_RandomState(device))
            parts.append(side.encode(batch))
    order = np.argsort(np.concatenate(list(side.micro_batches)))
    return torch.cat(parts)[_places(order, device)], states


def _places(numbers: IntArray, device: torch.device) -> Tensor:
    return torch.from_numpy(numbers).to(device)
