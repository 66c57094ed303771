from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.search.bm25 import BM25Search, words
from pipeline.search.ranking import Excluded

TITLES = ["Paris", "", "Berlin", "", "Paris", "北京"]
TEXTS = [
    "capital of France, on the Seine",
    "the Seine flows through Paris; Paris is old",
    "capital of Germany",
    "...",
    "capital of France, on the Seine",
    "中国的首都 capital",
]


def tables() -> list[pa.Table]:
    whole = pa.table({"title": TITLES, "text": TEXTS})
    return [whole.slice(0, 2), whole.slice(2)]


def closed_form(query: str, k1: float, b: float) -> list[float]:
    documents = [words(f"{title} {text}") for title, text in zip(TITLES, TEXTS, strict=True)]
    mean = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        counts, total = Counter(document), 0.0
        for word in words(query):
            holding = sum(word in other for other in documents)
            if counts[word]:
                idf = math.log(1 + (len(documents) - holding + 0.5) / (holding + 0.5))
                norm = k1 * (1 - b + b * len(document) / mean)
                total += idf * counts[word] / (counts[word] + norm)
        scores.append(total)
    return scores


@pytest.mark.parametrize("query", ["Paris France", "the capital", "首都 on the SEINE", "old old"])
@pytest.mark.parametrize(("k1", "b"), [(0.9, 0.4), (1.5, 0.75)])
def test_scores_and_order_are_those_of_the_formula(query: str, k1: float, b: float) -> None:
    scores = closed_form(query, k1, b)
    # Equal passages have equal scores and stand by index.
    ranked = sorted((i for i in range(6) if scores[i] > 0), key=lambda i: (-scores[i], i))
    found = BM25Search.of_passages(tables(), k1=k1, b=b).search([query], depth=6)
    assert found.passage_index[0, : found.counts[0]].tolist() == ranked
    np.testing.assert_allclose(
        found.score[0, : len(ranked)], [scores[i] for i in ranked], rtol=1e-5
    )


def test_passages_without_a_common_word_are_left_out() -> None:
    found = BM25Search.of_passages(tables()).search(["Germany", "unseen words", "", "!"], depth=3)
    assert found.passage_index.tolist() == [[2, -1, -1], [-1] * 3, [-1] * 3, [-1] * 3]


def test_excluded_passages_make_room() -> None:
    excluded = Excluded(np.array([0, 0, 1]), np.array([0, 2, 4]))
    found = BM25Search.of_passages(tables()).search(["capital of France"] * 2, 2, excluded)
    assert found.passage_index.tolist() == [[4, 5], [0, 2]]


def test_ties_at_the_cut_are_resolved_by_index() -> None:
    table = pa.table({"title": [""] * 50, "text": ["same words"] * 50})
    found = BM25Search.of_passages([table]).search(["same"], depth=7)
    assert found.passage_index.tolist() == [list(range(7))]


@pytest.mark.parametrize("texts", [[], ["", "..."]])
def test_a_corpus_without_words_finds_nothing(texts: list[str]) -> None:
    table = pa.table(
        {"title": pa.array([""] * len(texts), pa.string()), "text": pa.array(texts, pa.string())}
    )
    search = BM25Search.of_passages([table])
    assert search.passages == len(texts)
    assert search.search(["word"], depth=2).counts.tolist() == [0]


@pytest.mark.parametrize("texts", [TEXTS, ["", "..."], []])
def test_a_saved_index_finds_the_same(tmp_path: Path, texts: list[str]) -> None:
    titles = pa.array([""] * len(texts), pa.string())
    table = pa.table({"title": titles, "text": pa.array(texts, pa.string())})
    built = BM25Search.of_passages([table], k1=1.2, b=0.3)
    built.save(tmp_path)
    opened = BM25Search.open(tmp_path)
    queries = ["capital of France", "首都", "unseen", ""]
    excluded = Excluded(np.zeros(1, int), np.zeros(1, int)) if texts else Excluded.none()
    done: list[int] = []
    found = opened.search(queries, 3, excluded, done.append)
    expected = built.search(queries, 3, excluded)
    np.testing.assert_array_equal(found.passage_index, expected.passage_index)
    np.testing.assert_array_equal(found.score, expected.score)
    assert opened.passages == len(texts) and sum(done) == len(queries)


def test_words_are_lower_case_and_unspaced_scripts_go_by_character() -> None:
    assert words("The Café's 3.14 x_y") == ["the", "café", "s", "3", "14", "x_y"]
    assert words("中国abc的 кот") == ["中", "国", "abc", "的", "кот"]


def test_jax_is_not_started(tmp_path: Path) -> None:
    (tmp_path / "jax").mkdir()
    for name in ("__init__", "lax"):
        (tmp_path / "jax" / f"{name}.py").write_text("print('started')")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    ours = "import pipeline.search.bm25; print('ours')"
    run = [sys.executable, "-c", f"{ours}; import jax.lax"]
    printed = subprocess.run(
        run, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert printed.stdout.split() == ["ours", "started", "started"]
