from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml

from pipeline.artifacts.kinds import (
    BASE_MODEL,
    CANDIDATES,
    EMBEDDINGS,
    JOINT_MODELS,
    RANKER,
    RETRIEVER,
    SCORED_CANDIDATES,
)
from pipeline.dag.specification import read_pipeline
from pipeline.dag.yaml_nodes import SpecificationError
from pipeline.methods.lists import PassageLists
from pipeline.methods.metrics import Qrels
from pipeline.stages import registry, tables
from pipeline.stages.lineage import optimiser_steps
from pipeline.stages.runs import runs_of
from tests.benches import Bench, Made

PROJECT = Path(__file__).parents[2]
# Queries 0-3 are validation, 4-7 dev; 7 is not judged.
SPLITS = ["validation"] * 4 + ["dev"] * 4
QRELS = [(q, q) for q in range(7)]
TEXTS = [f"passage {number} says {number * 11}" for number in range(20)]


def run_of(bench: Bench, rows, scores=None, ranker=None, made=None):
    """Candidates; without scores, falling ones."""
    falling = {q: [10.0 - rank for rank in range(len(found))] for q, found in rows.items()}
    columns = {
        "query_index": pa.array(list(rows), pa.int32()),
        "passage_index": pa.array(list(rows.values()), pa.list_(pa.int32())),
        "score": pa.array([(scores or falling)[q] for q in rows], pa.list_(pa.float32())),
    }
    if ranker is None:
        return bench.given(CANDIDATES, {"candidates": [pa.table(columns)]}, made=made)
    columns["ranker_score"] = pa.array([ranker[q] for q in rows], pa.list_(pa.float32()))
    return bench.given(SCORED_CANDIDATES, {"candidates": [pa.table(columns)]}, made=made)


def at_rank(rank: int | None, query: int, depth: int = 12) -> list[int]:
    """A list with the query's positive at a rank, or nowhere."""
    others = list(range(8, 8 + depth))
    if rank is not None:
        others.insert(rank - 1, query)
    return others[:depth]


def evaluated(bench: Bench, dataset, runs, **params):
    artifact = bench.run("evaluate", params, dataset=dataset, runs=runs)
    return artifact, artifact.document("metrics.json")


@pytest.fixture
def dataset(bench):
    return bench.dataset(TEXTS, SPLITS, QRELS, rows_per_shard=6)


def test_measures_by_hand(bench, dataset):
    ranks = {0: 1, 1: 4, 2: 11, 3: None, 4: 2, 5: 2}
    # Query 6 is judged and has no candidates: it counts 0; query 7 is not judged: left out.
    run = run_of(bench, {q: at_rank(rank, q) for q, rank in ranks.items()})
    measures = ["RR@10", "Success@1", "Success@5", "nDCG@10", "R@12", "Success@50"]
    artifact, document = evaluated(bench, dataset, [run], names=["one"], measures=measures)

    def mean(split: str, measure: str) -> float:
        return document["splits"][split]["systems"]["one"][measure]["mean"]

    sizes = {name: found["judged_queries"] for name, found in document["splits"].items()}
    assert sizes == {"validation": 4, "dev": 3} and document["splits"]["dev"]["queries"] == 4
    assert mean("validation", "RR@10") == pytest.approx((1 + 1 / 4) / 4)
    assert mean("validation", "Success@1") == 1 / 4 and mean("validation", "Success@5") == 2 / 4
    assert mean("validation", "R@12") == 3 / 4
    assert mean("validation", "nDCG@10") == pytest.approx((1 + 1 / math.log2(5)) / 4)
    assert mean("dev", "RR@10") == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)
    # The run is 12 deep: what looks deeper is left out rather than understated.
    assert "Success@50" not in document["splits"]["dev"]["systems"]["one"]
    values = {
        (row["query_index"], row["measure"]): row["value"]
        for row in artifact.read("per_query").to_pylist()
    }
    assert values[1, "RR@10"] == 0.25 and values[2, "RR@10"] == 0 and values[6, "RR@10"] == 0
    assert (7, "RR@10") not in values


