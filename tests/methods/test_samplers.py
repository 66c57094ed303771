from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.methods import samplers
from pipeline.methods.filters import KnownPairs
from pipeline.methods.lists import PassageLists

ROWS = st.lists(st.lists(st.integers(0, 40), unique=True, max_size=12), min_size=1, max_size=8)


def chosen(lists: PassageLists, mask: np.ndarray) -> dict[int, list[int]]:
    return {query: passages.tolist() for query, passages in lists.keep(mask)}


@settings(max_examples=50, deadline=None)
@given(rows=ROWS, n=st.integers(0, 5), data=st.data())
def test_top_equals_a_walk_down_the_ranks(rows: list[list[int]], n: int, data: st.DataObject):
    lists = PassageLists.from_rows(range(len(rows)), rows)
    size = len(lists.passage_indices)
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)), dtype=bool)
    expected, entry = {}, 0
    for query, row in enumerate(rows):
        walk = []
        for passage in row:
            if allowed[entry] and len(walk) < n:
                walk.append(passage)
            entry += 1
        expected[query] = walk
    assert chosen(lists, samplers.top(lists, allowed, n)) == expected


@settings(max_examples=50, deadline=None)
@given(rows=ROWS, n=st.integers(0, 5), seed=st.integers(0, 2**63), cut=st.integers(0, 8))
def test_a_draw_does_not_depend_on_shards_or_on_order(
    rows: list[list[int]], n: int, seed: int, cut: int
):
    queries = np.arange(len(rows)) * 3 + 1
    lists = PassageLists.from_rows(queries, rows)

    def draw(part: PassageLists) -> dict[int, set[int]]:
        allowed = part.passage_indices % 3 != 0
        mask = samplers.uniform(part, allowed, n, seed)
        assert not (mask & ~allowed).any()
        return {query: set(passages) for query, passages in chosen(part, mask).items()}

    whole = draw(lists)
    assert all(
        len(drawn) == min(n, sum(passage % 3 != 0 for passage in row))
        for drawn, row in zip(whole.values(), rows, strict=True)
    )
    numbers = np.arange(len(rows))
    assert {**draw(lists.take(numbers[cut:])), **draw(lists.take(numbers[:cut]))} == whole
    turned = PassageLists.from_rows(queries[::-1], [row[::-1] for row in rows[::-1]])
    assert draw(turned) == whole


def test_numbers_per_list_are_obeyed():
    lists = PassageLists.from_rows([0, 1, 2], [[1, 2, 3], [4, 5, 6], [7]])
    allowed = np.ones(7, dtype=bool)
    for mask in (
        samplers.top(lists, allowed, np.array([2, 0, 4])),
        samplers.uniform(lists, allowed, np.array([2, 0, 4]), seed=1),
    ):
        assert lists.count(mask).tolist() == [2, 0, 1]


def test_uniform_draws_every_subset_equally_often():
    """20,000 queries draw 2 of 4: six subsets; chi-square with 5 degrees, 99.99 % quantile 25.7."""
    queries = 20_000
    lists = PassageLists.from_lengths(
        np.arange(queries), np.full(queries, 4), np.tile([10, 11, 12, 13], queries)
    )
    mask = samplers.uniform(lists, np.ones(4 * queries, dtype=bool), 2, seed=13).reshape(-1, 4)
    subsets = [np.isin(np.arange(4), pair) for pair in itertools.combinations(range(4), 2)]
    counts = np.array([(mask == subset).all(axis=1).sum() for subset in subsets])
    assert counts.sum() == queries
    assert ((counts - queries / 6) ** 2 / (queries / 6)).sum() < 25.7


def test_seeds_and_queries_draw_differently():
    lists = PassageLists.from_lengths(np.arange(200), np.full(200, 20), np.tile(np.arange(20), 200))
    allowed = np.ones(4000, dtype=bool)
    one, other = (samplers.uniform(lists, allowed, 4, seed).reshape(200, 20) for seed in (1, 2))
    # Two independent draws of 4 of 20 share 0.8 on average.
    assert 0.6 < (one & other).sum(axis=1).mean() < 1.0
    assert 0.6 < (one[:-1] & one[1:]).sum(axis=1).mean() < 1.0


