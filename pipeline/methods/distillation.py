"""Distillation between the scores that two models give the same lists (RocketQAv2, MarginMSE).

Shapes: L lists of m passages each; every row of scores belongs to one query.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional

from pipeline.methods.losses import at_least_float32

Distillation = Literal["divergence", "margin_mse"]
Direction = Literal["teacher||student", "student||teacher"]
Reduction = Literal["per_list", "per_element"]


def list_divergence(
    student: Tensor,
    teacher: Tensor,
    direction: Direction = "teacher||student",
    reduction: Reduction = "per_list",
) -> Tensor:
    """Kullback-Leibler divergence of two softmaxes over each list (RocketQAv2, L_KL, eq. 2-4).

    With s and t the student's and the teacher's softmax over a list, KL(t || s) = sum t log(t / s)
    and KL(s || t) = sum s log(s / t). The paper writes KL(student || teacher), summed over a list;
    the released code computes KL(teacher || student) and takes the mean over all L * m elements,
    which is 1 / m of the paper's weight.

    Args:
        student: [L, m], the retriever's scores divided by its temperature.
        teacher: [L, m], the ranker's logits; a gradient reaches them unless the caller detaches.
        direction: which of the two.
        reduction: `per_list` sums over a list and averages over lists; `per_element` averages over
            everything.

    Returns:
        Scalar, at least 0.
    """
    log_student = functional.log_softmax(at_least_float32(student), dim=1)
    log_teacher = functional.log_softmax(at_least_float32(teacher), dim=1)
    pair = (
        (log_student, log_teacher)
        if direction == "teacher||student"
        else (log_teacher, log_student)
    )
    divergence = functional.kl_div(*pair, reduction="batchmean", log_target=True)
    return divergence if reduction == "per_list" else divergence / student.shape[1]


def margin_mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the two models' margins (MarginMSE).

    S. Hofstätter et al., *Improving Efficient Neural Ranking Models with Cross-Architecture
    Knowledge Distillation*, 2020. With the positive at index 0, the mean over all lists and
    negatives of ((s_0 - s_i) - (t_0 - t_i))^2. A false negative that the teacher puts above the
    positive has a negative margin as its target, so that the student is to put it above, too.

    Args:
        student: [L, m], the retriever's scores divided by its temperature.
        teacher: [L, m], the ranker's logits; a gradient reaches them unless the caller detaches.

    Returns:
        Scalar, at least 0, in squared units of the logits: unlike a softmax's, its minimum has the
        teacher's scale.
    """
    difference = at_least_float32(student) - at_least_float32(teacher)
    return (difference[:, :1] - difference[:, 1:]).square().mean()