def test_groups_are_tables_over_their_queries_only(bench, dataset):
    ranks = {0: 1, 1: 4, 2: 2, 3: None, 4: 2, 5: 5}
    run = run_of(bench, {q: at_rank(rank, q) for q, rank in ranks.items()})
    groups = {"even": ["q0", "q2", "q4", "q6"], "late": ["q5", "q7"]}
    _, document = evaluated(bench, dataset, [run], names=["one"], groups=groups)
    found = {
        (split, group): (values["queries"], values["systems"]["one"]["RR@10"]["mean"])
        for split, one in document["splits"].items()
        for group, values in one["groups"].items()
    }
    assert found == {
        ("validation", "even"): (2, pytest.approx((1 + 1 / 2) / 2)),
        ("dev", "even"): (2, pytest.approx((1 / 2 + 0) / 2)),
        # Query 7 is in the group and not judged: no measure of rank counts it.
        ("dev", "late"): (2, pytest.approx(1 / 5)),
    }


def test_reranked_run_is_by_the_ranker_then_by_the_retriever(bench, dataset):
    rows = {q: [8, 9, q, 10, 11] for q in range(7)}
    nan = float("nan")
    ranker = {q: [0.5, 0.5, 2.0, nan, nan] for q in range(7)}
    run = run_of(bench, rows, ranker=ranker)
    params = {"names": ["one"], "measures": ["RR@5"], "compared": "RR@5"}
    artifact, document = evaluated(bench, dataset, [run], **params)
    systems = document["splits"]["dev"]["systems"]
    assert systems["one"]["RR@5"]["mean"] == pytest.approx(1 / 3)
    assert systems["one + ranker"]["RR@5"]["mean"] == 1
    lines = (artifact.folder("runs") / "dev" / "00_one_ranker.trec").read_text().splitlines()
    fields = [line.split(" ") for line in lines[:5]]
    # Of equal scores the lower passage index first; those without a score keep their order below.
    assert [row[2] for row in fields] == ["p4", "p8", "p9", "p10", "p11"]
    assert [row[3] for row in fields] == ["1", "2", "3", "4", "5"]
    assert all(row[:2] == ["q4", "Q0"] and row[5] == "one_ranker" for row in fields)
    scores = [float(row[4]) for row in fields]
    assert all(above > below for above, below in pairwise(scores)), "ties are broken in our order"


def test_trec_files_read_by_ir_measures_give_our_numbers(bench, dataset):
    import ir_measures
    from ir_measures import RR, Qrel, Success

    draw = np.random.default_rng(4)
    rows, ties = {}, {}
    for query in range(7):
        found = [query, *draw.choice(range(8, 20), 9, replace=False).tolist()]
        scores = draw.integers(0, 3, 10).astype(float)
        order = sorted(range(10), key=lambda at: (-scores[at], found[at]))
        rows[query] = [found[at] for at in order]
        ties[query] = [scores[at] for at in order]
    run = run_of(bench, rows, scores=ties)
    params = {"names": ["one"], "measures": ["RR@10", "Success@5"]}
    artifact, document = evaluated(bench, dataset, [run], **params)
    qrels = [Qrel(f"q{q}", f"p{p}", 1) for q, p in QRELS]
    for split, first, last in (("validation", 0, 4), ("dev", 4, 7)):
        path = artifact.folder("runs") / split / "00_one.trec"
        own = document["splits"][split]["systems"]["one"]
        theirs = ir_measures.calc_aggregate(
            [RR @ 10, Success @ 5], qrels[first:last], list(ir_measures.read_trec_run(str(path)))
        )
        assert own["RR@10"]["mean"] == pytest.approx(theirs[RR @ 10])
        assert own["Success@5"]["mean"] == pytest.approx(theirs[Success @ 5])


