"""Groups of similar length give what one call gives, with less padding."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.training.length_groups import GROUPS, LEAST_TOKENS_ON_GPU, by_length, group_count

CPU = torch.device("cpu")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=60))
def test_results_come_in_row_order_and_similar_lengths_together(lengths: list[int]) -> None:
    sizes = np.array(lengths)
    padded = []

    def encode(rows: np.ndarray) -> torch.Tensor:
        padded.append(len(rows) * sizes[rows].max())
        return torch.from_numpy(np.stack([rows, sizes[rows]], axis=1))

    result = by_length(encode, sizes, CPU)
    assert result[:, 0].tolist() == list(range(len(sizes)))
    assert result[:, 1].tolist() == lengths
    assert len(padded) <= GROUPS
    assert sum(padded) <= len(sizes) * sizes.max()


def test_a_group_is_padded_to_its_own_longest() -> None:
    sizes = np.array([1, 50] * 8)
    seen = []

    def encode(rows: np.ndarray) -> torch.Tensor:
        seen.append(set(sizes[rows].tolist()))
        return torch.zeros(len(rows))

    by_length(encode, sizes, CPU)
    assert seen == [{1}, {1}, {50}, {50}]


def test_a_gpu_takes_fewer_tokens_at_once() -> None:
    gpu = torch.device("cuda")
    short, long = np.full(64, 20), np.full(64, 300)
    assert (group_count(short, CPU), group_count(short, gpu)) == (GROUPS, 1)
    assert group_count(long, gpu) == 64 * 300 // LEAST_TOKENS_ON_GPU == 1
    assert group_count(np.tile(long, 4), gpu) == GROUPS
    assert group_count(np.array([300, 400, 500]), CPU) == 1
