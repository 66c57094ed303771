from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.methods import filters
from pipeline.methods.filters import KnownPairs
from pipeline.methods.lists import PassageLists

PAIRS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2**31 - 1)), max_size=20)


def test_thresholds_are_strict_and_unscored_candidates_pass_neither():
    values = np.array([0.05, 0.1, 0.5, 0.9, 0.95, np.nan])
    assert filters.below(values, 0.1).tolist() == [True, False, False, False, False, False]
    assert filters.above(values, 0.9).tolist() == [False, False, False, False, True, False]


def test_window_counts_ranks_from_one_with_both_ends():
    lists = PassageLists.from_rows([0, 1], [[5, 6, 7, 8], [9]])
    assert filters.window(lists, 2, 3).tolist() == [False, True, True, False, False]
    assert filters.window(lists, 1, 1).tolist() == [True, False, False, False, True]
    assert filters.window(lists, 3, None).tolist() == [False, False, True, True, False]


@settings(max_examples=50, deadline=None)
@given(known=PAIRS, more=PAIRS, asked=PAIRS)
def test_membership_equals_a_python_set(
    known: list[tuple[int, int]], more: list[tuple[int, int]], asked: list[tuple[int, int]]
):
    def columns(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
        table = np.asarray(pairs, dtype=np.int32).reshape(-1, 2)
        return table[:, 0], table[:, 1]

    wanted = asked + known[:3] + more[:3]
    expected = [pair in {*known, *more} for pair in wanted]
    together = KnownPairs.of(columns(known), columns(more))
    assert together.contains(*columns(wanted)).tolist() == expected
    joined = KnownPairs.of(columns(known)) | KnownPairs.of(columns(more))
    assert joined.contains(*columns(wanted)).tolist() == expected
    listed = {(query, int(p)) for query, passages in together.lists() for p in passages}
    assert listed == {*known, *more}


def test_copies_of_a_known_passage_become_known():
    content_hash = np.array([11, -22, 11, 33, -22, 11])
    known = KnownPairs.of(([0, 1, 1], [0, 4, 3])).with_copies(content_hash)
    listed = {query: passages.tolist() for query, passages in known.lists()}
    assert listed == {0: [0, 2, 5], 1: [1, 3, 4]}
    assert len(KnownPairs.of().with_copies(content_hash).keys) == 0


def test_filters_that_compare_with_the_positive() -> None:
    scores, positives = np.array([0.7, 0.9, 1.0, 1.2]), np.full(4, 1.0)
    assert filters.below_positive(scores, positives, 0.1).tolist() == [True, False, False, False]
    found = filters.below_share_of_positive(scores, positives, 0.95)
    assert found.tolist() == [True, True, False, False]


def test_a_share_of_a_negative_positive_lies_below_it() -> None:
    scores = np.array([-3.0, -2.2, -2.05, -1.95, -1.0])
    found = filters.below_share_of_positive(scores, np.full(5, -2.0), 0.95)
    assert found.tolist() == [True, True, False, False, False]


def test_angles_on_both_sides_of_the_positive() -> None:
    degrees = np.array([0.0, 29.0, 90.0, 149.0, 151.0])
    cosines = np.cos(np.deg2rad(degrees))
    found = filters.within_angle(cosines, np.full(5, cosines[2]), 60.0)
    assert found.tolist() == [False, False, True, True, False]


def test_scores_that_are_no_cosines_have_no_angle() -> None:
    rounded = np.array([1.0008, -1.0008])
    assert filters.within_angle(rounded, np.ones(2), 60.0).tolist() == [True, False]
    assert filters.within_angle(np.empty(0), np.empty(0), 60.0).tolist() == []
    for scores, positives in (([50.0], [0.5]), ([0.5], [-60.0])):
        with pytest.raises(ValueError, match="no angle for a score of"):
            filters.within_angle(np.array(scores), np.array(positives), 60.0)


def test_each_filter_counts_what_those_before_it_left() -> None:
    lists = PassageLists.from_rows([0], [[1, 2, 3, 4]])
    masks = {
        "first": np.array([True, True, False, False]),
        "second": np.array([False, True, True, False]),
    }
    allowed, dropped = filters.applied(lists, masks)
    assert allowed.tolist() == [False, True, False, False]
    assert dropped == {"first": 2, "second": 1}
