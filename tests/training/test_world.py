from __future__ import annotations

import numpy as np
import pytest
import torch
from training_cases import CPU, WorkerGroup, collectives, gathered_gradient

from pipeline.training.world import World


@pytest.mark.parametrize("size", [2, 4])
def test_gather_sends_back_the_sum_of_all_ranks_gradients(workers: WorkerGroup, size: int) -> None:
    draw = np.random.default_rng(0)
    values = draw.normal(size=(size, 3, 2))
    weights = draw.normal(size=(size, size * 3, 2))
    results = workers.run(size, gathered_gradient, values, weights)
    for rank, (gathered, gradient) in enumerate(results):
        np.testing.assert_array_equal(gathered, values.reshape(-1, 2))
        np.testing.assert_allclose(gradient, weights.sum(axis=0)[rank * 3 : (rank + 1) * 3])


def test_collectives_of_three(workers: WorkerGroup) -> None:
    expected = ([0, 1, 2], 3, True, False, [0.0, 0.0])
    assert workers.run(3, collectives) == [expected] * 3


def test_one_process_gets_back_what_it_gave() -> None:
    world = World.single(CPU)
    tensor = torch.ones(2, requires_grad=True)
    assert world.gather(tensor) is tensor
    assert world.gather_no_grad(tensor) is tensor
    assert world.mean(tensor) is tensor
    assert world.minimum(4) == 4
    assert world.any(True)
    assert not world.any(False)
