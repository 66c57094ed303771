from __future__ import annotations

import pytest

from pipeline.stages.training_run import group_sizes


@pytest.mark.parametrize(
    ("shares", "passages", "expected"),
    [
        (64, 2, [1, 2, 4, 8]),  # 16 passages each at most
        (8, 16, [1, 2, 4, 8]),  # lists of 8 through two models: one list is enough for a rank
        (12, 4, [1, 2, 3]),
        (7, 100, [1, 7]),
        (4, 1, [1]),  # too little even for one
    ],
)
def test_ranks_share_a_batch_evenly_and_have_enough_to_do(shares, passages, expected):
    assert group_sizes(shares, passages) == expected
