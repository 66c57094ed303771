"""AR2's reward: the retriever learns to find negatives that the ranker cannot tell from positives.

H. Zhang et al., *Adversarial Retriever-Ranker for Dense Text Retrieval*, ICLR 2022. The paper's
regulariser, a cross-entropy between the two softmaxes over a list, has the gradient of
`distillation.list_divergence` from teacher to student. Shapes: L lists of m passages, the positive
at index 0.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from pipeline.methods.losses import at_least_float32


def rewards(ranker: Tensor) -> Tensor:
    """Log p(d+ | q; {d+, d_i}) of each passage: [L, m] (AR2, eq. 8).

    The logarithm of the sigmoid of the positive's lead over the passage: near 0 for easy negatives,
    far below for one that the ranker prefers; log 1/2 for the positive against itself.

    Args:
        ranker: the ranker's logits, [L, m]; no gradient reaches them.
    """
    logits = at_least_float32(ranker.detach())
    return functional.logsigmoid(logits[:, :1] - logits)


def policy_gradient(student: Tensor, reward: Tensor) -> Tensor:
    """sum_i p(d_i) r_i over the negatives of a list, mean over lists (AR2, eq. 8-10); minimised.

    p is the retriever's softmax over the negatives alone, and the expectation is taken exactly: the
    gradient is sum_i p(d_i) r_i grad log p(d_i).

    Args:
        student: the retriever's scores over its temperature, [L, m].
        reward: [L, m], see `rewards`.
    """
    chosen = functional.softmax(at_least_float32(student)[:, 1:], dim=1)
    return (chosen * reward[:, 1:]).sum(dim=1).mean()


def reward_weighted(student: Tensor, reward: Tensor) -> Tensor:
    """sum_i r_i log p(d_i), as the released code has it; minimised.

    Its softmax holds the positive, too, which has the reward log 1/2; every passage counts alike
    instead of by its probability; and it is a sum over the batch, so that its weight against a mean
    grows with the batch. Where ranks share a batch, its term is the sum of theirs, not their mean.

    Args:
        student: the retriever's scores over its temperature, [L, m].
        reward: [L, m], see `rewards`.
    """
    return (reward * functional.log_softmax(at_least_float32(student), dim=1)).sum()
