"""Passages that are searched again and again, against sorting all scores."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.search.ranking import Excluded
from pipeline.search.resident import ResidentPassages

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    ),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("piece_rows", [1, 7, 64, None])
def test_each_search_equals_brute_force_with_ties(
    tmp_path: Path, device: str, dtype: type, piece_rows: int | None
) -> None:
    draw = np.random.default_rng(3)
    # Few different vectors: most scores are shared by many passages.
    corpus = draw.integers(-2, 3, (50, 3))
    np.save(tmp_path / "vectors.npy", corpus.astype(dtype))
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        passages = ResidentPassages(mapped, torch.device(device), piece_rows)
        for _ in range(3):
            queries = draw.integers(-2, 3, (6, 3))
            rows, columns = draw.integers(0, 6, 40), draw.integers(0, 50, 40)
            found = passages.nearest(queries.astype(np.float32), 9, Excluded(rows, columns))
            for row, scores in enumerate(queries @ corpus.T):
                kept = sorted(set(range(50)) - set(columns[rows == row].tolist()))
                expected = sorted(kept, key=lambda p: (-scores[p], p))[:9]
                assert found.passage_index[row].tolist() == expected
                assert found.score[row].tolist() == scores[expected].tolist()
    assert len(passages) == 50
    chosen = np.array([[3, 3, 49], [0, 1, 2]])
    np.testing.assert_array_equal(passages.vectors(chosen), corpus[chosen])


def test_passages_that_are_no_numbers_are_refused() -> None:
    vectors = np.zeros((5, 2), dtype=np.float16)
    vectors[3, 1] = np.inf
    with pytest.raises(ValueError, match="passage vectors hold NaN or infinity"):
        ResidentPassages(vectors, torch.device("cpu"))
