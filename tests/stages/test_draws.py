"""The stage `draws` against a literal reading of its inputs."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from pipeline.artifacts.kinds import NEGATIVE_POOLS, TOKENS, TRAINING_LISTS
from pipeline.dag.contract import Resources
from pipeline.methods.answers import contains
from pipeline.methods.statistics import bootstrap_interval
from pipeline.stages import draw_systems, registry, tables
from tests.benches import Bench, Made

PASSAGES, QUERIES, EPOCHS, SEED = 40, 6, 7, 5
POSITIVES = [(query, query) for query in range(QUERIES)] + [(0, 30)]
# Passage 21 reads like passage 20. Query 5 hides nothing.
HIDDEN = [(0, 20), (0, 22), (1, 23), (2, 24), (3, 25), (4, 26)]
ANSWERS = {0: ["kiwi"], 1: ["plum"], 2: ["kiwi", "none"], 5: ["kiwi"]}
TEXTS = ["a kiwi" if number % 3 == 0 else "a stone" for number in range(PASSAGES)]


class World:
    def __init__(self, bench: Bench, **given) -> None:
        self.bench = bench
        empty = pa.array([[]] * PASSAGES, pa.list_(pa.int32()))
        hashes = [20 if number == 21 else number for number in range(PASSAGES)]
        tokens = pa.table(
            {"title_ids": empty, "text_ids": empty, "content_hash": pa.array(hashes, pa.int64())}
        )
        pairs = {"hidden_qrels": HIDDEN, "answers": ANSWERS, **given}
        self.wired = {
            "dataset": bench.dataset(
                TEXTS, ["train"] * QUERIES, POSITIVES, rows_per_shard=7, **pairs
            ),
            "tokens": bench.given(TOKENS, {"passages": [tokens]}),
        }

    def pools(self, rows: dict[tuple[int, int], list[int]], scores=None, weights=None):
        lengths = [len(row) for row in rows.values()]
        flat = scores or [[float(-place) for place in range(length)] for length in lengths]
        table = pa.table(
            {
                "query_index": pa.array([query for query, _ in rows], pa.int32()),
                "positive": pa.array([positive for _, positive in rows], pa.int32()),
                "positive_score": pa.array([-1.5] * len(rows), pa.float32()),
                "positive_rank": pa.array([99] * len(rows), pa.int32()),
                "passage_index": pa.array(list(rows.values()), pa.list_(pa.int32())),
                "score": pa.array(flat, pa.list_(pa.float32())),
                "log_weight": pa.array(
                    weights or [[0.0] * length for length in lengths], pa.list_(pa.float32())
                ),
            }
        )
        documents = {"pools.json": {"one_row_per_query": True}}
        shards = [table.slice(0, 2), table.slice(2)]
        return self.bench.given(NEGATIVE_POOLS, {"pools": shards}, documents)

    def lists(self, rows: dict[int, list[int]], positive: int = 0):
        table = pa.table(
            {
                "query_index": pa.array(list(rows), pa.int32()),
                "positives": pa.array([[positive]] * len(rows), pa.list_(pa.int32())),
                "negatives": pa.array(list(rows.values()), pa.list_(pa.int32())),
            }
        )
        return self.bench.given(TRAINING_LISTS, {"lists": [table]})

    def draws(self, pools, lists=(), **params):
        names = [f"system {number}" for number in range(len(pools) + len(lists))]
        given = {"names": names, "num_negatives": 3, "epochs": EPOCHS, **params}
        wired = {**self.wired, "pools": pools, **({"lists": list(lists)} if lists else {})}
        return self.bench.run("draws", given, seed=SEED, **wired)


@pytest.fixture
def world(bench: Bench) -> World:
    return World(bench)


def rows(*queries: int, seed: int = 0) -> dict[tuple[int, int], list[int]]:
    """Pools of eight passages around those with hidden labels, one for each positive."""
    draw = np.random.default_rng(seed)
    return {
        pair: draw.permutation(np.arange(15, 30))[:8].tolist()
        for pair in sorted(POSITIVES)
        if pair[0] in queries
    }


def counted(artifact, false) -> dict[int, tuple[int, int]]:
    """Query -> drawn and false negatives, by a loop over the epochs' draws."""
    pools = tables.pools_of(artifact)
    found: dict[int, list[int]] = {}
    for epoch in range(EPOCHS):
        mask = pools.draw(3, SEED, epoch)
        for query, passage in zip(
            pools.lists.queries[mask], pools.lists.passage_indices[mask], strict=True
        ):
            own = found.setdefault(int(query), [0, 0])
            own[0] += 1
            own[1] += (int(query), int(passage)) in false
    return {query: (drawn, wrong) for query, (drawn, wrong) in found.items()}


