"""Folds: queries are scored by a model that was trained on none of them (cross-fitting)."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.artifacts.kinds import TOKENS
from pipeline.dag.contract import Resources
from pipeline.stages import registry
from tests.benches import Bench, embeddings
from tests.stages.test_search_stages import token_table

PASSAGES, FOLDS = 40, 3
TRAIN = 20
SPLITS = ["train"] * TRAIN + ["dev"] * 6
# Queries 0, 1 and 2 are joined by the passages 0 and 1; 30 reads like 3, the positive of query 3,
# and is that of query 16; queries 5 and 12 have the same text. Query 19 has no label.
POSITIVES = [
    *[(0, 0), (1, 0), (1, 1), (2, 1), (3, 3), (16, 30)],
    *[(query, query + 1) for query in range(4, 19) if query != 16],
    # What a split of its own shares with the training queries joins nothing.
    *[(query, query - TRAIN) for query in range(TRAIN, len(SPLITS))],
]
TOGETHER = [{0, 1, 2}, {3, 16}, {5, 12}]
TEXTS = [f"query {query}" for query in range(len(SPLITS))]
# Case does not count.
TEXTS[5], TEXTS[12] = "same", "Same"
HASHES = [3 if passage == 30 else passage for passage in range(PASSAGES)]


class World:
    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        draw = np.random.default_rng(4)
        self.wired = {
            "dataset": bench.dataset(["-"] * PASSAGES, SPLITS, POSITIVES, texts=TEXTS),
            "tokens": bench.given(TOKENS, token_table(PASSAGES, HASHES)),
        }
        vectors = [draw.integers(-3, 4, (rows, 5)) for rows in (len(SPLITS), PASSAGES)]
        self.vectors = embeddings(bench, *vectors, 11, 7)

    def mine(self, fold=None, **depths):
        params = {"depths": depths or {"train": 9}, "queries_per_shard": 4}
        params |= {"fold": fold} if fold else {}
        return self.bench.run("mine", params, embeddings=self.vectors, **self.wired)

    def sample(self, fold=None):
        params = {"source": "corpus", "num_negatives": 2, **({"fold": fold} if fold else {})}
        return self.bench.run("sample", params, **self.wired)


@pytest.fixture
def world(bench: Bench) -> World:
    return World(bench)


def fold(number: int, keep: str) -> dict:
    return {"number": number, "of": FOLDS, "keep": keep}


def queries(artifact, table: str) -> set[int]:
    found = artifact.read(table)["query_index"].to_pylist()
    assert len(found) == len(set(found))
    return set(found)


def test_folds_partition_a_splits_queries(world: World) -> None:
    inside = [queries(world.mine(fold(n, "inside")), "candidates") for n in (1, 2, 3)]
    assert sorted(query for part in inside for query in part) == list(range(TRAIN))
    assert max(map(len, inside)) - min(map(len, inside)) <= 3
    for joined in TOGETHER:
        assert sum(bool(joined & part) for part in inside) == 1
    for number, part in enumerate(inside, 1):
        outside = queries(world.mine(fold(number, "outside")), "candidates")
        assert outside == set(range(TRAIN)) - part


def test_what_is_scored_was_not_trained_on(world: World) -> None:
    for number in (1, 2, 3):
        trained = world.sample(fold(number, "outside")).read("lists").to_pylist()
        scored = queries(world.mine(fold(number, "inside")), "candidates")
        assert {row["query_index"] for row in trained} == set(range(19)) - scored
        own = {HASHES[passage] for query, passage in POSITIVES if query in scored}
        learnt = {HASHES[passage] for row in trained for passage in row["positives"]}
        assert not own & learnt
        texts = {TEXTS[row["query_index"]].casefold() for row in trained}
        assert not {TEXTS[query].casefold() for query in scored} & texts


def test_a_querys_lists_and_candidates_are_those_of_all_queries(world: World) -> None:
    """A fold leaves queries out, and changes nothing of the others."""
    for made, keep, table in (
        (world.sample, "outside", "lists"),
        (world.mine, "inside", "candidates"),
    ):
        whole = {row["query_index"]: row for row in made().read(table).to_pylist()}
        part = made(fold(2, keep)).read(table).to_pylist()
        assert 0 < len(part) < len(whole)
        assert all(whole[row["query_index"]] == row for row in part)


def test_queries_of_other_folds_are_counted(world: World) -> None:
    found = world.mine(fold(1, "inside"), train=9, dev=4)
    outcome = world.bench.outcome(found)
    assert outcome.rows_in == len(SPLITS) == outcome.rows_out + outcome.dropped["other folds"]
    assert outcome.rows_out == len(queries(found, "candidates"))
    lists = world.bench.outcome(world.sample(fold(1, "outside")))
    assert lists.rows_in == TRAIN == lists.rows_out + sum(lists.dropped.values())
    assert set(lists.dropped) == {"other folds", "no positive"}
    assert not world.bench.outcome(world.mine()).dropped


def test_the_pool_of_all_folds_is_that_of_all_queries(world: World) -> None:
    """The same vectors in every fold, so that nothing but the folds could differ."""
    params = {"num_negatives": 3, "sampler": {"name": "simans"}}
    parts = [world.mine(fold(n, "inside")) for n in (1, 2, 3)]
    folded = world.bench.run(
        "pool", params, candidates=parts, embeddings=[world.vectors] * 3, **world.wired
    )
    whole = world.bench.run(
        "pool", params, candidates=world.mine(), embeddings=world.vectors, **world.wired
    )
    rows = [
        {(row["query_index"], row["positive"]): row for row in pool.read("pools").to_pylist()}
        for pool in (folded, whole)
    ]
    assert rows[0] == rows[1]
    assert {query for query, _ in rows[0]} == set(range(19))


@pytest.mark.parametrize("stage", ["sample", "mine"])
def test_a_fold_beyond_the_last_is_a_mistake_and_none_is_in_no_key(stage: str) -> None:
    params = registry()[stage].params
    source = {"source": "corpus"} if stage == "sample" else {}
    wrong = params.model_validate({**source, "fold": {"number": 3, "of": 2, "keep": "inside"}})
    assert list(wrong.mismatches({}, Resources())) == ["fold 3 of 2 folds"]
    right = params.model_validate({**source, "fold": {"number": 2, "of": 2, "keep": "inside"}})
    assert not right.mismatches({}, Resources())
    assert "fold" not in params.model_validate(source).model_dump()
