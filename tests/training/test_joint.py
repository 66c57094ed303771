from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from training_cases import (
    CPU,
    ROOMY,
    TIGHT,
    Quiet,
    WorkerGroup,
    gradients,
    joint_objective,
    joint_step,
    training_rows,
)

from pipeline.artifacts.checkpoints import StoreCheckpoints
from pipeline.artifacts.store import Store
from pipeline.models.encoder import TensorBatch, TextEncoder
from pipeline.training.batches import Share
from pipeline.training.joint import JointObjective
from pipeline.training.loop import TrainingPlan, TrainingResult, train
from pipeline.training.optimizer import OptimizerPlan
from pipeline.training.world import World

SINGLE = World.single(CPU)
PAPER = {"direction": "student||teacher", "teacher_gradient": True}
RELEASED = {"direction": "teacher||student", "reduction": "per_element"}
OURS: dict[str, Any] = {}
CASES: list[dict[str, Any]] = [
    {"terms": PAPER},
    {"terms": RELEASED},
    {"terms": OURS},
    {"terms": {"distillation": "margin_mse", "teacher_gradient": True, "divergence_weight": 0.1}},
    {"terms": {"ranker_loss": "pointwise", "contrastive_weight": 0.5}},
    {"teacher": "static"},
    {"query_per_row": True},
]


def literal_scores(objective: JointObjective) -> tuple[Tensor, Tensor]:
    """Both models' scores [L, m], list by list and pair by pair."""
    store, rows = objective.store, objective.rows
    students, teachers = [], []
    for query, positive, negatives in zip(
        rows.query_indices, rows.positives, rows.negatives, strict=True
    ):
        passages = np.array([positive, *negatives])
        vector = objective.retriever.encode_queries(
            TensorBatch.from_tokens(store.query_batch(np.array([query])), CPU)
        )
        vectors = objective.retriever.encode_passages(
            TensorBatch.from_tokens(store.passage_batch(passages), CPU)
        )
        students.append((vectors @ vector[0]) / objective.retriever.config.temperature)
        pairs = store.pair_batch(np.full(len(passages), query), passages)
        teachers.append(objective.ranker(TensorBatch.from_tokens(pairs, CPU)))
    return torch.stack(students), torch.stack(teachers)


def literal_loss(objective: JointObjective) -> Tensor:
    student, teacher = literal_scores(objective)
    terms = objective.terms
    seen = teacher if terms.teacher_gradient else teacher.detach()
    s, t = student.softmax(1), seen.softmax(1)
    divergence = s * (s / t).log() if terms.direction == "student||teacher" else t * (t / s).log()
    loss = divergence.sum() / (len(s) if terms.reduction == "per_list" else s.numel())
    if terms.distillation == "margin_mse":
        loss = F.mse_loss(student[:, :1] - student[:, 1:], seen[:, :1] - seen[:, 1:])
    loss = terms.divergence_weight * loss
    if objective.teacher == "dynamic" and terms.ranker_loss == "listwise":
        loss = loss - teacher.log_softmax(1)[:, 0].mean()
    elif objective.teacher == "dynamic":
        labels = torch.zeros_like(teacher)
        labels[:, 0] = 1
        loss = loss + F.binary_cross_entropy(teacher.sigmoid(), labels)
    return loss - terms.contrastive_weight * student.log_softmax(1)[:, 0].mean()


def both(objective: JointObjective) -> nn.ModuleDict:
    return nn.ModuleDict({"retriever": objective.retriever, "ranker": objective.ranker})


