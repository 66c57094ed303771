"""ADORE's objective against brute force: what is found, and where the gradient goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from training_cases import (
    CPU,
    PASSAGES,
    ROOMY,
    TIGHT,
    WorkerGroup,
    gradients,
    query_tower_objective,
    query_tower_step,
    tiny_encoder,
    tiny_retriever,
)

from pipeline.models.dual_encoder import DualEncoder, DualEncoderConfig
from pipeline.models.encoder import TensorBatch
from pipeline.training.batches import Share
from pipeline.training.query_tower import QueryTowerObjective
from pipeline.training.world import World

SINGLE = World.single(CPU)
EVERY = Share(np.arange(16))


def literal_loss(objective: QueryTowerObjective) -> torch.Tensor:
    """The mean loss of rows 0..15: all passages scored and sorted, known positives struck out."""
    model, store, rows = objective.model, objective.store, objective.rows.batch(np.arange(16))
    queries = model.encode_queries(
        TensorBatch.from_tokens(store.query_batch(rows.query_indices), CPU)
    )
    passages = torch.from_numpy(objective.passages.vectors(np.arange(PASSAGES)))
    losses = []
    for row, query in enumerate(rows.query_indices):
        own = rows.positives[rows.query_indices == query]
        known = {int(hashed) for hashed in store.content_hash[own]}
        scores = queries[row] @ passages.T
        values = scores.tolist()
        ranking = sorted(range(PASSAGES), key=lambda p: (-values[p], p))
        allowed = [p for p in ranking if int(store.content_hash[p]) not in known]
        nearest = allowed[: objective.num_negatives]
        positive = scores[rows.positives[row]]
        others = torch.stack([scores[p] for p in nearest])
        gaps = (others - positive) / model.config.temperature
        if objective.comparison == "softmax":
            losses.append(torch.logsumexp(torch.cat([torch.zeros(1), gaps]), 0))
            continue
        above = sum(values[p] > values[rows.positives[row]] for p in nearest)
        weights = torch.ones(len(others))
        if objective.comparison == "lambda_rank":
            ranks = [place + (place > above) for place in range(1, len(others) + 1)]
            weights = torch.tensor([abs(1 / (1 + above) - 1 / rank) for rank in ranks])
        losses.append((weights * functional.softplus(gaps)).mean())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("budget", [ROOMY, TIGHT])
@pytest.mark.parametrize(
    "case",
    [
        {"comparison": "lambda_rank"},
        {"comparison": "pairwise"},
        {"comparison": "softmax"},
        # More than there are: the places that stay empty are no negatives.
        {"comparison": "lambda_rank", "num_negatives": 60},
    ],
)
def test_a_step_equals_brute_force_for_any_number_of_workers(
    workers: WorkerGroup, store: Path, size: int, budget: int, case: dict[str, Any]
) -> None:
    oracle = query_tower_objective(store, **case)
    loss = literal_loss(oracle)
    loss.backward()
    expected = gradients(oracle.model)
    assert expected and all(name.startswith("towers.query.") for name in expected)
    assert max(np.abs(gradient).max() for gradient in expected.values()) > 0.02
    results = workers.run(size, query_tower_step, store, {**case, "token_budget": budget})
    for measured_loss, measured in results:
        assert measured_loss == pytest.approx(float(loss.detach()), rel=1e-5)
        assert measured.keys() == expected.keys()
        for name, gradient in expected.items():
            np.testing.assert_allclose(measured[name], gradient, rtol=1e-4, atol=1e-6, err_msg=name)


def test_every_step_searches_with_its_own_weights(store: Path) -> None:
    objective = query_tower_objective(store)
    found = []
    for step in range(3):
        with torch.no_grad():
            for parameter in objective.model.query_tower.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        loss = objective.step(Share(EVERY.rows, step), SINGLE)["loss"]
        assert float(loss) == pytest.approx(float(literal_loss(objective).detach()), rel=1e-5)
        found.append(float(loss))
    assert len(set(found)) == 3


def test_the_vectors_that_are_searched_with_are_those_that_learn(store: Path) -> None:
    """Dropout falls once a step: what is nearest, and what is moved, is the same vector."""
    objective = query_tower_objective(store, dropout=0.3, token_budget=TIGHT)
    seen: list[np.ndarray] = []
    real, loss = objective.passages.nearest, type(objective).loss

    def nearest(queries: np.ndarray, *arguments: Any) -> Any:
        seen.append(queries)
        return real(queries, *arguments)

    def learning(self: Any, vectors: torch.Tensor, batch: Any) -> torch.Tensor:
        found = loss(self, vectors, batch)
        np.testing.assert_array_equal(seen[-1], vectors.detach().numpy())
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objective.passages, "nearest", nearest)
        patch.setattr(type(objective), "loss", learning)
        objective.step(EVERY, SINGLE)
    assert len(seen) == 1


def test_a_shared_tower_is_refused_and_an_untied_one_is_not(store: Path) -> None:
    own = tiny_retriever(0)
    given = vars(query_tower_objective(store))
    shared = DualEncoder(tiny_encoder(0, 1), None, DualEncoderConfig(shared=True))
    with pytest.raises(ValueError, match=r"train `untied\(\)`"):
        QueryTowerObjective(**{**given, "model": shared})
    QueryTowerObjective(**{**given, "model": shared.untied()})
    assert own.untied() is own


def test_describe_tells_what_is_searched(store: Path) -> None:
    assert query_tower_objective(store).describe(512) == (
        "6 negatives per query (its nearest of 40 frozen passages, searched in every step), "
        "lambda_rank loss"
    )
