from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from training_cases import (
    CPU,
    ROOMY,
    TIGHT,
    WorkerGroup,
    gradients,
    ranker_objective,
    ranker_step,
)

from pipeline.models.cross_encoder import CrossEncoder
from pipeline.models.encoder import TensorBatch
from pipeline.text.store import TokenStore
from pipeline.training.batches import Share
from pipeline.training.ranker import RankerObjective
from pipeline.training.rows import TrainingPairs
from pipeline.training.world import World

SINGLE = World.single(CPU)


def literal_loss(objective: RankerObjective) -> torch.Tensor:
    model, store, rows = objective.model, objective.store, objective.rows
    if isinstance(rows, TrainingPairs):
        pairs = store.pair_batch(rows.query_indices, rows.passage_indices)
        classes = model.class_logits(TensorBatch.from_tokens(pairs, CPU))
        return F.cross_entropy(classes, torch.tensor(rows.labels).long())
    losses = []
    for query, positive, negatives in zip(
        rows.query_indices, rows.positives, rows.negatives, strict=True
    ):
        passages = [positive, *negatives]
        pairs = store.pair_batch([query] * len(passages), passages)
        logits = model(TensorBatch.from_tokens(pairs, CPU))
        losses.append(logits.logsumexp(0) - logits[0])
    return torch.stack(losses).mean()


def literal_attack(objective: RankerObjective) -> torch.Tensor:
    """Perturb the table by the released code's formula, for good; returns the perturbed loss."""
    assert objective.adversarial is not None
    table = objective.model.encoder.word_embeddings.weight
    gradient = torch.autograd.grad(literal_loss(objective), table)[0]
    with torch.no_grad():
        table += objective.adversarial * gradient / ((gradient**2).sum() + 1e-8) ** 0.5
    return literal_loss(objective)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("budget", [ROOMY, TIGHT])
@pytest.mark.parametrize("kind", ["pointwise", "listwise"])
@pytest.mark.parametrize("adversarial", [None, 0.5])
def test_gradients_equal_the_plain_computation_for_any_number_of_workers(
    workers: WorkerGroup, store: Path, size: int, budget: int, kind: str, adversarial: float | None
) -> None:
    options: dict[str, Any] = {"adversarial": adversarial}
    oracle = ranker_objective(store, kind, **options)
    loss = literal_loss(oracle) if adversarial is None else literal_attack(oracle)
    loss.backward()
    expected = gradients(oracle.model)
    options["token_budget"] = budget
    for measured_loss, measured in workers.run(size, ranker_step, store, kind, options):
        assert measured_loss == pytest.approx(float(loss.detach()), rel=1e-5)
        assert measured.keys() == expected.keys()
        for name, gradient in expected.items():
            np.testing.assert_allclose(measured[name], gradient, rtol=1e-4, atol=2e-6, err_msg=name)


def test_the_attack_raises_the_loss_and_leaves_the_table_untouched(store: Path) -> None:
    objective = ranker_objective(store, "pointwise", adversarial=0.5)
    before = objective.model.encoder.word_embeddings.weight.detach().clone()
    plain = float(literal_loss(objective).detach())
    attacked = float(objective.step(Share(np.arange(16)), SINGLE)["loss"])
    assert attacked > plain
    assert torch.equal(objective.model.encoder.word_embeddings.weight, before)


def test_the_attack_looks_without_dropout_and_is_trained_with_it(store: Path) -> None:
    objective = ranker_objective(store, "pointwise", dropout=0.2, adversarial=0.01)
    table = objective.model.encoder.word_embeddings.weight
    seen: list[tuple[bool, torch.Tensor]] = []
    objective.model.register_forward_pre_hook(
        lambda model, _: seen.append((model.training, table.detach().clone()))
    )
    objective.model.eval()
    gradient = torch.autograd.grad(literal_loss(objective), table)[0]
    objective.model.train()
    seen.clear()
    objective.step(Share(np.arange(16)), SINGLE)
    # As many forward passes before the perturbation as after it, one for each group of lengths.
    looking, training = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert not any(mode for mode, _ in looking)
    assert all(mode for mode, _ in training)
    plain, moved = looking[-1][1], training[0][1]
    assert all(torch.equal(table_then, plain) for _, table_then in looking)
    assert all(torch.equal(table_then, moved) for _, table_then in training)
    torch.testing.assert_close(
        moved - plain, 0.01 * gradient / torch.sqrt((gradient**2).sum() + 1e-8), rtol=0, atol=1e-6
    )
    assert objective.model.training


def test_the_table_is_restored_when_training_fails_within(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = ranker_objective(store, "pointwise", adversarial=0.5)
    table = objective.model.encoder.word_embeddings.weight
    before = table.detach().clone()

    def fail(*_: object) -> torch.Tensor:
        assert not torch.equal(table, before)
        raise MemoryError

    monkeypatch.setattr(RankerObjective, "_accumulate", fail)
    with pytest.raises(MemoryError):
        objective.step(Share(np.arange(16)), SINGLE)
    assert torch.equal(table, before)


def test_micro_batches_keep_the_budget_and_never_cut_a_list(store: Path) -> None:
    objective = ranker_objective(store, "listwise", token_budget=TIGHT)
    micro_batches = objective._micro_batches(objective.rows.batch(np.arange(16)))
    lists = np.concatenate([batch.passages for batch in micro_batches])
    assert sorted(lists.tolist()) == sorted(objective.rows.passages.tolist())
    assert len(micro_batches) > 4
    for batch in micro_batches:
        assert objective.store.pair_batch(*batch.pairs()).input_ids.size <= TIGHT


@pytest.mark.parametrize("layout", ["pair", "joined"])
def test_a_list_that_could_exceed_the_budget_is_refused_before_training(
    store: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CrossEncoder, "pair_layout", layout)
    tokens = TokenStore.open(store)
    queries, passages = np.indices((tokens.queries, tokens.passages)).reshape(2, -1)
    longest = tokens.pair_lengths(queries, passages, layout).max()
    assert tokens.longest_pair(layout) == longest
    ranker_objective(store, "listwise", token_budget=3 * longest)
    with pytest.raises(ValueError, match=rf"list of 3 .* up to {3 * longest} .*raise that to"):
        ranker_objective(store, "listwise", token_budget=3 * longest - 1)
    ranker_objective(store, "pointwise", token_budget=longest)


def test_describe_counts_negatives(store: Path) -> None:
    pointwise = ranker_objective(store, "pointwise", adversarial=0.01)
    assert pointwise.describe(8) == (
        "1.7 negatives per positive (pointwise, word embeddings perturbed)"
    )
    assert ranker_objective(store, "listwise").describe(8) == "2 negatives per query (listwise)"