def test_weighted_draws_in_proportion_to_the_weights():
    queries, weights = 20_000, np.array([0.5, 0.3, 0.15, 0.05])
    lists = PassageLists.from_lengths(
        np.arange(queries), np.full(queries, 4), np.tile(np.arange(4), queries)
    )
    # Weights of exp(-800) underflow to 0 unless one stays in logarithms.
    log_weights = np.tile(np.log(weights), queries) - 800.0
    mask = samplers.weighted(lists, np.ones(4 * queries, dtype=bool), 1, 5, log_weights)
    assert mask.reshape(-1, 4).mean(axis=0) == pytest.approx(weights, abs=0.012)


def test_random_units_look_uniform_and_stay_inside_the_interval():
    units = samplers.random_units(3, np.repeat(np.arange(300), 300), np.tile(np.arange(300), 300))
    assert 0 < units.min() < units.max() < 1
    counts = np.histogram(units, bins=50, range=(0, 1))[0]
    # Chi-square with 49 degrees, 99.99 % quantile 94.6.
    assert ((counts - 1800) ** 2 / 1800).sum() < 94.6
    grid = units.reshape(300, 300)
    assert abs(np.corrcoef(grid[:-1].ravel(), grid[1:].ravel())[0, 1]) < 0.015
    assert abs(np.corrcoef(grid[:, :-1].ravel(), grid[:, 1:].ravel())[0, 1]) < 0.015


@pytest.mark.parametrize("bits", [0, 2**64 - 1])
def test_no_random_bits_give_an_infinite_key(monkeypatch, bits: int):
    monkeypatch.setattr(samplers, "_random_bits", lambda *_: np.array(bits, dtype=np.uint64))
    assert 0 < samplers.random_units(1, 2) < 1


def test_weight_zero_is_never_drawn():
    lists = PassageLists.from_rows([0, 1], [[1, 2, 3], [4, 5]])
    log_weights = np.array([-np.inf, -900.0, 0.0, -np.inf, -np.inf])
    for n in (1, 2, 3):
        mask = samplers.weighted(lists, np.ones(5, dtype=bool), n, 7, log_weights)
        assert not mask[np.isinf(log_weights)].any()
        assert lists.count(mask).tolist() == [min(n, 2), 0]


def test_corpus_negatives_are_distinct_unknown_and_independent_of_the_layout():
    queries = np.arange(60)
    known = KnownPairs.of((np.repeat(queries, 3), np.tile([1, 2, 3], 60)))
    drawn = samplers.corpus(queries, 5, 30, known, seed=4)
    for _, passages in drawn:
        assert len(set(passages.tolist())) == 5
        assert not {1, 2, 3} & set(passages.tolist())
    half = samplers.corpus(queries[40:][::-1], 5, 30, known, seed=4)
    expected = {query: passages.tolist() for query, passages in drawn if query >= 40}
    assert {query: passages.tolist() for query, passages in half} == expected


def test_corpus_negatives_cover_the_corpus_evenly():
    drawn = samplers.corpus(np.arange(5000), 4, 50, KnownPairs.of(), seed=9)
    counts = np.bincount(drawn.passage_indices, minlength=50)
    assert counts.sum() == 20_000
    # Expected 400 each with deviation about 19.
    assert (np.abs(counts - 400) < 5 * 20).all()


def test_a_corpus_that_is_too_small_gives_all_it_has():
    known = KnownPairs.of(([0, 0], [1, 3]))
    drawn = samplers.corpus(np.array([0, 1]), 4, 5, known, seed=0)
    assert {query: sorted(passages) for query, passages in drawn}[0] == [0, 2, 4]
    assert drawn.lengths.tolist() == [3, 4]
    with pytest.raises(ValueError, match="empty corpus"):
        samplers.corpus(np.array([0]), 1, 0, KnownPairs.of(), seed=0)
