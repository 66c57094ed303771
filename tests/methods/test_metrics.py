from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.methods.lists import PassageLists
from pipeline.methods.metrics import Qrels, measure, parsed


def qrels_of(judged: dict[int, dict[int, int]]) -> Qrels:
    rows = [(q, p, grade) for q, passages in judged.items() for p, grade in passages.items()]
    table = np.asarray(rows, dtype=np.int32).reshape(-1, 3)
    return Qrels(table[:, 0], table[:, 1], table[:, 2])


def literal(name: str, ranking: list[int], judged: dict[int, int]) -> float:
    family, cutoff = name.split("@")
    top = ranking[: int(cutoff)]
    hits = [rank for rank, passage in enumerate(top, 1) if judged.get(passage, 0) > 0]
    relevant = sum(grade > 0 for grade in judged.values())
    if family == "RR":
        return 1 / hits[0] if hits else 0.0
    if family == "Success":
        return float(bool(hits))
    if family == "R":
        return len(hits) / relevant if relevant else 0.0
    gains = [max(judged.get(passage, 0), 0) for passage in top]
    ideal = sorted((max(grade, 0) for grade in judged.values()), reverse=True)[: int(cutoff)]
    dcg, best = (
        sum(gain / math.log2(rank + 1) for rank, gain in enumerate(each, 1))
        for each in (gains, ideal)
    )
    return dcg / best if best else 0.0


NAMES = ("RR@2", "RR@10", "Success@1", "Success@5", "R@3", "R@20", "nDCG@10")


@settings(max_examples=30, deadline=None)
@given(
    rankings=st.lists(
        st.lists(st.integers(0, 15), unique=True, max_size=14), min_size=1, max_size=5
    ),
    data=st.data(),
)
def test_measures_equal_their_definitions(rankings: list[list[int]], data: st.DataObject):
    grades = st.dictionaries(st.integers(0, 15), st.integers(-1, 3), min_size=1, max_size=5)
    judged = {query: data.draw(grades) for query in range(len(rankings))}
    order = np.array(data.draw(st.permutations(range(len(rankings)))))
    got = measure(
        PassageLists.from_rows(range(len(rankings)), rankings), qrels_of(judged), order, NAMES
    )
    for name in NAMES:
        expected = [literal(name, rankings[query], judged[query]) for query in order]
        assert got[name] == pytest.approx(expected, abs=1e-6), name


def test_our_order_decides_whatever_the_identifiers():
    """Ids that sort against our order ("10" < "9" as text) do not move the relevant passage."""
    ranking = PassageLists.from_rows([0, 1], [[10, 9, 8], [8, 9, 10]])
    got = measure(
        ranking, qrels_of({0: {9: 1}, 1: {10: 1}}), np.array([0, 1]), ["RR@10", "Success@1"]
    )
    assert got["RR@10"] == pytest.approx([1 / 2, 1 / 3])
    assert got["Success@1"].tolist() == [0, 0]


def test_queries_without_results_count_zero_and_unjudged_ones_are_an_error():
    ranking = PassageLists.from_rows([2, 7], [[5], [6]])
    qrels = qrels_of({2: {5: 1}, 4: {5: 1}})
    assert measure(ranking, qrels, np.array([4, 2]), ["RR@10"])["RR@10"].tolist() == [0.0, 1.0]
    with pytest.raises(ValueError, match="first query_index 7"):
        measure(ranking, qrels, np.array([2, 7]), ["RR@10"])
    with pytest.raises(ValueError, match="cannot measure Judged@10"):
        measure(ranking, qrels, np.array([2]), ["Judged@10"])


def test_an_exponential_gain_counts_what_was_not_found_too():
    """Its provider reads words: a judged passage that is not in the list needs a name of one."""
    ranking = PassageLists.from_rows([0], [[5, 6]])
    (got,) = measure(
        ranking, qrels_of({0: {6: 2, 9: 3}}), np.array([0]), ['nDCG(dcg="exp-log2")@10']
    ).values()
    gain = (2**2 - 1) / math.log2(3)
    best = (2**3 - 1) / math.log2(2) + (2**2 - 1) / math.log2(3)
    assert got == pytest.approx([gain / best], abs=1e-4)


@pytest.mark.parametrize("name", ["RR", "nDCG", "AP", "RR(judged_only=True)@10", "Judged@10"])
def test_what_cannot_be_measured_is_known_before(name: str):
    with pytest.raises(ValueError, match="cannot measure"):
        parsed([name, "RR@10"])


@given(
    lists=st.lists(st.lists(st.integers(0, 9), unique=True, max_size=6), min_size=1, max_size=4),
    judged=st.dictionaries(
        st.integers(0, 4), st.dictionaries(st.integers(0, 9), st.integers(-2, 3), max_size=4)
    ),
)
def test_grades_are_looked_up_pair_by_pair(lists, judged):
    ranking = PassageLists.from_rows(range(len(lists)), lists)
    found = qrels_of(judged).grades(ranking).tolist()
    pairs = zip(ranking.queries.tolist(), ranking.passage_indices.tolist(), strict=True)
    assert found == [max(judged.get(q, {}).get(p, 0), 0) for q, p in pairs]


def test_thousands_of_deep_lists_are_measured_in_seconds():
    generator = np.random.default_rng(1)
    queries, depth = 2400, 1000
    passages = np.concatenate([generator.permutation(3000)[:depth] for _ in range(queries)])
    ranking = PassageLists.from_lengths(np.arange(queries), np.full(queries, depth), passages)
    relevant = generator.integers(0, 3000, queries)
    qrels = qrels_of({query: {int(one): 1} for query, one in enumerate(relevant)})
    start = time.perf_counter()
    got = measure(ranking, qrels, np.arange(queries), ["RR@10", "Success@1000", "nDCG@10"])
    assert time.perf_counter() - start < 10
    found = (passages.reshape(queries, depth) == relevant[:, None]).any(axis=1)
    assert got["Success@1000"].tolist() == found.astype(float).tolist()
