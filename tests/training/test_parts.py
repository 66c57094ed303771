"""A training in parts goes on where the part before has ended: one schedule, the same moments."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.artifacts.checkpoints import StoreCheckpoints
from pipeline.artifacts.store import Store
from pipeline.training.joint import JointObjective
from pipeline.training.loop import TrainingPlan, train
from pipeline.training.optimizer import OptimizerPlan
from pipeline.training.phases import Phases
from pipeline.training.retriever import RetrieverObjective
from pipeline.training.world import World
from tests.training.training_cases import Quiet, joint_objective, retriever_objective

SINGLE = World.single(torch.device("cpu"))
PLAN = TrainingPlan(
    seed=7,
    # All rows in every batch: the order of the batches then makes no difference.
    global_batch_size=16,
    optimizers={"retriever": OptimizerPlan(0.003, schedule="linear", warmup_ratio=0.25)},
    max_steps=8,
)


def matrices(objective: RetrieverObjective | JointObjective) -> Tensor:
    """All weights but vectors: some of those have only rounding for a gradient, as Adam sees."""
    models = objective.models.values()
    return torch.cat(
        [p.detach().flatten() for model in models for p in model.parameters() if p.ndim > 1]
    )


def run(
    folder: Path,
    objective: RetrieverObjective | JointObjective,
    plan: TrainingPlan,
    before: Path | None = None,
) -> Path:
    """Train; the folder of the last checkpoint. `before` is that of the part before."""
    checkpoints = StoreCheckpoints(Store(str(folder)), "checkpoints")
    names = list(plan.optimizers)
    moments = {name: before / f"{name}.optimizer.safetensors" for name in names} if before else {}
    train(objective, plan, SINGLE, checkpoints, Quiet(), folder / "training.jsonl", moments)
    last = checkpoints.latest()
    assert last is not None
    return last[1]


def rates(folder: Path, name: str = "learning_rate") -> list[float]:
    lines = [json.loads(line) for line in (folder / "training.jsonl").open()]
    return [line[name] for line in lines if name in line]


def test_two_parts_are_one_training(store: Path, tmp_path: Path) -> None:
    whole, parts, cold = (retriever_objective(store) for _ in range(3))
    start = matrices(whole)
    run(tmp_path / "whole", whole, PLAN)
    first = run(tmp_path / "1", parts, replace(PLAN, max_steps=4, part=(1, 2)))
    run(tmp_path / "2", parts, replace(PLAN, max_steps=4, part=(2, 2)), first)
    assert rates(tmp_path / "1") + rates(tmp_path / "2") == pytest.approx(rates(tmp_path / "whole"))
    # Without the moments the second part begins anew.
    run(tmp_path / "a", cold, replace(PLAN, max_steps=4, part=(1, 2)))
    run(tmp_path / "b", cold, replace(PLAN, max_steps=4, part=(2, 2)))
    moved = (matrices(whole) - start).norm()
    assert (matrices(parts) - matrices(whole)).norm() < 0.01 * moved
    assert (matrices(cold) - matrices(whole)).norm() > 0.1 * moved


def test_models_that_take_turns_go_on_with_their_own_schedules(store: Path, tmp_path: Path) -> None:
    turns = Phases((("ranker", 1), ("retriever", 3)))
    plan = replace(
        PLAN,
        phases=turns,
        optimizers={
            "retriever": OptimizerPlan(0.01, schedule="linear", warmup_ratio=0.5),
            "ranker": OptimizerPlan(0.002, schedule="linear", warmup_ratio=0.5),
        },
    )

    def objective() -> JointObjective:
        return joint_objective(store, phases=turns)

    whole, parts = objective(), objective()
    start = matrices(whole)
    run(tmp_path / "whole", whole, plan)
    first = run(tmp_path / "1", parts, replace(plan, max_steps=4, part=(1, 2)))
    run(tmp_path / "2", parts, replace(plan, max_steps=4, part=(2, 2)), first)
    for name in ("retriever_learning_rate", "ranker_learning_rate"):
        both = rates(tmp_path / "1", name) + rates(tmp_path / "2", name)
        assert both == pytest.approx(rates(tmp_path / "whole", name))
    moved = (matrices(whole) - start).norm()
    assert (matrices(parts) - matrices(whole)).norm() < 0.01 * moved


def test_moments_of_another_model_are_refused(store: Path, tmp_path: Path) -> None:
    first = run(tmp_path / "1", retriever_objective(store), replace(PLAN, max_steps=2, part=(1, 2)))
    file = first / "retriever.optimizer.safetensors"
    file.rename(first / "ranker.optimizer.safetensors")
    plan = replace(PLAN, max_steps=2, part=(2, 2))
    both = replace(plan, optimizers={**PLAN.optimizers, "ranker": OptimizerPlan(0.01)})
    objective = joint_objective(store)
    (first / "retriever.optimizer.safetensors").write_bytes(
        (first / "ranker.optimizer.safetensors").read_bytes()
    )
    with pytest.raises(ValueError, match="moments of another model"):
        run(tmp_path / "2", objective, both, first)


def test_without_an_end_only_the_first_part_warms_up(store: Path, tmp_path: Path) -> None:
    plan = replace(
        PLAN,
        max_steps=4,
        optimizers={"retriever": OptimizerPlan(0.003, schedule="constant", warmup_ratio=0.5)},
    )
    objective = retriever_objective(store)
    first = run(tmp_path / "1", objective, replace(plan, part=(1, None)))
    run(tmp_path / "2", objective, replace(plan, part=(2, None)), first)
    assert rates(tmp_path / "1") == pytest.approx([0.0, 0.0015, 0.003, 0.003])
    assert rates(tmp_path / "2") == pytest.approx([0.003] * 4)
