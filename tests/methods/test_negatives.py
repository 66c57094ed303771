from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.methods.filters import KnownPairs
from pipeline.methods.lists import PassageLists
from pipeline.methods.negatives import Negatives, denoised_negatives, ranker_negatives


def as_dict(negatives: Negatives) -> dict[int, list[int]]:
    return {query: passages.tolist() for query, passages in negatives.lists}


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[list[int]], list[list[float]], list[set[int]]]:
    rows = draw(
        st.lists(st.lists(st.integers(0, 25), unique=True, max_size=14), min_size=1, max_size=6)
    )
    share = st.sampled_from([0.0, 0.05, 0.0999, 0.1, 0.2, 0.95])
    probabilities = [draw(st.lists(share, min_size=len(row), max_size=len(row))) for row in rows]
    positives = [draw(st.sets(st.integers(0, 25), max_size=3)) for _ in rows]
    return rows, probabilities, positives


@settings(max_examples=50, deadline=None)
@given(table=tables(), depth=st.integers(1, 8), extra=st.integers(0, 6), n=st.integers(1, 3))
def test_denoising_follows_a_literal_reading_of_step_3(
    table: tuple[list[list[int]], list[list[float]], list[set[int]]], depth: int, extra: int, n: int
):
    rows, probabilities, positives = table
    candidates = PassageLists.from_rows(range(len(rows)), rows)
    known = KnownPairs.of(
        (
            [q for q, found in enumerate(positives) for _ in found],
            [p for found in positives for p in found],
        )
    )
    wanted = np.array([n * len(found) for found in positives])
    flat = np.array([value for row in probabilities for value in row])
    result = denoised_negatives(
        candidates, flat, known, wanted, depth=depth, fill_depth=depth + extra, seed=3
    )
    got = as_dict(result)
    filled_by_query = dict(zip(got, result.filled.tolist(), strict=True))
    short = 0
    for query, row in enumerate(rows):
        walk = []
        for passage, probability in zip(row[:depth], probabilities[query][:depth], strict=True):
            if len(walk) == wanted[query]:
                break
            if probability < 0.1 and passage not in positives[query]:
                walk.append(passage)
        pool = [p for p in row[depth : depth + extra] if p not in positives[query]]
        fill = min(wanted[query] - len(walk), len(pool))
        if len(walk) + fill == 0:
            assert query not in got
            continue
        assert got[query][: len(walk)] == walk
        rest = got[query][len(walk) :]
        assert len(rest) == len(set(rest)) == fill == filled_by_query[query]
        assert set(rest) <= set(pool)
        short += len(walk) + fill < wanted[query]
    assert result.counts["queries_short"] == short
    assert len(result.lists) + sum(result.dropped.values()) == len(rows)


CANDIDATES = PassageLists.from_rows(
    [10, 11, 12, 13], [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4], [], [7, 8]]
)
KNOWN = KnownPairs.of(([10, 11, 12, 13], [2, 9, 9, 7]))


def test_everything_that_happens_is_counted():
    probabilities = np.array([0.5, 0.9, 0.01, 0.3, 0.6, 0.0, 0.2, 0.0, 0.7, 0.0, 0.9, 0.1])
    result = denoised_negatives(CANDIDATES, probabilities, KNOWN, 3, depth=4, fill_depth=6, seed=0)
    # 10: 3 is sure, 5 and 6 fill. 11: 2 and 4. 12: nothing to choose from. 13: 8 has exactly 0.1.
    assert as_dict(result) == {10: [3, 5, 6], 11: [2, 4]}
    assert result.filled.tolist() == [2, 0]
    assert result.dropped == {"no candidates": 1, "no negative left": 1}
    assert result.counts == {
        "candidates_known": 2,
        "candidates_lost": 5,
        "queries_losing_candidates": 3,
        "negatives_filled": 2,
        "queries_filled": 1,
        "negatives_missing": 1,
        "queries_short": 1,
    }


def test_without_the_ranker_the_top_candidates_are_taken_as_they_are():
    result = denoised_negatives(CANDIDATES, None, KNOWN, 2, depth=4, fill_depth=4, seed=0)
    assert as_dict(result) == {10: [1, 3], 11: [1, 2], 13: [8]}
    assert result.counts["candidates_lost"] == 0


def test_queries_without_positives_are_dropped_with_their_reason():
    wanted = np.array([0, 1, 0, 1])
    result = denoised_negatives(CANDIDATES, None, KNOWN, wanted, depth=4, fill_depth=4, seed=0)
    assert as_dict(result) == {11: [1], 13: [8]}
    assert result.dropped == {"no positive": 2}


def test_candidates_without_a_score_inside_the_depth_are_an_error():
    probabilities = np.array([0.0, np.nan, 0.0, 0.0, np.nan, np.nan, 0, 0, 0, 0, 0, 0])
    with pytest.raises(ValueError, match="query_index 10 at rank 2"):
        denoised_negatives(CANDIDATES, probabilities, KNOWN, 1, depth=4, fill_depth=6, seed=0)
    probabilities[1] = 0.0
    deeper = denoised_negatives(CANDIDATES, probabilities, KNOWN, 6, depth=4, fill_depth=6, seed=0)
    assert as_dict(deeper)[10] == [1, 3, 4, 5, 6]


def test_ranker_negatives_are_uniform_over_the_depth_without_known_positives():
    queries = 4000
    candidates = PassageLists.from_lengths(
        np.arange(queries), np.full(queries, 8), np.tile(np.arange(8), queries)
    )
    known = KnownPairs.of((np.arange(queries), np.full(queries, 2)))
    result = ranker_negatives(candidates, known, 2, depth=6, seed=1)
    assert (result.lists.lengths == 2).all()
    shares = np.bincount(result.lists.passage_indices, minlength=8) / queries
    assert shares[[2, 6, 7]].tolist() == [0, 0, 0]
    assert shares[[0, 1, 3, 4, 5]] == pytest.approx(np.full(5, 0.4), abs=0.035)
    assert result.counts["candidates_known"] == queries
    assert result.filled.sum() == 0
