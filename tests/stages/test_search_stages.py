from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.artifacts.kinds import TOKENS
from pipeline.search.bm25 import words
from tests.benches import Bench, embeddings

SPLITS = ["train"] * 7 + ["dev"] * 5


def token_table(count: int, hashes=None) -> dict:
    """Tokens that carry nothing but content hashes."""
    empty = pa.array([[]] * count, pa.list_(pa.int32()))
    hashes = pa.array(range(count) if hashes is None else hashes, pa.int64())
    table = pa.table({"title_ids": empty, "text_ids": empty, "content_hash": hashes})
    return {"passages": [table]}


def brute_force(scores, excluded, depth: int) -> list[int]:
    """Score falling, then passage index rising, without the excluded."""
    left = [p for p in range(len(scores)) if p not in excluded]
    return sorted(left, key=lambda p: (-scores[p], p))[:depth]


@pytest.mark.parametrize("per_shard", [1, 7, 16, 40])
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 1000),
    largest=st.integers(0, 3),
    backend=st.sampled_from(["faiss_cpu", "torch"]),
)
def test_mine_is_brute_force_over_any_layout(tmp_path_factory, per_shard, seed, largest, backend):
    bench = Bench(str(tmp_path_factory.mktemp("mine")))
    draw = np.random.default_rng(seed)
    queries = draw.integers(-largest, largest + 1, (len(SPLITS), 4))
    passages = draw.integers(-largest, largest + 1, (40, 4))
    qrels = [(q, int(p)) for q in range(12) for p in draw.choice(40, 2, replace=False)]
    excluded = [(int(draw.integers(7)), int(draw.integers(40)))]
    # Passages 0 and 1 read the same, so that a label of one is a label of the other.
    tokens = bench.given(TOKENS, token_table(40, [0, 0, *range(2, 40)]))
    dataset = bench.dataset(["-"] * 40, SPLITS, qrels, excluded=excluded)
    vectors = embeddings(bench, queries, passages, per_shard, 5)
    params = {"depths": {"dev": 9, "train": 15}, "backend": backend, "queries_per_shard": 4}
    found = bench.run("mine", params, embeddings=vectors, dataset=dataset, tokens=tokens)

    rows = found.read("candidates").to_pylist()
    assert [row["query_index"] for row in rows] == [*range(7, 12), *range(7)]
    scores = queries @ passages.T
    positive_ranks = []
    for row in rows:
        query = row["query_index"]
        known = {p for q, p in [*qrels, *excluded] if q == query}
        known |= {0, 1} if known & {0, 1} else set()
        removed = known if SPLITS[query] == "train" else set()
        depth = 15 if SPLITS[query] == "train" else 9
        assert row["passage_index"] == brute_force(scores[query], removed, depth)
        assert row["score"] == scores[query][row["passage_index"]].tolist()
        others = [score for p, score in enumerate(scores[query]) if p not in known]
        for positive in {p for q, p in qrels if q == query and SPLITS[q] == "train"}:
            own = scores[query, positive]
            positive_ranks.append(1 + sum(score > own for score in others))
    within = {"1": (1, 1), "2-5": (2, 5), "6-10": (6, 10), "11-20": (11, 15)}
    for name, share in bench.outcome(found).metrics["positives_by_rank"].items():
        low, high = within.get(name, (1, 0))
        expected = sum(low <= rank <= high for rank in positive_ranks) / len(positive_ranks)
        assert share == pytest.approx(expected)
    assert found.resolved == {"backend": backend}
    assert [s.rows for s in found.shards("candidates")] == [4, 1, 4, 3]