def shares(made) -> dict[str, dict[int, tuple[int, int]]]:
    found: dict[str, dict[int, tuple[int, int]]] = {}
    for row in made.read("shares").to_pylist():
        pair = (row["drawn"], row["false_negatives"])
        found.setdefault(row["system"], {})[row["query_index"]] = pair
    return found


def test_shares_of_hidden_labels_against_a_loop(world: World) -> None:
    first = world.pools(rows(0, 1, 2, 3, 5), weights=[[float(n) for n in range(8)]] * 6)
    second = world.pools(rows(0, 1, 2, 4, 5, seed=1))
    written = world.lists({0: [20, 2, 3, 4, 22, 6, 7], 1: [1, 2, 3], 2: [24, 5], 5: [1, 2, 3]})
    made = world.draws([first, second], [written])
    false = {*HIDDEN, (0, 21)}
    found = shares(made)
    assert list(found) == ["system 0", "system 1", "system 2"]
    # 3 and 4 lack a pool, 2 a list long enough, 5 a hidden label.
    for name, artifact in (("system 0", first), ("system 1", second)):
        expected = counted(artifact, false)
        assert found[name] == {query: expected[query] for query in (0, 1)}
        assert sum(wrong for _, wrong in found[name].values()) > 0
    # A list gives the same rows in every epoch, and what does not fill a row is left over.
    assert found["system 2"] == {0: (6 * EPOCHS, 2 * EPOCHS), 1: (3 * EPOCHS, 0)}
    document = made.document("draws.json")
    for name, own in found.items():
        told = document["systems"][name]
        of_queries = np.array([wrong / drawn for drawn, wrong in own.values()])
        assert told["share"] == pytest.approx(of_queries.mean())
        assert (told["low"], told["high"]) == pytest.approx(bootstrap_interval(of_queries))
        assert told["false_negatives"] == sum(wrong for _, wrong in own.values())
    assert document["systems"]["system 2"]["queries_with_false_negatives"] == 0.5
    assert document["systems"]["system 2"]["mean_rank"] is None
    outcome = world.bench.outcome(made)
    assert (outcome.rows_in, outcome.rows_out) == (6, 2)
    assert outcome.dropped == {"not in every system": 3, "without a hidden label": 1}
    assert "system 2" in outcome.report


def test_answers_judge_what_is_not_labelled(world: World, monkeypatch) -> None:
    monkeypatch.setattr(draw_systems, "_TEXTS", 7)
    taken = {pair: [*row, 0, 30] for pair, row in rows(0, 1, 2, 3, 5).items()}
    pools = world.pools(taken)
    found = shares(world.draws([pools], judge="answers"))["system 0"]
    false = {
        (query, passage)
        for (query, _), row in taken.items()
        for passage in row
        if contains(TEXTS[passage], ANSWERS.get(query, [])) and (query, passage) not in POSITIVES
    }
    expected = counted(pools, false)
    assert found == {query: expected[query] for query in (0, 1, 2, 5)}
    assert found[1][1] == 0 and found[0][1] > 0
    assert (0, 30) not in false and (2, 30) in false


