"""Calibration of the ranker's logits, so that thresholds on its probability mean what they say.

Platt, "Probabilistic outputs for support vector machines", 1999; stable
form of its likelihood as in Lin, Lin, Weng, "A note on Platt's probabilistic outputs", 2007.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

from pipeline.methods.lists import Floats, Integers, Mask

RANK_BANDS = ((1, 5), (6, 10), (11, 20), (21, 50), (51, 100), (101, 200), (201, 500), (501, 1000))


class UninformativeRanker(ValueError):
    """The ranker's logits do not rise with relevance, so that no threshold on them makes sense."""


@dataclass(frozen=True)
class Calibration:
    """P(relevant) = sigmoid(slope * logit + intercept); 1 and 0 leave a ranker as it is."""

    slope: float = 1.0
    intercept: float = 0.0

    def probabilities(self, logits: Floats) -> npt.NDArray[np.float64]:
        """Calibrated P(1) of raw logits; NaN stays NaN."""
        raw = np.asarray(logits, dtype=np.float64)
        return np.asarray(expit(self.slope * raw + self.intercept), dtype=np.float64)


@dataclass(frozen=True)
class Bin:
    """One row of a reliability table; the two rates are None where the bin is empty."""

    low: float
    high: float
    count: int
    mean_predicted: float | None
    observed_rate: float | None


@dataclass(frozen=True)
class Reliability:
    """Bins of predicted probability, and their mean gap to the observed rate, weighted by count."""

    bins: tuple[Bin, ...]
    expected_calibration_error: float


def check_labels(labels: Integers | Mask) -> tuple[int, int]:
    """How many pairs are relevant and how many are not; ValueError where there are none of one."""
    positives = int(np.greater(labels, 0).sum())
    negatives = len(labels) - positives
    if positives == 0 or negatives == 0:
        raise ValueError(
            f"calibration needs both labels, got {positives} relevant pairs and {negatives} others"
        )
    return positives, negatives


def fit_platt(logits: Floats, labels: Integers | Mask) -> Calibration:
    """Slope and intercept of the largest likelihood on pairs the ranker was not trained on.

    The targets are Platt's (N+ + 1) / (N+ + 2) and 1 / (N- + 2) instead of 1 and 0. They make the
    optimum finite, also where the logits separate the labels completely: the slope is then as steep
    as that many pairs can support.

    Args:
        logits: [P].
        labels: [P], 1 relevant, 0 not.

    Raises:
        ValueError: only one of the two labels occurs, or a logit is not finite.
        UninformativeRanker: the best slope is not positive; higher logits do not mean more
            relevant.
    """
    x, positive = np.asarray(logits, dtype=np.float64), np.greater(labels, 0)
    positives, negatives = check_labels(labels)
    if not np.isfinite(x).all():
        raise ValueError("logits must be finite")
    # Standardised logits keep the Hessian well conditioned, whatever the ranker's scale.
    centre, scale = float(x.mean()), float(x.std())
    if scale == 0.0:
        raise UninformativeRanker(
            "the ranker gives every validation pair the same score; train it before calibrating"
        )
    targets = np.where(positive, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    slope, intercept = _maximum_likelihood((x - centre) / scale, targets)
    if slope <= 0.0:
        raise UninformativeRanker(
            f"the ranker's scores fall with relevance on validation (slope {slope / scale:.3g}); "
            "it cannot tell which candidates are negatives; train it longer, or with another "
            "learning rate or initialisation"
        )
    return Calibration(slope / scale, intercept - slope * centre / scale)


def reliability(probabilities: Floats, labels: Integers | Mask, bins: int = 10) -> Reliability:
    """Predicted against observed share of relevant pairs, in bins of equal width."""
    predicted = np.asarray(probabilities, dtype=np.float64)
    place = np.clip((predicted * bins).astype(np.int64), 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = np.bincount(place, weights=predicted, minlength=bins)
    hits = np.bincount(place, weights=np.greater(labels, 0), minlength=bins)
    rows = tuple(
        Bin(
            low=row / bins,
            high=(row + 1) / bins,
            count=int(count),
            mean_predicted=float(sums[row] / count) if count else None,
            observed_rate=float(hits[row] / count) if count else None,
        )
        for row, count in enumerate(counts)
    )
    return Reliability(rows, float(np.abs(sums - hits).sum() / max(len(predicted), 1)))


def share_below(values: Floats, threshold: float) -> float:
    """Share of values strictly below the threshold; 0 of nothing."""
    return float(np.mean(np.less(values, threshold))) if len(values) else 0.0


def share_above(values: Floats, threshold: float) -> float:
    """Share of values strictly above the threshold; 0 of nothing."""
    return float(np.mean(np.greater(values, threshold))) if len(values) else 0.0


def share_below_by_rank(
    probabilities: Floats,
    ranks: Integers,
    threshold: float,
    bands: Sequence[tuple[int, int]] = RANK_BANDS,
) -> Mapping[str, float]:
    """Share of scored candidates below the threshold in each band of ranks (both ends included).

    Bands without a scored candidate are left out; NaN, not scored, does not count.
    """
    shares: dict[str, float] = {}
    scored = ~np.isnan(probabilities)
    for first, last in bands:
        inside = scored & (ranks >= first) & (ranks <= last)
        if inside.any():
            shares[f"{first}-{last}"] = share_below(probabilities[inside], threshold)
    return shares


def _maximum_likelihood(
    x: npt.NDArray[np.float64], targets: npt.NDArray[np.float64]
) -> tuple[float, float]:
    """Minimise the cross-entropy of expit(a x + b) against targets inside (0, 1)."""
    design = np.stack([x, np.ones_like(x)], axis=1)

    def loss(theta: npt.NDArray[np.float64]) -> float:
        logits = design @ theta
        return float(np.mean(np.logaddexp(0.0, logits) - targets * logits))

    def gradient(theta: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(design.T @ (expit(design @ theta) - targets) / len(x))

    def hessian(theta: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        predicted = expit(design @ theta)
        return np.asarray(design.T @ ((predicted * (1 - predicted))[:, None] * design) / len(x))

    options = {"gtol": 1e-10}
    found = minimize(
        loss, np.zeros(2), jac=gradient, hess=hessian, method="trust-exact", options=options
    )
    return float(found.x[0]), float(found.x[1])
