"""How far chosen negatives lie from their positives, against a literal reading of the lists."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipeline.artifacts.kinds import SCORED_CANDIDATES, TOKENS
from pipeline.stages import chosen_report
from tests.benches import Bench, embeddings

PASSAGES, QUERIES, DEPTH = 60, 7, 30
# Query 5 has no positive, query 6 no candidates. Query 0's first positive is among its candidates.
POSITIVES = [(0, 10), (0, 11), (1, 12), (2, 13), (3, 14), (4, 15), (6, 16)]
EXCLUDED = [(1, 20)]
PERCENT = {"5%": 0.05, "25%": 0.25, "50%": 0.5, "75%": 0.75, "95%": 0.95}


class World:
    """Random vectors, and candidates in another order than theirs, as BM25 would find them."""

    def __init__(self, bench: Bench) -> None:
        draw = np.random.default_rng(3)
        self.bench = bench
        self.queries = draw.integers(-4, 5, (QUERIES, 8))
        self.passages = draw.integers(-4, 5, (PASSAGES, 8))
        self.never = {
            query: {p for q, p in POSITIVES + EXCLUDED if q == query} for query in range(6)
        }
        self.found = {}
        for query in range(6):
            ranked = draw.permutation(PASSAGES)[:DEPTH].tolist()
            kept = [p for p in ranked if p not in self.never[query] or p == 10]
            self.found[query] = [*kept, 10] if query == 0 and 10 not in kept else kept
        # One candidate in three is no sure negative.
        logits = [draw.choice([-5.0, -5.0, 0.0], len(row)).tolist() for row in self.found.values()]
        columns = {
            "query_index": pa.array(list(self.found), pa.int32()),
            "passage_index": pa.array(list(self.found.values()), pa.list_(pa.int32())),
            "score": pa.array(
                [[-float(rank) for rank in range(len(row))] for row in self.found.values()],
                pa.list_(pa.float32()),
            ),
            "ranker_score": pa.array(logits, pa.list_(pa.float32())),
        }
        empty = pa.array([[]] * PASSAGES, pa.list_(pa.int32()))
        hashes = pa.array(range(PASSAGES), pa.int64())
        tokens = pa.table({"title_ids": empty, "text_ids": empty, "content_hash": hashes})
        self.wired = {
            "dataset": bench.dataset(
                ["-"] * PASSAGES, ["train"] * QUERIES, POSITIVES, excluded=EXCLUDED
            ),
            "tokens": bench.given(TOKENS, {"passages": [tokens]}),
            "candidates": bench.given(SCORED_CANDIDATES, {"candidates": [pa.table(columns)]}),
        }
        self.vectors = embeddings(bench, self.queries, self.passages, 25, 3)

    def metrics(self, stage: str, params: dict, **more):
        made = self.bench.run(stage, params, **self.wired, **more)
        return made.read("lists").to_pylist(), self.bench.outcome(made).metrics

    def score(self, query: int, passage: int) -> int:
        return int(self.queries[query] @ self.passages[passage])

    def expected(self, rows: list[dict]) -> dict:
        """What should be told of lists, pair by pair."""
        negatives, differences, positives, ranks = [], [], {}, {}
        for row in rows:
            query = row["query_index"]
            for positive in (p for q, p in POSITIVES if q == query):
                own = self.score(query, positive)
                others = [
                    self.score(query, p) for p in self.found[query] if p not in self.never[query]
                ]
                positives[query, positive] = own
                ranks[query, positive] = 1 + sum(other > own for other in others)
                scores = [self.score(query, p) for p in row["negatives"]]
                negatives += scores
                differences += [score - own for score in scores]
        values = list(ranks.values())
        return {
            "positive": list(positives.values()),
            "negative": negatives,
            "difference": differences,
            "first": np.mean([rank == 1 for rank in values]),
            "to 5": np.mean([2 <= rank <= 5 for rank in values]),
        }


@pytest.fixture
def world(bench: Bench) -> World:
    return World(bench)


def check(told: dict, expected: dict, prefix: str = "") -> None:
    for name in ("positive", "negative", "difference"):
        quantiles = np.quantile(expected[name], list(PERCENT.values()))
        found = told[f"{prefix}{name}_score"]
        assert found == pytest.approx(dict(zip(PERCENT, quantiles.tolist(), strict=True)))
    by_rank = told[f"{prefix}positives_by_rank"]
    assert by_rank["1"] == pytest.approx(expected["first"])
    assert by_rank["2-5"] == pytest.approx(expected["to 5"])
    assert sum(by_rank.values()) == pytest.approx(1)


STAGES = {
    "sample": {"depth": 20, "num_negatives": 4},
    "denoise": {"depth": 10, "fill_depth": 25, "num_negatives": 3},
}


@pytest.mark.parametrize("stage", STAGES)
def test_positives_are_told_where_embeddings_are_wired(world: World, stage: str) -> None:
    rows, told = world.metrics(stage, STAGES[stage], embeddings=world.vectors)
    assert {row["query_index"] for row in rows} == {0, 1, 2, 3, 4}
    check(told, world.expected(rows))
    # The same lists as without; and then the candidates' own scores are told.
    again, plain = world.metrics(stage, STAGES[stage])
    assert again == rows and plain["overlap_with_top"] == told["overlap_with_top"]
    assert "difference_score" not in plain and "positives_by_rank" not in plain
    assert max(plain["negative_score"].values()) <= 0


def test_hybrid_tells_it_for_both_kinds(world: World) -> None:
    params = {"num_negatives": 4, "depth": 20, "undenoised": 2, "denoised": 1}
    rows, told = world.metrics("hybrid", params, embeddings=world.vectors)
    undenoised, denoised = rows[:10], rows[10:]
    assert len(denoised) > 2
    check(told, world.expected(undenoised), "undenoised_")
    expected = world.expected(denoised)
    for name in ("negative", "difference"):
        assert told[f"denoised_{name}_score"]["50%"] == pytest.approx(np.median(expected[name]))


def test_blocks_of_queries_are_put_together(world: World, monkeypatch) -> None:
    params = {"depth": 20, "num_negatives": 8}
    rows, whole = world.metrics("sample", params, embeddings=world.vectors)
    monkeypatch.setattr(chosen_report, "_QUERIES_AT_ONCE", 2)
    # The same vectors under another key, so that the stage runs once more.
    cut = embeddings(world.bench, world.queries, world.passages, 30, 6)
    again, told = world.metrics("sample", params, embeddings=cut)
    assert again == rows and told["positives_by_rank"] == whole["positives_by_rank"]
    differences = np.array(world.expected(rows)["difference"])
    for name, share in PERCENT.items():
        found = told["difference_score"][name]
        assert np.mean(differences < found) - 0.05 <= share <= np.mean(differences <= found) + 0.05


def test_embeddings_that_do_not_fit_are_refused(world: World) -> None:
    few = embeddings(world.bench, world.queries[:3], world.passages, 25, 3)
    with pytest.raises(ValueError, match="holds vectors of 3 of 5 wanted queries"):
        world.metrics("sample", STAGES["sample"], embeddings=few)
