from __future__ import annotations

import itertools

import numpy as np
import pytest

from pipeline.methods.statistics import (
    SystemScores,
    bootstrap_interval,
    compare,
    holm,
    randomisation_p_value,
)


def exact_p_value(differences: np.ndarray) -> float:
    observed = abs(differences.sum())
    signs = itertools.product([-1, 1], repeat=len(differences))
    return float(np.mean([abs(np.dot(each, differences)) >= observed - 1e-12 for each in signs]))


@pytest.mark.parametrize("shift", [0.0, 0.3, 0.8])
def test_randomisation_approaches_all_sign_flips(shift: float):
    differences = np.random.default_rng(2).normal(shift, 0.5, 10)
    expected = exact_p_value(differences)
    assert randomisation_p_value(differences, 20_000, seed=1) == pytest.approx(expected, abs=0.012)


def test_randomisation_counts_ties_and_is_never_zero():
    assert randomisation_p_value(np.zeros(30), 100) == 1.0
    assert randomisation_p_value(np.ones(60), 999, seed=3) == pytest.approx(1 / 1000)
    # 0.1 + 0.2 - 0.3: every order of summation must count as the same value.
    assert randomisation_p_value(np.array([0.1, 0.2, -0.3] * 3), 500) == 1.0


def test_results_depend_on_the_seed_only():
    differences = np.random.default_rng(0).normal(0.05, 1, 300)
    assert randomisation_p_value(differences, seed=4) == randomisation_p_value(differences, seed=4)
    assert bootstrap_interval(differences, seed=4) == bootstrap_interval(differences, seed=4)
    assert bootstrap_interval(differences, seed=4) != bootstrap_interval(differences, seed=5)


def test_bootstrap_agrees_with_the_normal_interval_on_many_queries():
    differences = np.random.default_rng(8).normal(0.2, 1.0, 2000)
    half = 1.96 * differences.std(ddof=1) / np.sqrt(2000)
    expected = (differences.mean() - half, differences.mean() + half)
    assert bootstrap_interval(differences, resamples=4000) == pytest.approx(expected, abs=0.004)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([]) == []


def systems(gap: float, seeds: int) -> tuple[SystemScores, SystemScores]:
    generator = np.random.default_rng(6)
    base = generator.random((seeds, 400))
    better = base + gap + generator.normal(0, 0.1, (seeds, 400))
    return SystemScores("better", better), SystemScores("base", base)


def test_a_clear_difference_over_three_seeds_is_claimed_in_its_direction():
    better, base = systems(0.1, 3)
    first, second = compare([(better, base), (base, better)], permutations=2000)
    assert (first.verdict, second.verdict) == ("first beats second", "second beats first")
    assert first.difference == pytest.approx(0.1, abs=0.01)
    assert first.low < first.difference < first.high
    assert first.adjusted_p_value == pytest.approx(2 / 2001)
    assert first.reason == ""


def test_too_few_seeds_or_no_difference_is_inconclusive():
    better, base = systems(0.1, 2)
    (one,) = compare([(better, base)], permutations=500)
    assert one.verdict == "inconclusive"
    assert "better has 2 of 3 seeds" in one.reason
    similar, base = systems(0.0, 3)
    (two,) = compare([(similar, base)], permutations=500)
    assert two.verdict == "inconclusive"
    assert "adjusted p" in two.reason
    assert "includes 0" in two.reason


def test_correction_over_the_table_can_undo_a_claim():
    generator = np.random.default_rng(0)
    base = SystemScores("base", np.zeros((3, 100)))
    weak = SystemScores("weak", np.tile(generator.normal(0.22, 1.0, 100), (3, 1)))
    alone = compare([(weak, base)])[0]
    crowd = compare([(weak, base)] + [(base, base)] * 9)[0]
    assert alone.p_value == crowd.p_value
    assert crowd.adjusted_p_value == pytest.approx(min(1.0, 10 * alone.p_value))


def test_a_system_without_training_needs_one_row_only():
    better, base = systems(0.1, 3)
    fixed = SystemScores("bm25", base.values[:1], deterministic=True)
    (line,) = compare([(better, fixed)], permutations=500)
    assert line.verdict == "first beats second"
    assert fixed.deviation is None
    assert better.deviation == pytest.approx(np.std([row.mean() for row in better.values], ddof=1))


def test_a_table_is_tested_with_ten_thousand_permutations():
    better = SystemScores("better", np.ones((3, 60)))
    (line,) = compare([(better, SystemScores("worse", np.zeros((3, 60))))])
    assert line.p_value == pytest.approx(1 / 10_001)


def test_an_objection_forbids_a_claim_and_stands_first_among_the_reasons():
    better, worse = (
        SystemScores("better", np.ones((1, 60))),
        SystemScores("worse", np.zeros((3, 60))),
    )
    free, barred = compare([(better, worse)] * 2, ["", "unlike data"], permutations=500)
    assert free.reason == "better has 1 of 3 seeds"
    assert barred.verdict == "inconclusive"
    assert barred.reason == "unlike data; better has 1 of 3 seeds"


def test_values_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="shape"):
        SystemScores("flat", np.zeros(3))
    with pytest.raises(ValueError, match="finite"):
        SystemScores("gap", np.array([[0.0, np.nan]]))
    with pytest.raises(ValueError, match="same ones"):
        compare([(SystemScores("a", np.zeros((3, 4))), SystemScores("b", np.zeros((3, 5))))])