def test_probabilities_by_rank(world: World) -> None:
    """Ranks are by score, wherever an entry stands; the positive is ranked among them."""
    chosen = {
        (0, 0): [1, 2, 3],
        (1, 1): [20, 1, 2, 3],
        (1, 30): [1, 2, 3, 4],
        (2, 2): [5, 6, 23, 7],
    }
    scores = [[1.0, 2.0, 3.0], [-3.0, 1.0, -1.0, float("nan")], [0.0] * 4, [4.0, 3.0, 2.0, 1.0]]
    weights = [[0.0] * 3, [0.0, 1.0, 2.0, 3.0], [0.0] * 4, [-800.0, -800.0, -801.0, -802.0]]
    whole = world.pools(chosen, scores, weights)
    other = world.pools({(2, 2): [9, 10, 11], (1, 1): [1, 2, 3]})
    written = world.lists({1: [1, 2, 3], 2: [1, 2, 3]}, positive=39)
    made = world.draws([whole, other], [written], sampled_queries=2)
    found = made.read("probabilities").to_pylist()
    own = [row for row in found if row["system"] == "system 0"]
    # Query 0 and the pair (1, 30) are not in both.
    assert [(row["query_index"], row["rank"]) for row in own] == [
        *((1, rank) for rank in range(1, 5)),
        *((2, rank) for rank in range(1, 5)),
    ]
    assert {row["query_index"]: row["positive_rank"] for row in own} == {1: 3, 2: 5}
    by_rank = np.exp([1.0, 2.0, 0.0, 3.0])
    assert [row["probability"] for row in own[:4]] == pytest.approx(by_rank / by_rank.sum())
    assert sum(row["probability"] for row in own[4:]) == pytest.approx(1)
    pools = tables.pools_of(whole)
    times = sum(pools.draw(3, SEED, epoch).astype(int) for epoch in range(EPOCHS))
    assert [row["inclusion"] * EPOCHS for row in own[:4]] == pytest.approx(times[[4, 5, 3, 6]])
    assert [row["inclusion"] for row in found if row["system"] == "system 1"] == [1.0] * 6
    sampled = made.document("draws.json")["sampled"]
    assert [(one["query_id"], one["positive"]) for one in sampled] == [("q1", 1), ("q2", 2)]
    assert world.draws([whole, other], sampled_queries=0).rows("probabilities") == 0


def test_pools_are_drawn_from_as_they_were_made_to_be(world: World) -> None:
    table = world.pools(rows(0, 1)).read("pools")
    documents = {"pools.json": {"one_row_per_query": True}}
    made = Made("pool", params={"num_negatives": 4})
    pools = world.bench.given(NEGATIVE_POOLS, {"pools": [table]}, documents, made=made)
    assert world.draws([pools], num_negatives=4).rows("shares") == 2
    with pytest.raises(ValueError, match="for draws of 4 negatives, and num_negatives is 3"):
        world.draws([pools])


@pytest.mark.parametrize(
    ("judge", "message"),
    [("hidden_qrels", "`training_positives`"), ("answers", "comes with answers")],
)
def test_nobody_can_judge(bench: Bench, judge: str, message: str) -> None:
    world = World(bench, hidden_qrels=[], answers={})
    with pytest.raises(ValueError, match=message):
        world.draws([world.pools(rows(0, 1))], judge=judge)


def test_names_are_one_for_each() -> None:
    read = registry()["draws"].params.model_validate
    with pytest.raises(ValidationError, match="'a' is given twice"):
        read({"names": ["a", "b", "a"]})
    (found,) = read({"names": ["a"]}).mismatches({"pools": 1, "lists": 1}, Resources())
    assert "2 pools and lists are wired and 1 names given" in found
    assert not read({"names": ["a", "b"]}).mismatches({"pools": 1, "lists": 1}, Resources())