def test_the_weight_of_the_mix_comes_from_validation_alone(bench, dataset):
    """On validation only the retriever is right, on dev only the ranker."""
    rows, ranker = {}, {}
    for query in range(7):
        right_first = SPLITS[query] == "validation"
        rows[query] = [query, 8, 9] if right_first else [8, 9, query]
        ranker[query] = [0.0, 1.0, 2.0] if right_first else [0.0, 0.0, 9.0]
    run = run_of(bench, rows, ranker=ranker)
    artifact, document = evaluated(
        bench, dataset, [run], names=["one"], measures=["RR@3"], compared="RR@3"
    )
    assert document["weights"] == {"0": 0.0}
    dev = document["splits"]["dev"]["systems"]
    assert dev["one + ranker"]["RR@3"]["mean"] == 1
    mixed = dev["one + ranker and retriever mixed"]["RR@3"]["mean"]
    assert mixed == pytest.approx(1 / 3), "the mix follows validation, though dev would gain"
    (warning,) = bench.outcome(artifact).warnings
    assert "on validation the ranker alone" in warning and "does not rank better" in warning
    _, only_dev = evaluated(
        bench, dataset, [run], names=["one"], measures=["RR@3"], compared="RR@3", splits=["dev"]
    )
    assert only_dev["weights"] == {}


def test_seeds_of_one_name_are_averaged_and_compared(bench, dataset):
    good = [run_of(bench, {q: at_rank(1, q) for q in range(7)}) for _ in range(3)]
    poor = [run_of(bench, {q: at_rank(10, q) for q in range(7)}) for _ in range(3)]
    names = ["poor", "good"] * 3
    runs = [run for pair in zip(poor, good, strict=True) for run in pair]
    params = {"names": names, "measures": ["RR@10", "Success@5"]}
    artifact, document = evaluated(bench, dataset, runs, **params)
    system = document["splits"]["validation"]["systems"]["good"]["RR@10"]
    assert system == {"mean": 1.0, "deviation": 0.0, "seeds": 3}
    (compared,) = document["splits"]["validation"]["comparisons"]
    assert (compared["first"], compared["second"]) == ("good", "poor")
    assert compared["difference"] == pytest.approx(0.9)
    # Four queries can never reach 0.05: 2 of 16 sign patterns are as extreme.
    assert compared["p_value"] == pytest.approx(1 / 8, abs=0.02)
    assert compared["verdict"] == "inconclusive"
    assert "inconclusive" in bench.outcome(artifact).report
    assert {row["run"] for row in artifact.read("per_query").to_pylist()} == {
        f"{name}#{seed}" for name in ("good", "poor") for seed in range(3)
    }


def test_a_count_names_as_many_seeds_in_a_row(bench, dataset):
    ranks = [{q: at_rank(1 + (q + seed) % 3, q) for q in range(7)} for seed in range(3)]
    runs = [run_of(bench, lists) for lists in ranks]
    _, counted = evaluated(bench, dataset, runs, names=["first", {"others": 2}])
    _, written = evaluated(bench, dataset, runs, names=["first", "others", "others"])
    assert counted == written
    systems = counted["splits"]["dev"]["systems"]
    assert {name: found["RR@10"]["seeds"] for name, found in systems.items()} == {
        "first": 1,
        "others": 2,
    }


def test_answers_are_looked_for_in_the_text(bench):
    # The title of passage 1, at rank 1, holds what query 5 asks for: titles are not looked at.
    titles = ["11 says" if number == 1 else "" for number in range(len(TEXTS))]
    answers = {4: ["77"], 5: ["11 says"]}
    dataset = bench.dataset(TEXTS, SPLITS, QRELS, titles=titles, answers=answers)
    run = run_of(bench, {q: [1, 2, 7, 3, 4, 8] for q in range(7)})
    params = {
        "names": ["one"],
        "measures": ["RR@5"],
        "compared": "RR@5",
        "answer_depths": [1, 3, 5, 20],
    }
    artifact, document = evaluated(bench, dataset, [run], **params)
    found = document["splits"]["dev"]["systems"]["one"]
    # Query 4's answer is said by passage 7, at rank 3; "11 says" stands nowhere; 6 has no answer.
    assert found["answer@1"]["mean"] == 0 and found["answer@3"]["mean"] == 0.5
    assert found["answer@5"]["mean"] == 0.5 and "answer@20" not in found
    assert document["splits"]["dev"]["queries_without_answers"] == 2
    assert "dev (3 judged queries, 2 with answers)" in bench.outcome(artifact).report


