from __future__ import annotations

import numpy as np
import torch

from pipeline.models.pooling import pool, unit_length


def test_pooling_against_numpy_whatever_lies_under_the_padding() -> None:
    states = torch.randn(3, 5, 4)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    states[0, 3:] = float("nan")
    mean = [states[row, : int(mask[row].sum())].numpy().mean(axis=0) for row in range(3)]
    np.testing.assert_allclose(pool(states, mask, "mean").numpy(), mean, rtol=1e-5, atol=1e-6)
    first = pool(states, mask, "cls")
    assert torch.equal(first, states[:, 0])
    assert first.untyped_storage().nbytes() == first.nbytes, "the other states are let go"


def test_sums_of_bfloat16_states_are_float32() -> None:
    states = torch.full((1, 1000, 1), 1.0078125, dtype=torch.bfloat16)
    pooled = pool(states, torch.ones(1, 1000, dtype=torch.int64), "mean")
    assert pooled.dtype == torch.float32
    assert pooled.item() == 1.0078125


def test_unit_length() -> None:
    torch.testing.assert_close(unit_length(torch.tensor([[3.0, 4.0]])), torch.tensor([[0.6, 0.8]]))
