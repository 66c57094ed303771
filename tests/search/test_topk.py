from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.search.backends import BackendName, automatic_backend
from pipeline.search.ranking import Excluded, TopK
from pipeline.search.topk import EXTRA_FOR_EXCLUDED, ExactSearch

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
BACKENDS = [
    pytest.param("faiss_cpu", "cpu", id="faiss_cpu"),
    pytest.param("torch", "cpu", id="torch-cpu"),
    pytest.param("faiss_gpu", "cuda", id="faiss_gpu", marks=needs_gpu),
    pytest.param("torch", "cuda", id="torch-cuda", marks=needs_gpu),
]
on_each_backend = pytest.mark.parametrize(("backend", "device"), BACKENDS)


def brute_force(
    queries: NDArray[Any], corpus: NDArray[Any], depth: int, pairs: set[tuple[int, int]]
) -> list[list[tuple[float, int]]]:
    """(score, passage) of each query by sorting all scores; exact for integer-valued vectors."""
    scores = queries.astype(np.int64) @ corpus.astype(np.int64).T
    rankings = []
    for row, own in enumerate(scores):
        kept = [(-score, index) for index, score in enumerate(own) if (row, index) not in pairs]
        rankings.append([(-score, index) for score, index in sorted(kept)[:depth]])
    return rankings


def as_lists(found: TopK) -> list[list[tuple[float, int]]]:
    return [
        list(zip(scores[:count].tolist(), passages[:count].tolist(), strict=True))
        for scores, passages, count in zip(
            found.score, found.passage_index, found.counts, strict=True
        )
    ]


def excluded_from(pairs: set[tuple[int, int]]) -> Excluded:
    array = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
    return Excluded(array[:, 0], array[:, 1])


def layout(
    corpus: NDArray[Any], cuts: list[int], generator: np.random.Generator
) -> Iterator[tuple[int, NDArray[Any]]]:
    """The corpus in blocks between the cuts, in any order."""
    edges = sorted({0, len(corpus), *(cut % (len(corpus) + 1) for cut in cuts)})
    spans = list(itertools.pairwise(edges))
    for number in generator.permutation(len(spans)):
        start, end = spans[number]
        yield start, corpus[start:end]


@on_each_backend
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    passages=st.integers(1, 60),
    values=st.integers(1, 3),
    depth=st.integers(1, 12),
    cuts=st.lists(st.integers(0, 1000), max_size=6),
    piece_rows=st.integers(1, 64),
    excluded=st.integers(0, 60),
)
def test_any_layout_equals_brute_force_with_ties(
    backend: BackendName,
    device: str,
    seed: int,
    passages: int,
    values: int,
    depth: int,
    cuts: list[int],
    piece_rows: int,
    excluded: int,
) -> None:
    generator = np.random.default_rng(seed)
    # Few different vectors: most scores are shared by many passages.
    queries = generator.integers(-values, values + 1, (7, 3))
    corpus = generator.integers(-values, values + 1, (passages, 3))
    drawn = zip(
        generator.integers(7, size=excluded).tolist(),
        generator.integers(passages, size=excluded).tolist(),
        strict=True,
    )
    pairs = set(drawn)
    search = ExactSearch(
        queries.astype(np.float32),
        depth,
        backend=backend,
        device=device,
        excluded=excluded_from(pairs),
        piece_rows=piece_rows,
    )
    found = search.search(layout(corpus.astype(np.float16), cuts, generator))
    assert as_lists(found) == brute_force(queries, corpus, depth, pairs)
    assert (found.passage_index.shape, found.score.shape) == ((7, depth), (7, depth))


@on_each_backend
def test_equal_vectors_everywhere_rank_by_index(backend: BackendName, device: str) -> None:
    corpus = np.ones((3000, 4), dtype=np.float32)
    search = ExactSearch(corpus[:30], 5, backend=backend, device=device, piece_rows=1000)
    blocks = [(2000, corpus[:1000]), (0, corpus[:2000])]
    found = search.search(blocks)
    np.testing.assert_array_equal(found.passage_index, np.tile(np.arange(5), (30, 1)))


@on_each_backend
@pytest.mark.parametrize("rising", [1, 40])
def test_a_late_piece_may_be_the_best(backend: BackendName, device: str, rising: int) -> None:
    # Passages get worse, so that less and less is asked for, until the last piece beats all: for
    # one query of forty, which is searched in full, or for all of them, searched deeper together.
    quality = np.concatenate([np.arange(900)[::-1], np.arange(1000, 1100)]) // 3
    corpus = np.stack([quality, np.arange(1000)[::-1]], axis=1)
    queries = np.tile([0, 1], (40, 1))
    queries[:rising] = [1, 0]
    search = ExactSearch(
        queries.astype(np.float32), 64, backend=backend, device=device, piece_rows=100
    )
    found = search.search([(0, corpus.astype(np.float32))])
    assert as_lists(found) == brute_force(queries, corpus, 64, set())