def test_mine_gives_all_there_is_where_the_depth_is_deeper(bench):
    dataset = bench.dataset(["-"] * 3, ["train", "dev"], [(0, 1), (1, 1)])
    vectors = embeddings(bench, np.eye(2), np.array([[1, 0], [3, 0], [2, 0]]), 2, 2)
    tokens = bench.given(TOKENS, token_table(3))
    params = {"depths": {"train": 10, "dev": 10}, "remove_positives": ["train", "dev"]}
    found = bench.run("mine", params, embeddings=vectors, dataset=dataset, tokens=tokens)
    rows = found.read("candidates").to_pylist()
    assert [row["passage_index"] for row in rows] == [[2, 0], [0, 2]]
    outcome = bench.outcome(found)
    assert outcome.counts["positives_removed"] == 2
    # Scores 3 and 0, against 2 and 1, and against 0 and 0.
    assert outcome.metrics["positives_by_rank"]["1"] == 1
    kept = bench.run(
        "mine",
        params | {"remove_positives": []},
        embeddings=vectors,
        dataset=dataset,
        tokens=tokens,
    )
    assert bench.outcome(kept).metrics == {}


def test_mine_tells_the_scores_of_the_positives_it_leaves_out(bench):
    draw = np.random.default_rng(3)
    queries, passages = draw.normal(size=(30, 8)), draw.normal(size=(25, 8))
    qrels = [(query, query % 25) for query in range(30)]
    dataset = bench.dataset(["-"] * 25, ["train"] * 30, qrels)
    vectors = embeddings(bench, queries, passages, 10, 30)
    tokens = bench.given(TOKENS, token_table(25))
    params = {"depths": {"train": 5}}
    found = bench.run("mine", params, embeddings=vectors, dataset=dataset, tokens=tokens)
    own = [queries[query] @ passages[passage] for query, passage in qrels]
    told = bench.outcome(found).metrics["positive_score"]
    for name, value in told.items():
        expected = np.quantile(own, int(name.rstrip("%")) / 100)
        assert value == pytest.approx(expected, abs=2e-2)


def lucene(corpus, query: str, k1: float, b: float) -> list[float]:
    """BM25 as Lucene computes it, by the book."""
    bags = [words(text) for text in corpus]
    average = sum(map(len, bags)) / len(bags)
    scores = []
    for bag in bags:
        score = 0.0
        for word in words(query):
            containing = sum(word in other for other in bags)
            weight = math.log(1 + (len(bags) - containing + 0.5) / (containing + 0.5))
            frequency = bag.count(word)
            length = k1 * (1 - b + b * len(bag) / average)
            score += weight * frequency / (frequency + length)
        scores.append(score)
    return scores


def test_bm25_against_its_formula(bench):
    draw = np.random.default_rng(1)
    vocabulary = [f"word{n}" for n in range(12)]
    texts = [" ".join(draw.choice(vocabulary, draw.integers(2, 9))) for _ in range(30)]
    # Equal passages tie; the better index comes first.
    texts[20] = texts[3]
    questions = [" ".join(draw.choice(vocabulary, 3, replace=False)) for _ in range(9)] + ["none"]
    splits = ["train"] * 5 + ["dev"] * 5
    qrels = [(q, int(draw.integers(30))) for q in range(10)]
    dataset = bench.dataset(texts, splits, qrels, texts=questions, rows_per_shard=8)
    tokens = bench.given(TOKENS, token_table(30))
    params = {"depths": {"train": 6, "dev": 40}, "queries_per_shard": 3, "k1": 1.2, "b": 0.6}
    found = bench.run("bm25", params, dataset=dataset, tokens=tokens)
    for row in found.read("candidates").to_pylist():
        query = row["query_index"]
        scores = lucene(texts, questions[query], 1.2, 0.6)
        removed = {p for q, p in qrels if q == query} if query < 5 else set()
        matching = [p for p, score in enumerate(scores) if score > 0]
        best = brute_force(scores, removed | (set(range(30)) - set(matching)), 6 + 34 * (query > 4))
        np.testing.assert_allclose(row["score"], [scores[p] for p in best], rtol=1e-5)
        assert sorted(row["passage_index"]) == sorted(best) or len(best) == 6
        assert 20 not in best or 3 in removed or best.index(3) < best.index(20)
    assert bench.outcome(found).counts == {"queries_without_result": 1}
