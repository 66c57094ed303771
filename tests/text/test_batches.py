from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.text.batches import equal_length_batches, token_budget_batches


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 40), max_size=60), st.integers(40, 200))
def test_batches_cover_each_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    array = np.array(lengths, dtype=np.int64)
    batches = token_budget_batches(array, budget)
    rows = np.concatenate(batches) if batches else np.zeros(0, dtype=np.int64)
    assert sorted(rows.tolist()) == list(range(len(lengths)))
    assert all(len(batch) * array[batch].max() <= budget for batch in batches)
    # Longest first, and no batch could take the next row too.
    assert (np.diff(array[rows]) <= 0).all()
    assert all((len(batch) + 1) * array[batch].max() > budget for batch in batches[:-1])


def test_a_row_beyond_the_budget_is_an_error() -> None:
    with pytest.raises(ValueError, match="raise the budget to 41"):
        token_budget_batches(np.array([3, 41]), 40)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=60))
def test_batches_of_equal_length(lengths: list[int]) -> None:
    array = np.array(lengths, dtype=np.int64)
    batches = equal_length_batches(array)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert [set(array[batch]) for batch in batches] == [
        {length} for length in sorted(set(lengths), reverse=True)
    ]
