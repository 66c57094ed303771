"""AdamW as the papers use it: decay without biases and LayerNorm, clipping, a schedule."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.methods.schedules import ScheduleName


@dataclass(frozen=True)
class OptimizerPlan:
    """How one model's parameters are updated.

    Attributes:
        learning_rate: the schedule's full rate.
        weight_decay: decoupled; biases and LayerNorm are left out of it.
        betas: decay of the first and second moments.
        epsilon: added to the root of the second moment.
        max_gradient_norm: global norm that the model's gradient is clipped to.
        schedule: how the rate moves over the steps.
        warmup_ratio: share of the steps over which the rate rises to its full value.
    """

    learning_rate: float
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    max_gradient_norm: float = 1.0
    schedule: ScheduleName = "linear"
    warmup_ratio: float = 0.1


def build_optimizer(model: nn.Module, plan: OptimizerPlan) -> torch.optim.AdamW:
    """AdamW over the trainable parameters of `model`.

    Vectors (biases, LayerNorm's scale and shift) get no weight decay.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": plan.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=plan.learning_rate,
        betas=plan.betas,
        eps=plan.epsilon,
        fused=True,
    )


def parameters_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """All parameters that `optimizer` updates."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