def literal_gradients(objective: JointObjective) -> tuple[float, dict[str, np.ndarray]]:
    loss = literal_loss(objective)
    loss.backward()
    return float(loss.detach()), gradients(both(objective))


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("budget", [ROOMY, TIGHT])
@pytest.mark.parametrize("case", CASES)
def test_gradients_of_both_models_equal_the_plain_computation_for_any_number_of_workers(
    workers: WorkerGroup, store: Path, size: int, budget: int, case: dict[str, Any]
) -> None:
    oracle = joint_objective(store, **case)
    loss, expected = literal_gradients(oracle)
    assert {name.split(".")[0] for name in expected} == set(oracle.models)
    options = {**case, "token_budget": budget}
    for scalars, measured in workers.run(size, joint_step, store, options):
        assert scalars["loss"] == pytest.approx(loss, rel=1e-5, abs=1e-6)
        parts = [value for name, value in scalars.items() if name != "loss"]
        assert sum(parts) == pytest.approx(scalars["loss"], rel=1e-5)
        assert measured.keys() == expected.keys()
        for name, gradient in expected.items():
            np.testing.assert_allclose(measured[name], gradient, rtol=1e-4, atol=2e-6, err_msg=name)


def ranker_gradients(store: Path, **options: Any) -> dict[str, np.ndarray]:
    objective = joint_objective(store, **options)
    objective.step(Share(np.arange(16)), SINGLE)
    return gradients(objective.ranker)


def test_the_divergence_moves_the_ranker_exactly_where_it_is_told_to(store: Path) -> None:
    supervised = joint_objective(store)
    F.cross_entropy(literal_scores(supervised)[1], torch.zeros(16, dtype=torch.long)).backward()
    alone = gradients(supervised.ranker)
    for name, gradient in ranker_gradients(store, terms=OURS).items():
        np.testing.assert_allclose(gradient, alone[name], rtol=1e-4, atol=1e-6, err_msg=name)
    mutual = ranker_gradients(store, terms=PAPER)
    assert all(
        np.abs(mutual[name] - gradient).max() > 1e-3 * np.abs(gradient).max()
        for name, gradient in alone.items()
        if name.endswith("weight") and np.abs(gradient).max() > 1e-4
    )


def test_a_static_teacher_gets_no_gradient_and_the_retriever_learns_the_same(store: Path) -> None:
    static, dynamic = (joint_objective(store, teacher=kind) for kind in ("static", "dynamic"))
    scalars = static.step(Share(np.arange(16)), SINGLE)
    dynamic.step(Share(np.arange(16)), SINGLE)
    assert gradients(static.ranker) == {} and set(scalars) == {"loss", "divergence"}
    assert list(static.models) == ["retriever"] and not static.ranker.training
    expected = gradients(dynamic.retriever)
    for name, gradient in gradients(static.retriever).items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-4, atol=1e-6, err_msg=name)


def seen_by(encoder: TextEncoder) -> list[tuple[int, int]]:
    """The shapes [rows, tokens] of the inputs that `encoder` is going to see."""
    shapes: list[tuple[int, int]] = []
    encoder.register_forward_pre_hook(
        lambda _, given: shapes.append(tuple(given[0].input_ids.shape))
    )
    return shapes


@pytest.mark.parametrize("teacher", ["dynamic", "static"])
@pytest.mark.parametrize(("per_row", "encoded"), [(False, 16), (True, 16 * 4)])
def test_a_query_is_encoded_once_a_list_or_once_a_passage(
    store: Path, teacher: str, per_row: bool, encoded: int
) -> None:
    objective = joint_objective(store, query_per_row=per_row, teacher=teacher, token_budget=ROOMY)
    shapes = seen_by(objective.retriever.query_tower)
    objective.step(Share(np.arange(16)), SINGLE)
    assert sum(rows for rows, _ in shapes) == encoded


