"""Optimizers as the papers use them: AdamW or LAMB, clipping, a schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipeline.methods.schedules import ScheduleName

OptimizerName = Literal["adamw", "lamb"]
LAMB_EPSILON = 1e-6


@dataclass(frozen=True)
class OptimizerPlan:
    """How one model's parameters are updated.

    Attributes:
        learning_rate: the schedule's full rate.
        name: `adamw`, or `lamb` (You et al. 2020; PAIR on MS MARCO), which makes every tensor's
            update as long as the tensor itself, times the rate.
        weight_decay: decoupled for `adamw`, part of the update for `lamb`; biases and LayerNorm are
            left out of it.
        betas: decay of the first and second moments.
        epsilon: added to the root of the second moment (`adamw`).
        max_gradient_norm: global norm that the model's gradient is clipped to.
        schedule: how the rate moves over the steps.
        warmup_ratio: share of the steps over which the rate rises to its full value.
    """

    learning_rate: float
    name: OptimizerName = "adamw"
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    max_gradient_norm: float = 1.0
    schedule: ScheduleName = "linear"
    warmup_ratio: float = 0.1


def build_optimizer(model: nn.Module, plan: OptimizerPlan) -> torch.optim.Optimizer:
    """The planned optimizer over the trainable parameters of `model`.

    Vectors (biases, LayerNorm's scale and shift) get no weight decay.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    split: list[dict[str, Any]] = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": plan.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in split if group["params"]]
    if plan.name == "lamb":
        from pytorch_optimizer import Lamb

        # `adam_debias` leaves the rate as it is: the moments are then all of the state.
        lamb = Lamb(
            groups,
            lr=plan.learning_rate,
            betas=plan.betas,
            eps=LAMB_EPSILON,
            weight_decouple=False,
            adam_debias=True,
        )
        # The library takes no tensor for longer than 10, and most matrices of an encoder are.
        lamb.clamp = math.inf
        return lamb
    return torch.optim.AdamW(
        groups, lr=plan.learning_rate, betas=plan.betas, eps=plan.epsilon, fused=True
    )


def parameters_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """All parameters that `optimizer` updates."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
