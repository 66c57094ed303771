from __future__ import annotations

import numpy as np
import pytest

from pipeline.methods.lists import PassageLists, places

LISTS = PassageLists.from_rows([7, 2, 5], [[3, 1, 2], [], [9, 8]])


def as_dict(lists: PassageLists) -> dict[int, list[int]]:
    return {query: passages.tolist() for query, passages in lists}


def test_flat_views_agree_with_the_rows():
    assert as_dict(LISTS) == {7: [3, 1, 2], 2: [], 5: [9, 8]}
    assert LISTS.lengths.tolist() == [3, 0, 2]
    assert LISTS.rows.tolist() == [0, 0, 0, 2, 2]
    assert LISTS.ranks.tolist() == [1, 2, 3, 1, 2]
    assert LISTS.queries.tolist() == [7, 7, 7, 5, 5]


def test_keep_take_and_of_select_what_they_say():
    mask = np.array([False, True, True, False, False])
    assert as_dict(LISTS.keep(mask)) == {7: [1, 2], 2: [], 5: []}
    assert LISTS.count(mask).tolist() == [2, 0, 0]
    assert as_dict(LISTS.take(np.array([2, 0]))) == {5: [9, 8], 7: [3, 1, 2]}
    assert as_dict(LISTS.take(np.array([False, True, True]))) == {2: [], 5: [9, 8]}
    assert as_dict(LISTS.of(np.array([5, 99, 7, 0]))) == {5: [9, 8], 99: [], 7: [3, 1, 2], 0: []}


def test_pairs_are_grouped_by_query_in_the_order_they_came():
    lists = PassageLists.from_pairs([4, 1, 4, 1, 4], [9, 5, 3, 6, 7])
    assert as_dict(lists) == {1: [5, 6], 4: [9, 3, 7]}


def test_rank_order_is_score_descending_then_passage_ascending():
    lists = PassageLists.from_rows([0, 1], [[4, 2, 9, 1], [3, 8]])
    ranked = lists.ranked(np.array([1.0, 2.0, 2.0, 1.0, -1.0, 5.0], dtype=np.float32))
    assert as_dict(ranked) == {0: [2, 9, 1, 4], 1: [8, 3]}


def test_empty_lists_work_throughout():
    empty = PassageLists.from_rows([], [])
    assert len(empty) == 0
    assert as_dict(empty.keep(np.zeros(0, dtype=bool))) == {}
    assert as_dict(empty.of(np.array([3]))) == {3: []}


def test_malformed_arrays_are_refused():
    with pytest.raises(ValueError, match="3 offsets"):
        PassageLists(np.zeros(2, np.int32), np.zeros(2, np.int64), np.zeros(0, np.int32))
    with pytest.raises(ValueError, match="rise from 0"):
        PassageLists.from_lengths([0, 1], [2, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="mask: expected"):
        LISTS.count(np.zeros(4, dtype=bool))
    with pytest.raises(ValueError, match="NaN"):
        LISTS.ranked(np.full(5, np.nan))


@pytest.mark.parametrize("size", [0, 1, 40])
def test_places_of_keys_are_those_of_a_dictionary(size: int) -> None:
    draw = np.random.default_rng(size)
    keys = draw.permutation(100)[:size] - 50
    wanted = draw.integers(-60, 60, 200)
    where = {key: place for place, key in enumerate(keys.tolist())}
    assert places(keys, wanted).tolist() == [where.get(each, -1) for each in wanted.tolist()]
    assert places(keys, wanted[:0]).tolist() == []