@pytest.mark.parametrize("case", [{"terms": PAPER}, {"teacher": "static"}, {"query_per_row": True}])
def test_a_list_of_128_passages_fits_a_small_device(store: Path, case: dict[str, Any]) -> None:
    def one_list(**options: Any) -> JointObjective:
        return replace(joint_objective(store, **case, **options), rows=training_rows(1, 127))

    objective = one_list(token_budget=TIGHT)
    retriever = objective.retriever
    encoders = (retriever.query_tower, retriever.passage_tower, objective.ranker.encoder)
    seen = [seen_by(encoder) for encoder in encoders]
    loss = objective.step(Share(np.arange(1)), SINGLE)["loss"]
    assert all(rows * tokens <= TIGHT for shapes in seen for rows, tokens in shapes)
    assert [sum(rows for rows, _ in shapes) >= 128 for shapes in seen[1:]] == [True, True]
    expected_loss, expected = literal_gradients(one_list())
    assert float(loss) == pytest.approx(expected_loss, rel=1e-5, abs=1e-6)
    measured = gradients(both(objective))
    assert measured.keys() == expected.keys()
    for name, gradient in expected.items():
        np.testing.assert_allclose(measured[name], gradient, rtol=1e-4, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_query_encoded_per_row_differs_by_its_dropout_alone(store: Path, dropout: float) -> None:
    losses = []
    for per_row in (False, True):
        objective = joint_objective(store, dropout, query_per_row=per_row, teacher="static")
        torch.manual_seed(1)
        losses.append(float(objective.step(Share(np.arange(16)), SINGLE)["loss"]))
    assert (losses[0] == pytest.approx(losses[1], rel=1e-5)) is (dropout == 0.0)


# Training ------------------------------------------------------------------------------------


@dataclass
class Interrupted:
    """A joint objective that stops at a step of its own counting."""

    inner: JointObjective
    stops_at: int | None = None
    steps: int = field(default=0)

    @property
    def models(self) -> Mapping[str, nn.Module]:
        return self.inner.models

    @property
    def row_count(self) -> int:
        return self.inner.row_count

    @property
    def rows_per_group(self) -> int:
        return self.inner.rows_per_group

    def describe(self, global_batch_size: int) -> str:
        return self.inner.describe(global_batch_size)

    def step(self, share: Any, world: World) -> Mapping[str, Tensor]:
        if self.steps == self.stops_at:
            raise KeyboardInterrupt
        self.steps += 1
        return self.inner.step(share, world)


def run(folder: Path, objective: Any) -> TrainingResult:
    plan = TrainingPlan(
        seed=7,
        global_batch_size=4,
        optimizers={name: OptimizerPlan(0.01) for name in objective.models},
        max_steps=8,
        checkpoint_steps=3,
    )
    checkpoints = StoreCheckpoints(Store(str(folder)), "checkpoints")
    return train(objective, plan, SINGLE, checkpoints, Quiet(), folder / "training.jsonl")


def weights(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def same(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(left, right, strict=True))


@pytest.mark.parametrize("teacher", ["dynamic", "static"])
def test_the_dynamic_teacher_moves_and_the_static_one_does_not(
    store: Path, tmp_path: Path, teacher: str
) -> None:
    objective = joint_objective(store, dropout=0.1, teacher=teacher)
    retriever, ranker = weights(objective.retriever), weights(objective.ranker)
    run(tmp_path, objective)
    assert not same(weights(objective.retriever), retriever)
    assert same(weights(objective.ranker), ranker) is (teacher == "static")


@pytest.mark.parametrize("teacher", ["dynamic", "static"])
def test_interrupted_and_resumed_equals_undisturbed(
    store: Path, tmp_path: Path, teacher: str
) -> None:
    def fresh() -> JointObjective:
        return joint_objective(store, dropout=0.1, teacher=teacher)

    whole, resumed = fresh(), fresh()
    run(tmp_path / "whole", whole)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", Interrupted(fresh(), stops_at=5))
    assert run(tmp_path / "broken", resumed).resumed_at == 3
    assert same(weights(resumed.retriever), weights(whole.retriever))
    assert same(weights(resumed.ranker), weights(whole.ranker))
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "training.jsonl").open()]
        for name in ("whole", "broken")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 8