def test_a_claim_and_the_mix_can_be_by_answers(bench):
    """Passage q answers query q; the ranker is wrong on validation, the retriever on dev."""
    answers = {q: [str(q * 11)] for q in (1, 2, 4, 5, 6, 7)}
    dataset = bench.dataset(TEXTS, SPLITS, QRELS, answers=answers)
    rows = {q: [q, 9, 10] if SPLITS[q] == "validation" else [9, 10, q] for q in range(8)}
    ranker = {q: [0.0, 1.0, 2.0] for q in rows}
    runs = [
        run_of(bench, {q: [9, 10, 11] for q in range(8)}),
        run_of(bench, rows, ranker=ranker),
    ]
    params = {"measures": ["RR@3"], "answer_depths": [1, 3], "compared": "answer@1"}
    artifact, document = evaluated(bench, dataset, runs, names=["none", "one"], **params)
    assert document["weights"] == {"1": 0.0}
    assert document["splits"]["dev"]["systems"]["one + ranker"]["answer@1"]["mean"] == 1
    first, second = document["splits"]["validation"]["comparisons"]
    assert (first["first"], first["second"], first["difference"]) == ("one", "none", 1)
    assert (second["first"], second["difference"]) == ("one + ranker", -1)
    (warning,) = bench.outcome(artifact).warnings
    assert "answer@1 0.000" in warning and "(1.000)" in warning


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"names": ["one"]}, "2 runs are wired and 1 names given"),
        ({"names": [{"one": 3}]}, "2 runs are wired and 3 names given"),
        ({"names": [{"one": 0}, "two"]}, "greater than or equal to 1"),
        # In a key a mapping has no order: `{b: 1, a: 1}` would be taken for the same.
        ({"names": [{"b": 1, "a": 1}]}, "a mapping of one name: write [a: 1, b: 1]"),
        ({"names": [{}, "two"]}, "a mapping of one name: write [NAME: n]"),
        ({"names": ["a", "b"], "untrained": ["c"]}, "untrained: no 'c' among a, b"),
        ({"names": ["a", "b"], "shown": ["RR@7"]}, "shown: no 'RR@7' among RR@10"),
        ({"names": ["a", "b"], "compared": "RR@7"}, "compared: no 'RR@7'"),
        ({"names": ["a", "b"], "comparisons": [["a", "c"]]}, "comparisons: no 'c' among a, b"),
        ({"names": ["a", "b"], "comparisons": [["a"]]}, "pairs of two names"),
        ({"names": ["a", "b"], "measures": ["RR@10", "XX@5"]}, "cannot measure XX@5"),
        ({"names": ["a", "b"], "measures": ["RR@10", "P"]}, "cannot measure P"),
        ({"names": ["a", "b"], "measures": ["RR@10", "MRR@10"]}, "are the same measure"),
    ],
)
def test_what_cannot_be_evaluated_is_said_before_anything_runs(tmp_path, params, message):
    file = tmp_path / "pipeline.yaml"
    given = {"untrained": [], **params}
    stages = {"evaluation": {"inputs": {"runs": ["bm25", "base_run"]}, "params": given}}
    recipe = {"extends": str(PROJECT / "pipeline.yaml"), "stages": stages}
    file.write_text(yaml.safe_dump(recipe))
    with pytest.raises(SpecificationError, match=re.escape(message)):
        read_pipeline(file, registry())


def test_a_perfect_ranker_reaches_what_was_scored_and_no_further(bench, dataset):
    ranks = {0: 1, 1: 3, 2: 4, 3: None, 4: 2, 5: 4, 6: 5}
    rows = {q: at_rank(rank, q, depth=6) for q, rank in ranks.items()}
    ranker = {q: [0.1, 0.2, 0.3] + [math.nan] * 3 for q in rows}
    run = run_of(bench, rows, ranker=ranker)
    params = {"names": ["one"], "measures": ["RR@6"], "compared": "RR@6"}
    artifact, document = evaluated(bench, dataset, [run], **params)
    systems = document["splits"]["validation"]["systems"]
    assert systems["one + perfect ranker"]["RR@6"]["mean"] == pytest.approx((1 + 1 + 1 / 4) / 4)
    assert document["splits"]["dev"]["reachable"] == {
        "one": {"depth": 3, "share": pytest.approx(1 / 3)}
    }
    told = "one: a relevant passage among the 3 re-ranked for 50.0% of the judged queries"
    assert told in bench.outcome(artifact).report


