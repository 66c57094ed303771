"""Learning-rate schedules, as factors of the peak rate.

A step counts the updates already made, so the first update of a warm-up is made at rate 0 (as BERT
and Hugging Face do).
"""

from __future__ import annotations

from typing import Literal

ScheduleName = Literal["bert", "linear", "constant"]


def factor(name: ScheduleName, step: int, total_steps: int, warmup_steps: int = 0) -> float:
    """What the peak learning rate is multiplied by for the update after `step` updates.

    All three rise linearly from 0 to 1 over `warmup_steps`. Then:
        `bert`: 1 - step / total, not rebased: the rate falls from 1 to 1 - warmup / total at once
            (original BERT, and RocketQA's dual encoder).
        `linear`: (total - step) / (total - warmup), rebased, continuous (Hugging Face's default).
        `constant`: 1 (RocketQA's cross-encoder, without warm-up).

    Raises:
        ValueError: unknown name, or a warm-up that is longer than the training.
    """
    if not 0 <= warmup_steps <= total_steps:
        raise ValueError(f"warm-up of {warmup_steps} steps does not fit into {total_steps} steps")
    if step < warmup_steps:
        return step / warmup_steps
    if name == "constant":
        return 1.0
    left = max(total_steps - step, 0)
    if name == "bert":
        return left / max(total_steps, 1)
    if name == "linear":
        return left / max(total_steps - warmup_steps, 1)
    raise ValueError(f"unknown schedule {name!r}; one of bert, linear, constant")
