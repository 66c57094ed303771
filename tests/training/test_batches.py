from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.training.batches import Batches


@settings(max_examples=50, deadline=None)
@given(
    share=st.integers(1, 5),
    extra=st.integers(0, 40),
    seed=st.integers(0, 2**32),
    step=st.integers(0, 60),
)
def test_global_batches_are_the_same_for_any_number_of_workers(
    share: int, extra: int, seed: int, step: int
) -> None:
    batch = 12 * share
    batches = Batches(batch + extra, batch, seed)
    whole = batches.global_rows(step)
    assert len(np.unique(whole)) == batch
    for size in (1, 2, 3, 4, 12):
        shares = [batches.share(step, rank, size).rows for rank in range(size)]
        np.testing.assert_array_equal(np.concatenate(shares), whole)


def test_an_epoch_sees_each_row_once_but_for_the_rest() -> None:
    batches = Batches(rows=23, global_batch_size=5, seed=1, num_train_epochs=3)
    assert (batches.steps_per_epoch, batches.dropped_per_epoch, batches.total_steps) == (4, 3, 12)
    epochs = [
        np.concatenate([batches.global_rows(4 * epoch + step) for step in range(4)])
        for epoch in range(3)
    ]
    for rows in epochs:
        assert len(np.unique(rows)) == 20
    told = [batches.share(step, 0, 1).epoch for step in range(12)]
    assert told == np.repeat([0, 1, 2], 4).tolist()
    assert not np.array_equal(epochs[0], epochs[1])
    left_out = [set(range(23)) - set(rows.tolist()) for rows in epochs]
    assert left_out[0] != left_out[1]


def test_seeds_order_differently_and_repeatably() -> None:
    first, again, other = (Batches(50, 10, seed).global_rows(3) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_number_of_steps() -> None:
    assert Batches(100, 10, 0, num_train_epochs=0.5).total_steps == 5
    assert Batches(100, 10, 0, num_train_epochs=0.01).total_steps == 1
    assert Batches(100, 10, 0, num_train_epochs=7, max_steps=13).total_steps == 13


def test_too_few_rows_say_what_to_do() -> None:
    with pytest.raises(ValueError, match="lower global_batch_size to 7 or less"):
        Batches(7, 8, 0)
    with pytest.raises(ValueError, match="a number of workers that divides 8"):
        Batches(9, 8, 0).share(0, 0, 3)
