"""Making a model ready for training on a device."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from pipeline.models.encoder import TextEncoder

Model = TypeVar("Model", bound=nn.Module)


def prepare_for_training(model: Model, device: torch.device, dropout: float | None = None) -> Model:
    """Move `model` to `device` and set its encoders up for gradients, in place.

    On CPUs the fused attention kernel's backward pass in bfloat16 takes twice the time of plain
    matrix products, so encoders train without it there.

    Args:
        model: with one or more `TextEncoder` inside.
        device: where it will be trained.
        dropout: in the encoders' layers and attention; None keeps what their checkpoint says.
    """
    for module in model.modules():
        if isinstance(module, TextEncoder):
            module.use_fused_attention(device.type != "cpu")
            if dropout is not None:
                module.set_dropout(dropout)
    return model.to(device).train()
