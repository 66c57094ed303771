"""Exact top-k over a corpus on disk against one raw faiss call over the whole corpus in memory.

faiss holds all vectors and is asked once (`faiss.knn`); only that call is timed. Ours is timed from
opening the shards (float16 on disk, as `encode` writes them) to the ranking in its fixed order.
Each side is a process of its own, so that its memory is its own.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import measuring

SHARD_ROWS = 20_000
GOAL_SPEED = 0.9
GOAL_GIGABYTES = 4.0

Found = tuple[NDArray[np.float32], NDArray[np.int64]]


def write_vectors(folder: Path, passages: int, queries: int, dimension: int, topics: int) -> None:
    """Write unit vectors around random topics, in shards; neighbours in the corpus share topics.

    Args:
        folder: where.
        passages: in the corpus.
        queries: to search with, around the same topics.
        dimension: of a vector.
        topics: directions that the vectors scatter around; 0 scatters them everywhere.
    """
    draw = np.random.default_rng(0)
    centres = draw.standard_normal((max(topics, 1), dimension), dtype=np.float32)
    centres *= bool(topics)

    def around(rows: NDArray[np.int64]) -> NDArray[np.float16]:
        vectors = centres[rows] + draw.standard_normal((len(rows), dimension), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors.astype(np.float16)

    for start in range(0, passages, SHARD_ROWS):
        rows = np.arange(start, min(start + SHARD_ROWS, passages))
        np.save(folder / f"passages-{start:09}.npy", around(rows * len(centres) // passages))
    np.save(folder / "queries.npy", around(draw.integers(0, len(centres), queries)))


def blocks(folder: Path) -> Iterator[tuple[int, NDArray[np.float16]]]:
    """(first passage index, vectors) of each shard."""
    for path in sorted(folder.glob("passages-*.npy")):
        yield int(path.stem.split("-")[1]), np.load(path)


def raw_faiss(
    folder: Path, passages: int, depth: int, gpu: bool, threads: int
) -> Callable[[], Found]:
    """One call over all vectors, which are in memory before."""
    import faiss

    if threads:
        faiss.omp_set_num_threads(threads)
    queries = np.load(folder / "queries.npy").astype(np.float32)
    corpus = np.empty((passages, queries.shape[1]), dtype=np.float32)
    for first, block in blocks(folder):
        corpus[first : first + len(block)] = block
    metric = faiss.METRIC_INNER_PRODUCT
    resources = faiss.StandardGpuResources() if gpu else None

    def search() -> Found:
        if resources is not None:
            return _found(faiss.knn_gpu(resources, queries, corpus, depth, metric=metric))
        return _found(faiss.knn(queries, corpus, depth, metric=metric))

    return search


def exact_search(folder: Path, depth: int, gpu: bool, threads: int) -> Callable[[], Found]:
    """The pipeline's search over the shards."""
    from pipeline.search.topk import ExactSearch

    if threads:
        import faiss

        faiss.omp_set_num_threads(threads)

    def search() -> Found:
        queries = np.load(folder / "queries.npy")
        top = ExactSearch(queries, depth, backend="faiss_gpu" if gpu else "faiss_cpu")
        found = top.search(blocks(folder))
        return found.score, found.passage_index.astype(np.int64)

    return search


def _found(scores_and_positions: Any) -> Found:
    scores, positions = scores_and_positions
    return scores, positions


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--topics", type=int, default=0, help="0: no structure in the vectors")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=0, help="of faiss (default: its own choice)")
    parser.add_argument("--gpu", action="store_true", help="both sides on the first GPU")
    options = parser.parse_args()
    measuring.machine()
    print(
        f"top {options.depth} of {options.passages:,} x {options.dimension} "
        f"for {options.queries:,} queries"
    )
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_vectors(folder, options.passages, options.queries, options.dimension, options.topics)
        common = (options.depth, options.gpu, options.threads)
        raw = measuring.Worker(raw_faiss, folder, options.passages, *common)
        ours = measuring.Worker(exact_search, folder, *common)
        timings = measuring.alternate({"faiss": raw, "pipeline": ours}, options.rounds)
        print(f"  {agreement(raw.result, ours.result)}")
        peaks = {"faiss": raw.close(), "pipeline": ours.close()}
    measuring.medians(timings, options.queries, "queries")
    measuring.verdict(
        "speed against one faiss call",
        measuring.ratios(timings, "faiss", "pipeline"),
        at_least=GOAL_SPEED,
    )
    for name, peak in peaks.items():
        measuring.limit(f"peak memory of {name}", peak / 1e9, "GB", GOAL_GIGABYTES)
    print(measuring.load())


def agreement(raw: Found, ours: Found) -> str:
    """How far two results agree, in words."""
    same = float((raw[1] == ours[1]).mean())
    apart = float(np.abs(raw[0] - ours[0]).max())
    return f"{100 * same:.3f} % of the ranks hold the same passage, scores differ by {apart:.1e}"


if __name__ == "__main__":
    main()
