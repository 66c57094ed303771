"""Coefficients and statistics of gradients against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.methods.gradient_statistics import RankSums, coefficients

RANKS, PARAMETERS, SAMPLES = 4, 7, 30


def test_coefficients_are_the_gradient_of_the_loss() -> None:
    draw = np.random.default_rng(1)
    positive, negatives, others = (draw.normal(size=shape) for shape in ((3,), (3, 5), (3, 2)))
    temperature = 0.3
    of_negatives, of_others = coefficients(positive, negatives, others, temperature)

    def gradient(scores: np.ndarray) -> np.ndarray:
        leaf = torch.tensor(scores, requires_grad=True)
        (-torch.log_softmax(leaf / temperature, 0)[0]).backward()
        return leaf.grad.numpy()

    for query in range(3):
        alone = np.array([positive[query], *negatives[query]])
        found = gradient(alone)
        np.testing.assert_allclose(of_negatives[query], found[1:], rtol=1e-12)
        assert -of_negatives[query].sum() == pytest.approx(found[0])
        for number, other in enumerate(others[query]):
            joined = gradient(np.append(alone, other))
            assert of_others[query, number] == pytest.approx(joined[-1])


def test_scores_far_apart_neither_overflow_nor_vanish() -> None:
    hard, easy = (
        coefficients(np.array([own], np.float32), np.array([[0.9]]), np.array([[-5000.0]]), 1.0)
        for own in (-500.0, 500.0)
    )
    assert hard[0] == 1.0 and hard[1] == 0.0
    assert easy[0] == pytest.approx(np.exp(-499.1)) and easy[0] > 0


class Samples:
    def __init__(self) -> None:
        draw = np.random.default_rng(2)
        self.places = draw.permutation(np.arange(SAMPLES) % RANKS)
        self.factors = draw.uniform(0.01, 1, SAMPLES)
        self.gradients = draw.normal(0.5, 1, (SAMPLES, PARAMETERS)).astype(np.float32)
        self.positives = draw.normal(size=(SAMPLES, PARAMETERS)).astype(np.float32)

    def sums(self, rows: slice) -> RankSums:
        parts = (self.places, self.factors, self.gradients, self.positives)
        return RankSums.of(RANKS, *(torch.from_numpy(part[rows]) for part in parts))


def added(samples: Samples, size: int) -> RankSums:
    total = RankSums.none(RANKS, PARAMETERS, torch.device("cpu"))
    for first in range(0, SAMPLES, size):
        total.add(samples.sums(slice(first, first + size)))
    return total


@pytest.mark.parametrize("size", [1, 7, SAMPLES])
def test_statistics_are_numpys_however_the_samples_come(size: int) -> None:
    samples = Samples()
    found = added(samples, size).finish()
    for rank in range(RANKS):
        own = samples.places == rank
        vectors = samples.factors[own, None] * samples.gradients[own].astype(np.float64)
        norms = np.linalg.norm(vectors, axis=1)
        pulls = -samples.positives[own].astype(np.float64)
        cosines = (vectors * pulls).sum(1) / norms / np.linalg.norm(pulls, axis=1)
        assert found.mean_norm[rank] == pytest.approx(norms.mean(), rel=1e-5)
        assert found.variance_norm[rank] == pytest.approx(norms.var(ddof=1), rel=1e-5)
        trace = np.trace(np.cov(vectors.T))
        assert found.trace_covariance[rank] == pytest.approx(trace, rel=1e-5)
        assert found.mean_cosine[rank] == pytest.approx(cosines.mean(), abs=1e-6)


def test_a_negative_with_the_positives_gradient_takes_back_what_it_gains() -> None:
    samples = Samples()
    samples.positives = 3 * samples.gradients
    np.testing.assert_allclose(added(samples, 5).finish().mean_cosine, -1, rtol=1e-6)


def test_sums_stay_exact_over_many_small_parts() -> None:
    """In float32 the sum would stand still: 2^24 + 1 is no float32."""
    total = RankSums.none(1, 1, torch.device("cpu"))
    place, one = torch.zeros(1, dtype=torch.int64), torch.ones(1, 1)
    for factor in (2.0**24, 1.0, 1.0):
        factors = torch.tensor([factor], dtype=torch.float64)
        total.add(RankSums.of(1, place, factors, one, one))
    assert total.vectors.item() == 2.0**24 + 2


def test_one_sample_has_no_variance() -> None:
    samples = Samples()
    with pytest.raises(ValueError, match="two samples"):
        samples.sums(slice(0, 2)).finish()
