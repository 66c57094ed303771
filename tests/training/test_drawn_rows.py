"""Rows that draw their negatives, against a literal reading of the pools."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from training_cases import (
    CPU,
    joint_objective,
    query_tower_objective,
    ranker_objective,
    retriever_objective,
)

from pipeline.methods.lists import PassageLists
from pipeline.methods.pools import Pools
from pipeline.training.batches import Share
from pipeline.training.drawn_rows import DrawnRows, JoinedRows
from pipeline.training.rows import TrainingRows
from pipeline.training.world import World

# Query 4 has the positives 40 and 41; they lie apart in the table.
PAIRS = [(4, 40), (9, 90), (4, 41), (7, 70)]
CANDIDATES = [[1, 2, 3, 4], [5, 6, 7], [11, 12, 13, 14], [8, 9]]


def drawn(num_negatives: int = 2, **options: bool) -> DrawnRows:
    queries, positives = zip(*PAIRS, strict=True)
    lists = PassageLists.from_rows(queries, CANDIDATES)
    pools = Pools(lists, np.array(positives, np.int32), np.zeros(len(lists.passage_indices)))
    return DrawnRows(pools, num_negatives, seed=3, **options)


def triples(rows: TrainingRows) -> list[tuple[int, int, frozenset[int]]]:
    columns = rows.query_indices.tolist(), rows.positives.tolist(), rows.negatives.tolist()
    return [
        (query, positive, frozenset(row)) for query, positive, row in zip(*columns, strict=True)
    ]


def test_one_positive_a_query_and_another_in_each_epoch() -> None:
    rows = drawn()
    assert len(rows) == 3
    seen: Counter[int] = Counter()
    for epoch in range(60):
        found = triples(rows.batch(np.arange(3), epoch))
        assert [query for query, _, _ in found] == [4, 7, 9]
        for query, positive, negatives in found:
            assert len(negatives) == 2
            assert negatives <= set(CANDIDATES[PAIRS.index((query, positive))])
        seen[found[0][1]] += 1
    assert set(seen) == {40, 41}
    assert min(seen.values()) > 15


def test_negatives_are_drawn_anew_in_every_epoch() -> None:
    """Every pair of the four candidates, of one row in 80 epochs."""
    rows = drawn(one_row_per_query=False)
    seen = Counter(triples(rows.batch(np.array([0]), epoch))[0] for epoch in range(80))
    assert len(seen) == 6 and {(query, positive) for query, positive, _ in seen} == {PAIRS[0]}
    assert max(seen.values()) < 30


def test_every_pair_can_be_a_row() -> None:
    rows = drawn(one_row_per_query=False)
    assert len(rows) == 4
    found = triples(rows.batch(np.arange(4)))
    assert {(query, positive) for query, positive, _ in found} == set(PAIRS)


@pytest.mark.parametrize("one", [True, False])
def test_a_row_is_the_same_in_any_batch(one: bool) -> None:
    rows = drawn(one_row_per_query=one)
    whole = triples(rows.batch(np.arange(len(rows)), 5))
    for number in range(len(rows)):
        assert triples(rows.batch(np.array([number]), 5)) == [whole[number]]
    assert triples(rows.batch(np.arange(len(rows))[::-1], 5)) == whole[::-1]


def test_small_pools_have_absent_places() -> None:
    rows = drawn(num_negatives=3, one_row_per_query=False)
    assert rows.ragged
    found = rows.batch(np.arange(4))
    assert found.absent is not None
    by_query = dict(zip(found.query_indices.tolist(), found.absent.tolist(), strict=True))
    assert by_query == {4: [False] * 3, 7: [False, False, True], 9: [False] * 3}
    at = found.query_indices.tolist().index(7)
    assert found.negatives[at].tolist()[-1] == 70
    assert not drawn(num_negatives=2).ragged


def test_joined_rows_keep_the_order_that_is_asked_for() -> None:
    written = TrainingRows(np.array([1, 2]), np.array([10, 20]), np.array([[30, 31], [32, 33]]))
    both = JoinedRows([written, drawn()])
    assert len(both) == 5
    asked = np.array([3, 1, 4, 0, 2])
    found = triples(both.batch(asked, 2))
    alone = triples(written.batch(np.arange(2))) + triples(drawn().batch(np.arange(3), 2))
    assert found == [alone[number] for number in asked]
    queries, positives = both.positive_pairs
    assert set(zip(queries.tolist(), positives.tolist(), strict=True)) == {
        (1, 10),
        (2, 20),
        *PAIRS,
    }
    assert both.batch(asked).absent is None


def test_joined_rows_with_small_pools_have_absent_places_alone_there() -> None:
    lists = pa.table({"query_index": [1], "positives": [[10]], "negatives": [[30, 31, 32]]})
    written = TrainingRows.from_lists(lists, 3)
    both = JoinedRows([written, drawn(num_negatives=3)])
    absent = both.batch(np.arange(4)).absent
    assert absent is not None
    assert absent.any(axis=1).tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    "made",
    [
        retriever_objective,
        query_tower_objective,
        joint_objective,
        partial(ranker_objective, kind="listwise"),
    ],
    ids=["retriever", "query tower", "joint", "ranker"],
)
def test_objectives_ask_for_the_rows_of_the_epoch(store: Path, monkeypatch, made) -> None:
    asked = []
    batch = TrainingRows.batch

    def noting(rows: TrainingRows, numbers: np.ndarray, epoch: int = 0) -> TrainingRows:
        asked.append(epoch)
        return batch(rows, numbers, epoch)

    monkeypatch.setattr(TrainingRows, "batch", noting)
    made(store).step(Share(np.arange(4), step=9, epoch=3), World.single(CPU))
    assert asked[0] == 3
