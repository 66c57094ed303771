"""A retriever and a ranker that take turns (AR2)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.artifacts.checkpoints import StoreCheckpoints
from pipeline.artifacts.store import Store
from pipeline.training.batches import Share
from pipeline.training.joint import JointObjective
from pipeline.training.loop import TrainingPlan, TrainingResult, train
from pipeline.training.optimizer import OptimizerPlan
from pipeline.training.phases import Phases
from pipeline.training.world import World
from tests.training.test_joint import literal_scores
from tests.training.training_cases import (
    ROOMY,
    TIGHT,
    Quiet,
    WorkerGroup,
    gradients,
    joint_objective,
    joint_step,
)

SINGLE = World.single(torch.device("cpu"))
# Steps 0 and 1 are the ranker's, 2 to 4 the retriever's, 5 and 6 the ranker's again.
TURNS = Phases((("ranker", 2), ("retriever", 3)))
RATES = {"retriever": 0.01, "ranker": 0.004}


def objective(store: Path, dropout: float = 0.0, **options: Any) -> JointObjective:
    return joint_objective(store, dropout, phases=TURNS, **options)


def run(
    folder: Path, trained: JointObjective, steps: int = 8, schedule: Any = "linear"
) -> TrainingResult:
    plan = TrainingPlan(
        seed=7,
        global_batch_size=4,
        optimizers={
            name: OptimizerPlan(
                rate, schedule=schedule, warmup_ratio=0.5 if schedule == "linear" else 0.0
            )
            for name, rate in RATES.items()
        },
        max_steps=steps,
        checkpoint_steps=3,
        phases=TURNS,
    )
    checkpoints = StoreCheckpoints(Store(str(folder)), "checkpoints")
    return train(trained, plan, SINGLE, checkpoints, Quiet(), folder / "training.jsonl")


def weights(trained: JointObjective) -> dict[str, list[Tensor]]:
    return {
        name: [parameter.detach().clone() for parameter in model.parameters()]
        for name, model in trained.models.items()
    }


def journal(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "training.jsonl").open()]


def test_a_turn_touches_its_own_model_alone(store: Path) -> None:
    trained = objective(store, dropout=0.1)
    for step in range(7):
        for model in trained.models.values():
            model.zero_grad()
        scalars = trained.step(Share(np.arange(16), step), SINGLE)
        own, other = (
            ("ranker", "retriever") if TURNS.at(step) == "ranker" else ("retriever", "ranker")
        )
        assert gradients(trained.models[own])
        assert not gradients(trained.models[other])
        assert set(scalars) == {"loss", "ranker_loss" if own == "ranker" else "divergence"}
        assert trained.ranker.training is (own == "ranker")


def test_the_models_stand_still_while_it_is_not_their_turn(store: Path, tmp_path: Path) -> None:
    moved = []
    for steps in range(1, 8):
        trained = objective(store)
        run(tmp_path / str(steps), trained, steps, schedule="constant")
        moved.append(weights(trained))
    for steps in range(1, 7):
        # A run of one step more begins with the same steps.
        before, after = moved[steps - 1], moved[steps]
        for name in RATES:
            pairs = zip(before[name], after[name], strict=True)
            assert all(torch.equal(*pair) for pair in pairs) is (name != TURNS.at(steps))


def test_schedules_count_their_own_steps(store: Path, tmp_path: Path) -> None:
    run(tmp_path, objective(store), steps=10)
    lines = journal(tmp_path)
    for name, own in (("ranker", 4), ("retriever", 6)):
        rates = [line[f"{name}_learning_rate"] for line in lines if f"{name}_learning_rate" in line]
        warm = own // 2
        up = [RATES[name] * step / warm for step in range(warm)]
        down = [RATES[name] * (own - step) / (own - warm) for step in range(warm, own)]
        assert rates == pytest.approx(up + down)


def test_interrupted_in_a_turn_and_resumed_equals_undisturbed(store: Path, tmp_path: Path) -> None:
    whole, broken, resumed = (objective(store, dropout=0.1) for _ in range(3))
    run(tmp_path / "whole", whole)
    steps, inner = 0, broken.step

    def dying(share: Share, world: World) -> Any:
        nonlocal steps
        steps += 1
        if steps == 6:
            raise KeyboardInterrupt
        return inner(share, world)

    object.__setattr__(broken, "step", dying)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", broken)
    assert run(tmp_path / "broken", resumed).resumed_at == 3
    for name, expected in weights(whole).items():
        for left, right in zip(weights(resumed)[name], expected, strict=True):
            assert torch.equal(left, right)
    losses = [[line["loss"] for line in journal(tmp_path / name)] for name in ("whole", "broken")]
    assert losses[0] == losses[1]


def literal(trained: JointObjective, model: str) -> Tensor:
    """The loss of a model's turn over all 16 rows, written down plainly."""
    student, teacher = literal_scores(trained)
    if model == "ranker":
        return F.cross_entropy(teacher, torch.zeros(16, dtype=torch.long))
    terms, teacher = trained.terms, teacher.detach()
    log_student = F.log_softmax(student, dim=1)
    divergence = F.kl_div(log_student, F.softmax(teacher, dim=1), reduction="batchmean")
    rewards = F.logsigmoid(teacher[:, :1] - teacher)
    term = {
        "none": torch.tensor(0.0),
        "policy_gradient": (F.softmax(student[:, 1:], dim=1) * rewards[:, 1:]).sum(1).mean(),
        "reward_weighted": (rewards * log_student).sum(),
    }
    return 0.5 * divergence + terms.reward_weight * term[terms.reward]


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("budget", [ROOMY, TIGHT])
@pytest.mark.parametrize(
    ("step", "reward"),
    [(0, "policy_gradient"), (2, "none"), (2, "policy_gradient"), (2, "reward_weighted")],
)
def test_a_turn_has_its_models_objective_for_any_number_of_workers(
    workers: WorkerGroup, store: Path, size: int, budget: int, step: int, reward: str
) -> None:
    """The ranker's own loss; the retriever's as in the paper, as released, and distillation."""
    terms = {"divergence_weight": 0.5, "reward": reward, "reward_weight": 0.3}
    model, oracle = TURNS.at(step), objective(store, terms=terms)
    loss = literal(oracle, model)
    loss.backward()
    expected = {f"{model}.{name}": each for name, each in gradients(oracle.models[model]).items()}
    options = {"terms": terms, "phases": TURNS, "token_budget": budget}
    for scalars, measured in workers.run(size, joint_step, store, options, step):
        assert scalars["loss"] == pytest.approx(float(loss.detach()), rel=1e-5, abs=1e-6)
        assert measured.keys() == expected.keys()
        for name, gradient in expected.items():
            np.testing.assert_allclose(measured[name], gradient, rtol=1e-4, atol=2e-6, err_msg=name)
