from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.rows import TrainingPairs, TrainingRows


def lists(*rows: tuple[int, list[int], list[int]]) -> pa.Table:
    queries, positives, negatives = zip(*rows, strict=True)
    integers = pa.list_(pa.int32())
    return pa.table(
        {
            "query_index": pa.array(queries, pa.int32()),
            "positives": pa.array(positives, integers),
            "negatives": pa.array(negatives, integers),
        }
    )


def flat(rows: TrainingRows) -> list[tuple[int, int, list[int]]]:
    columns = rows.query_indices.tolist(), rows.positives.tolist(), rows.negatives.tolist()
    return list(zip(*columns, strict=True))


def test_four_lines_a_positive_with_one_negative_each() -> None:
    rows = TrainingRows.from_lists(lists((3, [10, 11], [*range(20, 28)])), 1)
    assert flat(rows) == [(3, 10 + i // 4, [20 + i]) for i in range(8)]


@pytest.mark.parametrize(
    ("positives", "negatives", "count", "expected"),
    [
        ([1], [5, 6, 7, 8, 9], 2, [(0, 1, [5, 6]), (0, 1, [7, 8])]),
        ([1, 2], [5, 6], 2, [(0, 1, [5, 6]), (0, 2, [5, 6])]),
        ([1, 2], [5], 0, [(0, 1, []), (0, 2, [])]),
        ([1, 2, 3], [5, 6], 1, [(0, 1, [5]), (0, 2, [5]), (0, 3, [6])]),
    ],
)
def test_groups_and_positives_are_all_used(
    positives: list[int], negatives: list[int], count: int, expected: list[object]
) -> None:
    rows = TrainingRows.from_lists(lists((0, positives, negatives)), count)
    assert flat(rows) == expected
    assert rows.num_negatives == count


def literal(query: int, positives: list[int], negatives: list[int], n: int) -> list[object]:
    """Word for word: groups in order, shared out among the positives in order."""
    groups = [negatives[at : at + n] for at in range(0, len(negatives) - n + 1, n)] if n else [[]]
    count = max(len(positives), len(groups)) if positives and groups else 0
    return [
        (query, positives[at * len(positives) // count], groups[at * len(groups) // count])
        for at in range(count)
    ]


PASSAGES = st.lists(st.integers(0, 99), max_size=9)


@given(made=st.lists(st.tuples(PASSAGES, PASSAGES), max_size=5), n=st.integers(0, 4))
def test_rows_of_several_lists_are_those_of_each(made, n: int) -> None:
    made = [(query, *both) for query, both in enumerate(made)]
    table = lists(*made) if made else lists((0, [], [])).slice(1)
    # Chunks and offsets of a table that was read in pieces.
    table = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    rows = TrainingRows.from_lists(table, n)
    assert flat(rows) == [row for each in made for row in literal(*each, n)]
    empty = sum(not literal(*each, n) for each in made)
    assert sum(rows.dropped.values()) == empty and rows.num_negatives == n
    pairs = TrainingPairs.from_lists(table)
    passages = [p for _, positives, negatives in made for p in positives + negatives]
    labels = [x for _, own, others in made for x in [1.0] * len(own) + [0.0] * len(others)]
    assert (pairs.passage_indices.tolist(), pairs.labels.tolist()) == (passages, labels)


def test_lists_without_a_row_are_counted() -> None:
    rows = TrainingRows.from_lists(lists((0, [1], [2]), (1, [], [2, 3]), (2, [4], [5, 6])), 2)
    assert flat(rows) == [(2, 4, [5, 6])]
    assert rows.dropped == {"fewer than 2 negatives": 1, "no positive": 1}


def test_pairs_are_all_positives_and_negatives() -> None:
    pairs = TrainingPairs.from_lists(lists((0, [1, 2], [3]), (1, [], [4])))
    assert pairs.query_indices.tolist() == [0, 0, 0, 1]
    assert pairs.passage_indices.tolist() == [1, 2, 3, 4]
    assert pairs.labels.tolist() == [1, 1, 0, 0]