def test_a_perfect_ranker_sorts_by_relevance():
    """Of graded judgements, too: whatever ranks else, no measure is higher."""
    lists = PassageLists.from_rows([0], [[1, 2, 3, 4, 5]])
    ranker = np.array([9.0, 8.0, 7.0, 6.0, np.nan], np.float32)
    found = tables.Candidates(lists, -np.arange(5.0), ranker)
    judged = {1: 1, 3: 3, 4: 2, 5: 3}
    passages = np.array(list(judged), np.int32)
    grades = np.array(list(judged.values()), np.int32)
    qrels = Qrels(np.zeros(4, np.int32), passages, grades)
    *_, perfect = runs_of("one", found, 5, qrels, None)
    assert perfect.lists.passage_indices.tolist() == [3, 4, 1, 2, 5]


def test_searches_without_their_positives_are_not_measured(bench, dataset):
    made = Made("mine", {"depths": {"dev": 12, "validation": 12}, "remove_positives": ["dev"]})
    run = run_of(bench, {q: at_rank(None, q) for q in range(8)}, made=made)
    with pytest.raises(ValueError, match="one: the positives of dev were taken out"):
        evaluated(bench, dataset, [run], names=["one"])
    evaluated(bench, dataset, [run], names=["one"], splits=["validation"])


def test_nothing_is_claimed_of_a_mix_where_its_weight_was_chosen(bench):
    """The ranker is right and the retriever wrong, on twelve queries of either split."""
    texts = [f"passage {number}" for number in range(40)]
    splits = ["validation"] * 12 + ["dev"] * 12
    dataset = bench.dataset(texts, splits, [(q, q) for q in range(24)])
    rows = {q: [30, 31, q] for q in range(24)}
    runs = [run_of(bench, rows, ranker={q: [0.0, 0.0, 9.0] for q in rows}) for _ in range(3)]
    pair = ["one + ranker and retriever mixed", "one"]
    params = {"names": [{"one": 3}], "measures": ["RR@3"], "compared": "RR@3"}
    _, document = evaluated(bench, dataset, runs, **params, comparisons=[pair])
    told = {split: found["comparisons"][0] for split, found in document["splits"].items()}
    assert told["dev"]["verdict"] == "first beats second"
    assert told["validation"]["verdict"] == "inconclusive"
    assert "weight was chosen on these queries" in told["validation"]["reason"]


# How deep a run goes ------------------------------------------------------------------------


def test_a_run_of_unknown_depth_goes_to_its_longest_list(bench, dataset):
    short = run_of(bench, {q: [q] for q in range(7)})
    long = run_of(bench, {q: at_rank(2, q) for q in range(7)})
    params = {"names": ["short", "long"], "measures": ["RR@10"]}
    artifact, document = evaluated(bench, dataset, [short, long], **params)
    systems = document["splits"]["dev"]["systems"]
    assert systems["long"]["RR@10"]["mean"] == 0.5 and systems["short"] == {}
    assert document["splits"]["dev"]["comparisons"] == []
    told = "long against short: not compared, short was searched to rank 1 only"
    assert told in bench.outcome(artifact).report


def test_a_search_that_found_few_passages_went_as_deep_as_it_was_asked_to(bench, dataset):
    depths = {"validation": 5, "dev": 50}
    found = run_of(bench, {q: [q] for q in range(7)}, made=Made("bm25", {"depths": depths}))
    scored = run_of(
        bench,
        {q: [q] for q in range(7)},
        ranker={q: [1.0] for q in range(7)},
        made=Made("score", inputs={"candidates": found}),
    )
    params = {"names": ["found", "scored"], "measures": ["RR@10", "Success@50"]}
    artifact, document = evaluated(bench, dataset, [found, scored], **params)
    for name in ("found", "scored", "scored + ranker"):
        values = document["splits"]["dev"]["systems"][name]
        assert values["RR@10"]["mean"] == values["Success@50"]["mean"] == 1
        assert document["splits"]["validation"]["systems"][name] == {}
    assert len(document["splits"]["dev"]["comparisons"]) == 2
    assert "searched to rank 5 only" in bench.outcome(artifact).report