@on_each_backend
def test_a_query_may_exclude_most_of_the_corpus(backend: BackendName, device: str) -> None:
    many = 3 * EXTRA_FOR_EXCLUDED
    corpus = np.arange(60, dtype=np.float32)[:, None]
    pairs = {(0, index) for index in range(60 - many, 60)}
    search = ExactSearch(
        np.ones((2, 1)), 4, backend=backend, device=device, excluded=excluded_from(pairs)
    )
    found = search.search([(0, corpus)])
    assert found.passage_index.tolist() == [[11, 10, 9, 8], [59, 58, 57, 56]]


def test_block_layout_does_not_reach_the_arithmetic() -> None:
    generator = np.random.default_rng(0)
    queries = generator.standard_normal((40, 24), dtype=np.float32)
    corpus = generator.standard_normal((2500, 24), dtype=np.float32)
    whole = ExactSearch(queries, 20, piece_rows=1000).search([(0, corpus)])
    for size in (7, 640, 1001):
        blocks = [(start, corpus[start : start + size]) for start in range(0, 2500, size)]
        cut = ExactSearch(queries, 20, piece_rows=1000).search(blocks)
        np.testing.assert_array_equal(cut.passage_index, whole.passage_index)
        np.testing.assert_array_equal(cut.score, whole.score)


def test_many_queries_agree_with_sorting_all_scores() -> None:
    generator = np.random.default_rng(1)
    queries = generator.standard_normal((5000, 8), dtype=np.float32)
    corpus = generator.standard_normal((600, 8), dtype=np.float32)
    found = ExactSearch(queries, 10, piece_rows=256).search([(0, corpus)])
    scores = queries.astype(np.float64) @ corpus.T
    expected = -np.sort(-scores, axis=1)[:, :10]
    np.testing.assert_allclose(found.score, expected, rtol=1e-4, atol=1e-5)
    chosen = np.take_along_axis(scores, found.passage_index.astype(np.int64), axis=1)
    np.testing.assert_allclose(chosen, expected, rtol=1e-4, atol=1e-5)


def test_results_grow_with_what_was_added() -> None:
    search = ExactSearch(np.ones((1, 1)), 3)
    assert search.result().counts.tolist() == [0]
    search.add(5, np.array([[2.0], [1.0]]))
    assert search.result().passage_index.tolist() == [[5, 6, -1]]
    search.add(0, np.array([[3.0]]))
    assert search.result().passage_index.tolist() == [[0, 5, 6]]


def test_reduced_precision_for_training_does_not_reach_the_search() -> None:
    queries = np.full((1, 1), 1 + 2**-20, dtype=np.float32)
    torch.set_float32_matmul_precision("medium")
    try:
        found = ExactSearch(queries, 1, backend="torch").search([(0, np.ones((1, 1)))])
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert found.score[0, 0] == queries[0, 0]


def test_mistakes_are_named() -> None:
    search = ExactSearch(np.ones((1, 4)), 1)
    with pytest.raises(ValueError, match="4 dimensions"):
        search.add(0, np.ones((2, 3)))
    search.add(10, np.full((2, 4), np.nan))
    with pytest.raises(ValueError, match="passages 10 to 11 hold NaN"):
        search.result()
    with pytest.raises(ValueError, match="query vectors hold NaN"):
        ExactSearch(np.full((1, 4), np.inf), 1)
    with pytest.raises(ValueError, match="depth"):
        ExactSearch(np.ones((1, 4)), 0)
    with pytest.raises(ValueError, match="choose faiss_cpu"):
        ExactSearch(np.ones((1, 4)), 1, backend="annoy")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("device", "faiss", "backend"),
    [
        ("cpu", SimpleNamespace(StandardGpuResources=None, get_num_gpus=lambda: 1), "faiss_cpu"),
        ("cuda:0", SimpleNamespace(StandardGpuResources=None, get_num_gpus=lambda: 1), "faiss_gpu"),
        ("cuda:0", SimpleNamespace(StandardGpuResources=None, get_num_gpus=lambda: 0), "torch"),
        ("cuda:0", SimpleNamespace(), "torch"),
        ("cuda:0", None, "torch"),
    ],
)
def test_the_automatic_backend_is_one_that_finds_the_device(
    monkeypatch: pytest.MonkeyPatch, device: str, faiss: object, backend: str
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", faiss)
    assert automatic_backend(device) == backend


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_faiss_gpu_without_a_gpu_says_what_to_use() -> None:
    with pytest.raises(RuntimeError, match="use faiss_cpu"):
        ExactSearch(np.ones((1, 4)), 1, backend="faiss_gpu")
