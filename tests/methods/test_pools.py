"""Draws from pools against exact enumeration, and what is done about pools that are too small."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.methods.filters import KnownPairs
from pipeline.methods.lists import PassageLists
from pipeline.methods.pools import Pools, complete

NOBODY = KnownPairs.of()


def pools(rows: list[list[int]], log_weights: list[float], positives: list[int] | None = None):
    return Pools(
        PassageLists.from_rows(range(len(rows)), rows),
        np.array(positives or range(1000, 1000 + len(rows)), np.int32),
        np.array(log_weights),
    )


def inclusion(weights: list[float], n: int) -> np.ndarray:
    """Chance of each item among n draws without replacement, one after the other, by weight."""
    found = np.zeros(len(weights))
    for order in itertools.permutations(range(len(weights)), n):
        chance, left = 1.0, sum(weights)
        for item in order:
            chance *= weights[item] / left
            left -= weights[item]
        found[list(order)] += chance
    return found


@pytest.mark.parametrize("names", [[0, 1, 2, 3, 4], [2_000_000_011, 17, 99, 3, 16]])
@pytest.mark.parametrize("offset", [0.0, -4000.0, 4000.0])
def test_inclusion_probabilities_are_those_of_the_enumeration(
    offset: float, names: list[int]
) -> None:
    weights, n, draws = [1.0, 4.0, 0.2, 2.0, 1.0], 2, 20_000
    log_weights = np.log(weights) + offset
    # One pool for each draw, told apart by its positive: as many draws as one likes at once.
    lists = PassageLists(
        np.zeros(draws, np.int32),
        np.arange(draws + 1) * 5,
        np.tile(np.array(names, np.int32), draws),
    )
    many = Pools(lists, np.arange(draws, dtype=np.int32), np.tile(log_weights, draws))
    shares = many.draw(n, 7, 0).reshape(draws, 5).mean(axis=0)
    expected = inclusion(weights, n)
    error = np.sqrt(expected * (1 - expected) / draws)
    assert np.all(np.abs(shares - expected) < 4.5 * error)


ROWS = st.lists(
    st.lists(st.integers(0, 99), min_size=1, max_size=9, unique=True), min_size=1, max_size=6
)


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, n=st.integers(1, 5), seed=st.integers(0, 2**40), epoch=st.integers(0, 5))
def test_a_draw_depends_neither_on_neighbours_nor_on_order(rows, n, seed, epoch) -> None:
    def weight(passage: int) -> float:
        return (passage * 37 % 11) / 3

    def drawn(numbers: list[int], backwards: bool) -> dict[int, set[int]]:
        chosen = [rows[number][::-1] if backwards else rows[number] for number in numbers]
        part = Pools(
            PassageLists.from_rows(numbers, chosen),
            np.array(numbers, np.int32) + 500,
            np.array([weight(passage) for row in chosen for passage in row]),
        )
        kept = part.lists.keep(part.draw(n, seed, epoch))
        return {query: set(passages.tolist()) for query, passages in kept}

    numbers = list(range(len(rows)))
    whole = drawn(numbers, backwards=False)
    assert drawn(numbers[::-1], backwards=True) == whole
    assert {**drawn(numbers[1:], False), **drawn(numbers[:1], True)} == whole
    assert all(len(whole[q]) == min(n, len(rows[q])) for q in numbers)


def test_names_of_passages_do_not_matter() -> None:
    """The released loaders keep, of too many drawn, those whose number hashes low."""
    draws, size = 400, 40
    log_weights = np.zeros(size)
    shares = []
    for first in (0, 10_000_019):
        lists = PassageLists.from_rows(range(draws), [np.arange(first, first + size)] * draws)
        every = Pools(lists, np.arange(draws, dtype=np.int32), np.tile(log_weights, draws))
        shares.append(every.draw(15, 3, 0).reshape(draws, size).mean(axis=0))
    for share in shares:
        assert np.all(np.abs(share - 15 / size) < 4.5 * np.sqrt(0.375 * 0.625 / draws))


def test_epochs_draw_anew() -> None:
    one = pools([list(range(100))], [0.0] * 100)
    drawn = [frozenset(np.flatnonzero(one.draw(10, 1, epoch)).tolist()) for epoch in range(20)]
    assert len(set(drawn)) == 20
    assert one.draw(10, 1, 3).tolist() == one.draw(10, 1, 3).tolist()
    # Nor are the next seed's draws those of the next epoch.
    assert one.draw(10, 2, 3).tolist() != one.draw(10, 1, 4).tolist()


def test_effective_size_and_overlap() -> None:
    both = pools([[1, 2, 3, 4], [5, 6, 7]], [0.0] * 4 + [-5000.0, 0.0, -5000.0])
    assert both.effective_sizes() == pytest.approx([4.0, 1.0])
    sharp = pools([[1, 2, 3, 4]], [0.0, 0.0, -500.0, -500.0])
    assert sharp.overlap_with_top(sharp.lists, 2, 0).tolist() == [1.0]
    turned = pools([[1, 2, 3, 4]], [-500.0, -500.0, 0.0, 0.0])
    assert turned.overlap_with_top(turned.lists, 2, 0).tolist() == [0.0]
    # A pool that holds no more than will be drawn is still compared with what it was made from.
    chosen = turned.keep(np.array([False, True, False, True]))
    assert chosen.overlap_with_top(turned.lists, 2, 0).tolist() == [0.5]


def test_starved_pools_are_dropped_filled_or_kept() -> None:
    given_pools = pools([[1, 2, 3], [4], []], [0.0, 1.0, 2.0, 3.0])
    known = KnownPairs.of(([1, 1, 2], [0, 5, 0]))

    dropped = complete(given_pools, 2, "drop", 8, known, 0)
    assert dropped.kept.tolist() == [True, False, False]
    assert dropped.dropped == {"fewer than 2 candidates left": 2}
    assert dropped.counts == {"pools_short": 2, "negatives_filled": 0}

    fewer = complete(given_pools, 2, "fewer", 8, known, 0)
    assert fewer.kept.tolist() == [True, True, False]
    assert fewer.pools.lists.lengths.tolist() == [3, 1]
    assert fewer.dropped == {"no candidate left": 1}

    filled = complete(given_pools, 2, "fill", 8, known, 0)
    assert filled.kept.all()
    assert filled.dropped == {}
    assert filled.counts == {"pools_short": 2, "negatives_filled": 3}
    rows = [passages.tolist() for _, passages in filled.pools.lists]
    assert rows[0] == [1, 2, 3]
    assert rows[1][0] == 4
    assert not {0, 4, 5} & set(rows[1][1:])
    assert len(set(rows[2])) == 2
    assert 0 not in rows[2]
    assert filled.pools.log_weights.tolist()[:4] == [0.0, 1.0, 2.0, 3.0]


def test_a_corpus_too_small_to_fill_from_drops_the_pool() -> None:
    filled = complete(pools([[1]], [0.0]), 4, "fill", 3, NOBODY, 0)
    assert filled.dropped == {"fewer than 4 candidates left": 1}