def test_comparisons_that_cannot_be_made_say_why(bench):
    dataset = bench.dataset(TEXTS, ["validation", "dev"], [(0, 0)])
    runs = [run_of(bench, {q: at_rank(1, q) for q in range(2)}) for _ in range(2)]
    pairs = [["two", "one"], ["two + ranker", "two"]]
    artifact, _ = evaluated(bench, dataset, runs, names=["one", "two"], comparisons=pairs)
    report = bench.outcome(artifact).report
    assert "two + ranker against two: not compared, there is no run two + ranker" in report
    assert "two against one: not compared, no query has judged passages" in report


def test_nothing_measured_at_all_is_reported(bench):
    dataset = bench.dataset(TEXTS, ["validation", "dev"], [(0, 0)])
    empty = run_of(bench, {})
    artifact, document = evaluated(bench, dataset, [empty], names=["one"], splits=["dev"])
    assert document["splits"]["dev"]["systems"] == {"one": {}}
    assert artifact.rows("per_query") == 0
    assert "dev (0 judged queries)" in bench.outcome(artifact).report
    searched = run_of(bench, {}, made=Made("bm25", {"depths": {"validation": 20, "dev": 20}}))
    _, document = evaluated(bench, dataset, [searched], names=["one"])
    assert document["splits"]["validation"]["systems"]["one"]["RR@10"]["mean"] == 0


def test_the_default_measures_are_those_of_the_papers(bench, dataset):
    made = Made("mine", {"depths": {"validation": 1000, "dev": 1000}})
    run = run_of(bench, {q: at_rank(2, q) for q in range(7)}, made=made)
    _, document = evaluated(bench, dataset, [run], names=["one"])
    depths = (1, 5, 20, 50, 100, 1000)
    wanted = {"RR@10", "RR@100", "nDCG@10", *(f"Success@{depth}" for depth in depths)}
    assert wanted | {"R@50", "R@100", "R@1000"} == set(document["splits"]["dev"]["systems"]["one"])


# Equal optimiser steps ------------------------------------------------------------------------


