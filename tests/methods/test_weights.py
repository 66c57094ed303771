"""Log-weights against their formulas, as the papers and the released code write them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pipeline.methods import weights
from pipeline.methods.lists import PassageLists

LISTS = PassageLists.from_rows([4, 7], [[1, 2, 3], [5, 6]])
SCORES = np.array([9.0, 7.5, -2.0, 3.0, 3.0], np.float32)
POSITIVES = np.array([8.0, 4.0], np.float32)
DIFFERENCES = np.array([1.0, -0.5, -10.0, -1.0, -1.0])


def test_differences_are_taken_from_the_own_positive() -> None:
    assert weights.differences(LISTS, SCORES, POSITIVES).tolist() == DIFFERENCES.tolist()


def test_standardised_differences_do_not_depend_on_the_scale() -> None:
    def of(scale: float) -> np.ndarray:
        return weights.differences(LISTS, scale * SCORES, scale * POSITIVES, standardised=True)

    deviation = np.std([9.0, 7.5, -2.0])
    assert of(1.0)[:3] == pytest.approx(DIFFERENCES[:3] / deviation)
    assert of(50.0)[:3] == pytest.approx(of(1.0)[:3])
    # Equal scores have no spread to divide by.
    assert of(1.0)[3:].tolist() == [-1.0, -1.0]


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("equal", [0.1, -0.7, 0.0, 130.0])
def test_equal_scores_have_no_spread_in_any_format(kind: type, equal: float) -> None:
    scores = np.array([equal] * 7 + [equal, np.nextafter(kind(equal), kind(np.inf))], kind)
    lists = PassageLists.from_rows([0, 1], [range(7), range(2)])
    same, apart = weights.spread(lists, scores)
    assert same == 1.0
    if kind is np.float32:
        assert apart == pytest.approx(np.std(scores[7:].astype(np.float64)))


def released_for_nq(negative: float, positive: float, a: float, b: float) -> float:
    return math.exp(-((negative - positive + b) ** 2) * a)


def released_for_passages(negative: float, positive: float) -> float:
    return math.exp(-abs(negative - positive) * 3)


def test_each_released_variant_by_its_own_formula() -> None:
    pairs = [(8.0 + d, 8.0) for d in (-2.0, -1.0, 0.0, 0.5)]
    difference = np.array([negative - positive for negative, positive in pairs])
    wiki = [released_for_nq(*pair, a=0.5, b=1.0) for pair in pairs]
    assert np.exp(weights.gaussian(difference, 0.5, -1.0)) == pytest.approx(wiki)
    passages = [released_for_passages(*pair) for pair in pairs]
    assert np.exp(weights.laplace(difference, 3.0, 0.0)) == pytest.approx(passages)


def test_the_peak_lies_b_above_the_positive() -> None:
    difference = np.linspace(-3, 3, 61)
    for shift in (-1.0, 0.0, 0.5):
        for kernel in (weights.gaussian, weights.laplace):
            assert difference[kernel(difference, 0.5, shift).argmax()] == pytest.approx(shift)


def test_extreme_scores_keep_their_order() -> None:
    difference = np.array([-100.0, -101.0, -400.0])
    found = weights.gaussian(difference, 0.5, 0.0)
    assert np.isfinite(found).all()
    assert np.exp(found).max() == 0.0
    assert found[0] > found[1] > found[2]


def test_inside_the_triangle() -> None:
    found = weights.inside_triangle(np.array([0.5, 0.9]), np.array([0.8, 0.4]))
    assert found.tolist() == [pytest.approx(math.log(0.3)), -math.inf]


def test_softmax_divides_by_the_temperature() -> None:
    assert weights.softmax(SCORES, 0.5).tolist() == (2 * SCORES).tolist()
