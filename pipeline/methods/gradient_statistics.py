"""Means and variances of the gradients that negatives contribute, rank by rank.

K. Zhou et al., *SimANS*, EMNLP 2022, section 3.2. With the loss -log p of the positive, p the
softmax of scores over the temperature t, candidate i contributes (p_i - y_i) / t times the gradient
of its score. Shapes: Q queries, D negatives of each, B pairs at once, R ranks, P parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.methods.lists import Floats


def coefficients(
    positive: Floats, negatives: Floats, others: Floats, temperature: float
) -> tuple[Floats, Floats]:
    """What multiplies the gradient of each score: p / t of negatives [Q, D] and of others [Q, O].

    The softmax goes over the positive and the D negatives. Each of the others joins them by itself,
    so that its p is what it would be of one candidate more. The positive's own is minus the sum of
    the negatives'.

    Args:
        positive: scores [Q].
        negatives: scores [Q, D].
        others: scores [Q, O] of passages outside the D.
        temperature: t.
    """
    own, ranked, joining = (
        np.asarray(scores, np.float64) / temperature
        for scores in (positive[:, None], negatives, others)
    )
    total = np.logaddexp.reduce(np.hstack([own, ranked]), axis=1)[:, None]
    return (
        np.exp(ranked - total) / temperature,
        np.exp(joining - np.logaddexp(total, joining)) / temperature,
    )


@dataclass(frozen=True, eq=False)
class RankStatistics:
    """Of the contributions at each of R ranks, float64 [R].

    Attributes:
        mean_norm: mean of the Euclidean norms.
        variance_norm: variance of the norms, over one sample less (unbiased).
        trace_covariance: E|g|^2 - |E g|^2 of the vectors, unbiased in the same way.
        mean_cosine: mean cosine with the contribution of the query's positive. A negative whose
            score has the positive's gradient, and so takes back what the positive gains, has -1.
    """

    mean_norm: Floats
    variance_norm: Floats
    trace_covariance: Floats
    mean_cosine: Floats


@dataclass(frozen=True, eq=False)
class RankSums:
    """What the statistics need of the samples so far. Sums of disjoint samples add up.

    Attributes:
        samples: [R] float64.
        norms: sums of norms, [R] float64.
        squares: sums of squared norms, [R] float64.
        cosines: sums of cosines, [R] float64.
        vectors: sums of contributions, [R, P]; float64 where they are added to.
    """

    samples: Tensor
    norms: Tensor
    squares: Tensor
    cosines: Tensor
    vectors: Tensor

    @classmethod
    def none(cls, ranks: int, parameters: int, device: torch.device) -> RankSums:
        """Of no samples."""
        shapes = [(ranks,)] * 4 + [(ranks, parameters)]
        return cls(*(torch.zeros(shape, dtype=torch.float64, device=device) for shape in shapes))

    @classmethod
    def of(
        cls, ranks: int, places: Tensor, factors: Tensor, gradients: Tensor, positives: Tensor
    ) -> RankSums:
        """Of some pairs.

        Args:
            ranks: R.
            places: int64 [B], which of the ranks each pair belongs to, from 0.
            factors: `coefficients` of the pairs, float64 [B].
            gradients: of the pairs' scores, float32 [B, P].
            positives: of the scores of their queries' positives, float32 [B, P].
        """
        member = F.one_hot(places, ranks).T.double()
        norms = torch.linalg.vector_norm(gradients, dim=1).double()
        products = torch.einsum("bp,bp->b", gradients, positives).double()
        lengths = norms * torch.linalg.vector_norm(positives, dim=1).double()
        # Contributions of negatives have their gradient's direction, the positive's the opposite.
        cosines = -products / lengths.clamp(min=torch.finfo(torch.float64).tiny)
        sizes = norms * factors
        return cls(
            member.sum(dim=1),
            member @ sizes,
            member @ sizes**2,
            member @ cosines,
            (member * factors).float() @ gradients,
        )

    def add(self, other: RankSums) -> None:
        """Take in other samples at the same ranks."""
        self.samples.add_(other.samples)
        self.norms.add_(other.norms)
        self.squares.add_(other.squares)
        self.cosines.add_(other.cosines)
        self.vectors.add_(other.vectors)

    def finish(self) -> RankStatistics:
        """The statistics.

        Raises:
            ValueError: a rank has fewer than two samples, of which there is no variance.
        """
        count = self.samples
        if (count < 2).any():
            raise ValueError("a variance needs two samples at each rank")
        of_mean = (self.vectors.double() ** 2).sum(dim=1) / count
        found = (
            self.norms / count,
            (self.squares - self.norms**2 / count).clamp(min=0) / (count - 1),
            (self.squares - of_mean).clamp(min=0) / (count - 1),
            self.cosines / count,
        )
        return RankStatistics(*(values.cpu().numpy() for values in found))