class Models:
    """Models and runs that say how many steps they took and what they started from."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.base = bench.given(BASE_MODEL, made=Made("base_model"))

    def retriever(self, steps: int, base=None):
        inputs = {"base": base or self.base}
        made = Made("train_retriever", inputs=inputs, counts={"steps": steps})
        return self.bench.given(RETRIEVER, made=made)

    def ranker(self, steps: int, base):
        made = Made("train_ranker", inputs={"base": base}, counts={"steps": steps})
        return self.bench.given(RANKER, made=made)

    def run(self, retriever, rank: int):
        vectors = self.bench.given(EMBEDDINGS, made=Made("encode", inputs={"retriever": retriever}))
        rows = {q: at_rank(rank, q) for q in range(12)}
        made = Made("mine", {"depths": {"dev": 12}}, {"embeddings": vectors})
        return run_of(self.bench, rows, made=made)

    def scored(self, run, ranker):
        rows = {
            row["query_index"]: row["passage_index"] for row in run.read("candidates").to_pylist()
        }
        scores = {q: [float(passage == q) for passage in row] for q, row in rows.items()}
        made = Made("score", inputs={"candidates": run, "ranker": ranker})
        return run_of(self.bench, rows, ranker=scores, made=made)


@pytest.fixture
def models(bench):
    return Models(bench)


@pytest.fixture
def many(bench):
    """Enough dev queries for a claim."""
    texts = [f"passage {number}" for number in range(40)]
    return bench.dataset(texts, ["dev"] * 12, [(q, q) for q in range(12)])


def verdicts(bench: Bench, dataset, systems, **params) -> dict[str, str]:
    """Verdict and reason of each pair, for systems of three runs each."""
    names = [{name: len(runs)} for name, runs in systems.items()]
    runs = [run for own in systems.values() for run in own]
    _, document = evaluated(bench, dataset, runs, names=names, splits=["dev"], **params)
    return {
        f"{one['first']} - {one['second']}": f"{one['verdict']} {one['reason']}".strip()
        for one in document["splits"]["dev"]["comparisons"]
    }


def test_unlike_optimiser_steps_forbid_a_claim(bench, many, models):
    def runs(rank: int, *steps: int):
        return [models.run(models.retriever(one), rank) for one in steps]

    # 16 steps, and 10 more from there on.
    two_stages = [models.run(models.retriever(10, models.retriever(16)), 1) for _ in range(3)]
    systems = {
        "poor": runs(5, 26, 26, 26),
        "two stages": two_stages,
        "longer": runs(2, 1040, 1040, 1040),
        "uneven": runs(4, 26, 27, 26),
    }
    assert verdicts(bench, many, systems) == {
        "two stages - poor": "first beats second",
        "longer - two stages": "inconclusive unlike optimiser steps: longer took 1,040, two stages "
        "took 26",
        "uneven - longer": "inconclusive unlike optimiser steps: uneven took 26 to 27, longer took "
        "1,040",
    }


def test_what_was_not_trained_and_what_was_re_ranked_may_be_compared(bench, many, models):
    released = models.bench.given(
        RETRIEVER, made=Made("initial_retriever", inputs={"base": models.base})
    )
    trained = [models.retriever(26) for _ in range(3)]
    rankers = [models.ranker(48, base) for base in trained]
    scored = [
        models.scored(models.run(retriever, 3), ranker)
        for retriever, ranker in zip(trained, rankers, strict=True)
    ]
    longer = [models.run(models.retriever(26 + 26 + 48), 2) for _ in range(3)]
    systems = {"released": [models.run(released, 8)], "own": scored, "longer": longer}
    pairs = [["own", "released"], ["own + ranker", "own"], ["own + ranker", "longer"]]
    found = verdicts(bench, many, systems, untrained=["released"], comparisons=pairs)
    # The ranker's steps, and those of the retriever that it began as, count beside the retriever's.
    assert found == {" - ".join(pair): "first beats second" for pair in pairs}
    named = verdicts(bench, many, systems, untrained=["own"], comparisons=[["own", "longer"]])
    assert "own is named as untrained and took 26 steps" in named["own - longer"]


def test_both_models_of_a_joint_training_have_their_own_past(bench, models):
    start = models.retriever(350)
    inputs = {"retriever": start, "ranker": models.ranker(60, models.base)}
    joint = bench.given(JOINT_MODELS, made=Made("train_joint", {}, inputs, {"steps": 200}))
    made = {
        role: Made(f"joint_{role}", inputs={"joint": joint}) for role in ("retriever", "ranker")
    }
    run = models.run(bench.given(RETRIEVER, made=made["retriever"]), 1)
    scored = models.scored(run, bench.given(RANKER, made=made["ranker"]))
    assert optimiser_steps(scored, "retriever") == 350 + 200
    assert optimiser_steps(scored, "ranker") == 60 + 200


@pytest.mark.parametrize(
    ("params", "retriever", "ranker"),
    [
        # Twice 6 and 18, and once more 6 and 16.
        ({"turns": {"ranker": 6, "retriever": 18}, "teacher": "dynamic"}, 52, 18),
        ({"turns": None, "teacher": "dynamic"}, 70, 70),
        ({"turns": None, "teacher": "static"}, 70, 0),
    ],
    ids=["turns", "together", "static"],
)
def test_a_model_has_taken_the_steps_of_its_own_turns(bench, models, params, retriever, ranker):
    inputs = {"retriever": models.retriever(350), "ranker": models.ranker(60, models.base)}
    joint = bench.given(JOINT_MODELS, made=Made("train_joint", params, inputs, {"steps": 70}))
    made = {
        role: Made(f"joint_{role}", inputs={"joint": joint}) for role in ("retriever", "ranker")
    }
    run = models.run(bench.given(RETRIEVER, made=made["retriever"]), 1)
    scored = models.scored(run, bench.given(RANKER, made=made["ranker"]))
    assert optimiser_steps(scored, "retriever") == 350 + retriever
    assert optimiser_steps(scored, "ranker") == 60 + ranker


def test_steps_that_cannot_be_found_out_forbid_a_claim(bench, many, models):
    start = models.retriever(16)
    kept = [models.run(models.retriever(26), 5) for _ in range(3)]
    lost = [models.run(models.retriever(10, start), 1) for _ in range(3)]
    bench.store.delete(start.directory)
    found = verdicts(bench, many, {"kept": kept, "lost": lost})
    assert found["lost - kept"].endswith("the optimiser steps behind lost are not known")
