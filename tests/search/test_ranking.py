from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.search.ranking import (
    EMPTY,
    Excluded,
    TopK,
    best_keys,
    keys_of,
    merge_top_k,
    passages_of,
    scores_of,
    top_k,
)

FLOATS = st.floats(width=32, allow_nan=False)
SCORED = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([-2.0, -0.0, 0.0, 1.5, 3.0])), max_size=30
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(FLOATS, st.integers(0, 2**31 - 1)), min_size=1, max_size=40))
def test_sorting_keys_is_sorting_by_the_ranking_order(pairs: list[tuple[float, int]]) -> None:
    scores = np.array([score for score, _ in pairs], dtype=np.float32)
    passages = np.array([passage for _, passage in pairs])
    keys = keys_of(scores, passages)
    np.testing.assert_array_equal(scores_of(keys), scores)
    np.testing.assert_array_equal(passages_of(keys), passages)
    assert (keys < EMPTY).all()
    order = np.lexsort((passages, -scores))
    np.testing.assert_array_equal(np.sort(keys), keys[order])


def group_top_k(scored: list[tuple[int, float]], group: int, depth: int) -> TopK:
    """The ranking of one group; a passage's index is its place in the list."""
    members = [(score, index) for index, (own, score) in enumerate(scored) if own == group]
    scores = np.array([[score for score, _ in members]], dtype=np.float32)
    passages = np.array([[index for _, index in members]], dtype=np.int64)
    return top_k(best_keys(keys_of(scores, passages), depth))


@settings(max_examples=50, deadline=None)
@given(SCORED, st.integers(1, 6))
def test_merging_is_associative_and_ranks_all(scored: list[tuple[int, float]], depth: int) -> None:
    a, b, c, d = (group_top_k(scored, group, depth) for group in range(4))
    ranked = sorted((-score, index) for index, (_, score) in enumerate(scored))[:depth]
    expected = [index for _, index in ranked] + [-1] * (depth - len(ranked))
    merges = (
        merge_top_k([a, b, c, d], depth),
        merge_top_k([merge_top_k([d, b], depth), merge_top_k([c, a], depth)], depth),
        merge_top_k([a, merge_top_k([b, merge_top_k([c, d], depth)], depth)], depth),
    )
    for merged in merges:
        assert merged.passage_index.tolist() == [expected]
        assert merged.score[0, : len(ranked)].tolist() == [-score for score, _ in ranked]
        assert (merged.score[0, len(ranked) :] == -np.inf).all()
        assert merged.counts.tolist() == [len(ranked)]
        assert merged.passage_index.dtype == np.int32
        assert merged.score.dtype == np.float32


def test_merging_nothing_and_uneven_exclusions_are_errors() -> None:
    with pytest.raises(ValueError, match="no rankings"):
        merge_top_k([], 3)
    with pytest.raises(ValueError, match="2 query rows, but 1 passages"):
        Excluded(np.array([0, 1]), np.array([3]))
