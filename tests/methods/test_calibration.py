from __future__ import annotations

import numpy as np
import pytest

from pipeline.methods.calibration import (
    Calibration,
    UninformativeRanker,
    fit_platt,
    reliability,
    share_above,
    share_below,
    share_below_by_rank,
)


def sample(size: int, slope: float, intercept: float) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(5)
    logits = generator.normal(0, 3, size)
    truth = 1 / (1 + np.exp(-(slope * logits + intercept)))
    return logits, (generator.random(size) < truth).astype(int)


def test_the_true_line_is_found_again():
    fitted = fit_platt(*sample(40_000, 0.5, -1.5))
    assert fitted.slope == pytest.approx(0.5, abs=0.03)
    assert fitted.intercept == pytest.approx(-1.5, abs=0.06)


def test_the_fit_stands_where_the_likelihood_has_no_gradient():
    """At the optimum predictions and smoothed targets agree in sum and in correlation with x."""
    logits, labels = sample(500, 1.2, 0.3)
    logits = logits * 40 + 900
    positives, negatives = labels.sum(), (1 - labels).sum()
    targets = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    gap = fit_platt(logits, labels).probabilities(logits) - targets
    assert abs(gap.mean()) < 1e-7
    assert abs((gap * (logits - logits.mean())).mean() / logits.std()) < 1e-7


def test_two_values_have_a_closed_form():
    """With logits 0 and 1 only, each value's probability is the mean of its targets."""
    logits = np.array([0.0] * 8 + [1.0] * 6)
    labels = np.array([1] * 2 + [0] * 6 + [1] * 5 + [0])
    high, low = 8 / 9, 1 / 9
    expected = [(2 * high + 6 * low) / 8, (5 * high + low) / 6]
    assert fit_platt(logits, labels).probabilities(np.array([0.0, 1.0])) == pytest.approx(expected)


def test_separable_labels_give_a_finite_slope_and_the_smoothed_targets():
    logits = np.array([-2.0, -2.0, -2.0, -2.0, 4.0])
    fitted = fit_platt(logits, np.array([0, 0, 0, 0, 1]))
    assert np.isfinite([fitted.slope, fitted.intercept]).all()
    assert fitted.probabilities(np.array([-2.0, 4.0])) == pytest.approx([1 / 6, 2 / 3])


def test_a_ranker_that_knows_nothing_is_refused():
    logits, labels = sample(2000, 1.0, 0.0)
    with pytest.raises(UninformativeRanker, match="fall with relevance"):
        fit_platt(-logits, labels)
    with pytest.raises(UninformativeRanker, match="same score"):
        fit_platt(np.full(10, 3.0), np.arange(10) % 2)
    with pytest.raises(ValueError, match="both labels"):
        fit_platt(logits, np.ones_like(labels))
    with pytest.raises(ValueError, match="finite"):
        fit_platt(np.array([0.0, np.nan]), np.array([0, 1]))


def test_probabilities_do_not_overflow_and_keep_unscored_candidates():
    values = Calibration(2.0, 1.0).probabilities(np.array([-1e6, 0.0, 1e6, np.nan]))
    assert values[:3] == pytest.approx([0.0, 1 / (1 + np.exp(-1)), 1.0])
    assert np.isnan(values[3])


def test_reliability_table_by_hand():
    table = reliability(
        np.array([0.0, 0.1, 0.3, 0.5, 0.9, 1.0]), np.array([0, 1, 0, 1, 1, 1]), bins=4
    )
    assert [each.count for each in table.bins] == [2, 1, 1, 2]
    assert [each.mean_predicted for each in table.bins] == pytest.approx([0.05, 0.3, 0.5, 0.95])
    assert [each.observed_rate for each in table.bins] == pytest.approx([0.5, 0.0, 1.0, 1.0])
    assert [(each.low, each.high) for each in table.bins][1] == (0.25, 0.5)
    expected = (2 * 0.45 + 0.3 + 0.5 + 2 * 0.05) / 6
    assert table.expected_calibration_error == pytest.approx(expected)
    empty = reliability(np.array([0.05]), np.array([0])).bins[5]
    assert (empty.count, empty.mean_predicted, empty.observed_rate) == (0, None, None)


def test_shares_are_strict_and_per_rank_band():
    values = np.array([0.05, 0.1, 0.9, 0.95])
    assert (share_below(values, 0.1), share_above(values, 0.9)) == (0.25, 0.25)
    assert share_below(values[:0], 0.1) == 0.0
    probabilities = np.array([0.0, 0.5, 0.0, 0.0, np.nan])
    ranks = np.array([1, 2, 3, 4, 5])
    shares = share_below_by_rank(probabilities, ranks, 0.1, bands=((1, 2), (3, 5), (6, 9)))
    assert shares == {"1-2": 0.5, "3-5": 1.0}
