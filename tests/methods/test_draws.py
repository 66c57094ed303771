"""What samplers draw: times, ranks, probabilities, shares, against enumeration and plain loops."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.methods.draws import (
    Drawn,
    ranks_by_score,
    ranks_of_positives,
    sampled_pairs,
    times_drawn,
)
from pipeline.methods.filters import KnownPairs
from pipeline.methods.lists import PassageLists
from pipeline.methods.pools import Pools
from pipeline.methods.statistics import bootstrap_interval
from tests.methods.test_pools import inclusion, pools


def test_times_drawn_are_those_of_the_epochs_and_estimate_the_inclusion() -> None:
    weights, n, epochs = [1.0, 4.0, 0.2, 2.0], 2, 4000
    made = pools([[7, 3, 5, 9], [1]], [*np.log(weights), 0.0])
    few = sum(made.draw(n, 3, epoch).astype(int) for epoch in range(5))
    assert times_drawn(made, n, 3, 5).tolist() == few.tolist()
    rates = times_drawn(made, n, 3, epochs) / epochs
    expected = inclusion(weights, n)
    error = np.sqrt(expected * (1 - expected) / epochs)
    assert np.all(np.abs(rates[:4] - expected) < 4.5 * error) and rates[4] == 1


def test_the_probability_of_one_draw_is_its_enumeration() -> None:
    weights = [[1.0, 4.0, 0.2], [2.0], [3.0, 3.0]]
    shifted = [np.log(row) + shift for row, shift in zip(weights, (-900, 0, 900), strict=True)]
    made = pools([[1, 2, 3], [4], [5, 6]], list(np.concatenate(shifted)))
    expected = np.concatenate([inclusion(row, 1) for row in weights])
    assert made.probabilities() == pytest.approx(expected)
    sums = np.bincount(made.lists.rows, made.probabilities())
    assert sums == pytest.approx([1, 1, 1])
    sizes = [1 / sum((w / sum(row)) ** 2 for w in row) for row in weights]
    assert made.effective_sizes() == pytest.approx(sizes)
    assert pools([[], [1]], [0.0]).effective_sizes().tolist() == [0, 1]


def test_ranks_by_score() -> None:
    lists = PassageLists.from_rows([0, 1, 2], [[1, 2, 3, 4], [], [5, 6]])
    nan = np.nan
    scores = np.array([0.5, nan, 2.0, 0.5, nan, nan])
    assert ranks_by_score(lists, scores).tolist() == [2, 4, 1, 3, 1, 2]
    assert ranks_of_positives(lists, scores, np.array([0.5, 1.0, nan])).tolist() == [2, 1, 0]


def test_shares_by_hand() -> None:
    """Two queries, one with two pools; a query counts once however much it is given."""
    lists = PassageLists.from_rows([4, 9, 4], [[1, 2, 3], [1, 2], [2, 5]])
    made = Pools(lists, np.array([0, 0, 6], np.int32), np.zeros(7))
    times = np.array([3, 0, 1, 2, 0, 2, 2])
    drawn = Drawn(np.array([4, 9]), made, times, KnownPairs.of(([4, 4, 9], [2, 3, 2])))
    assert drawn.drawn.tolist() == [8, 2]
    # Query 4: passage 3 once and passage 2 twice; query 9 has one in reach that was not drawn.
    assert drawn.false_negatives.tolist() == [3, 0]
    assert drawn.in_reach.tolist() == [True, True]
    share, *interval = drawn.share()
    assert share == pytest.approx((3 / 8 + 0) / 2)
    assert tuple(interval) == bootstrap_interval(np.array([3 / 8, 0]))
    assert drawn.mean_rank(lists.ranks) == pytest.approx((3 + 3 + 2 + 2 + 4) / 10)


def test_sampled_pairs_are_a_draw_of_queries() -> None:
    pairs = KnownPairs.of((np.repeat(np.arange(30), 2), np.tile([8, 5], 30)))
    few, more = (sampled_pairs(pairs, count, 3).lists() for count in (4, 9))
    assert len(few) == 4 and set(few.passage_indices.tolist()) == {5}
    assert set(few.query_indices.tolist()) < set(more.query_indices.tolist())
    other = sampled_pairs(pairs, 4, 4).lists().query_indices.tolist()
    assert few.query_indices.tolist() != other
    assert len(sampled_pairs(pairs, 99, 3).lists()) == 30
    assert len(sampled_pairs(pairs, 0, 3).lists()) == 0
