from __future__ import annotations

import json
import multiprocessing
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from training_cases import (
    CPU,
    Quiet,
    WorkerGroup,
    in_process_group,
    plan,
    retriever_objective,
    train_objective,
)

from pipeline.artifacts.checkpoints import StoreCheckpoints
from pipeline.artifacts.store import Store
from pipeline.training.loop import TrainingDiverged, TrainingPlan, TrainingResult, train
from pipeline.training.optimizer import OptimizerPlan, build_optimizer
from pipeline.training.world import World


class Regression:
    """Two linear models fit to the same targets; the second is trained in odd steps only."""

    rows_per_group = 1

    def __init__(self, broken_at: int | None = None) -> None:
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(3, 1), nn.Linear(3, 1)
        draw = np.random.default_rng(0)
        self.inputs = torch.tensor(draw.normal(size=(20, 3)), dtype=torch.float32)
        self.targets = torch.tensor(draw.normal(size=(20, 1)), dtype=torch.float32)
        self.steps = 0
        self.broken_at = broken_at

    @property
    def models(self) -> Mapping[str, nn.Module]:
        return {"first": self.first, "second": self.second}

    @property
    def row_count(self) -> int:
        return 20

    def describe(self, global_batch_size: int) -> str:
        return "no negatives"

    def step(self, share: Any, world: World) -> Mapping[str, Tensor]:
        loss = self.loss(self.first, share.rows)
        if self.steps == self.broken_at:
            loss = loss * float("nan")
        loss.backward()
        if self.steps % 2:
            self.loss(self.second, share.rows).backward()
        self.steps += 1
        return {"loss": loss}

    def loss(self, model: nn.Module, rows: Any) -> Tensor:
        return ((model(self.inputs[rows]) - self.targets[rows]) ** 2).mean()


TWO = {
    "first": OptimizerPlan(0.1, weight_decay=0.1, max_gradient_norm=0.5, schedule="linear"),
    "second": OptimizerPlan(0.02, schedule="constant", warmup_ratio=0.0),
}


def run(
    folder: Path,
    objective: Any,
    plan: TrainingPlan,
    notes: list[str] | None = None,
) -> TrainingResult:
    progress = Quiet()
    result = train(
        objective,
        plan,
        World.single(CPU),
        StoreCheckpoints(Store(str(folder)), "checkpoints"),
        progress,
        folder / "training.jsonl",
    )
    if notes is not None:
        notes += progress.notes
    return result


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]


def final_state(folder: Path) -> dict[str, bytes]:
    _, checkpoint = StoreCheckpoints(Store(str(folder)), "checkpoints").latest() or (0, Path())
    return {path.name: path.read_bytes() for path in checkpoint.glob("*.safetensors")}


def test_two_models_with_their_own_optimizers_equal_a_loop_by_hand(tmp_path: Path) -> None:
    objective = Regression()
    two = plan(optimizers=TWO, num_train_epochs=4)
    run(tmp_path, objective, two)
    by_hand = Regression()
    first = torch.optim.AdamW(
        [
            {"params": [by_hand.first.weight], "weight_decay": 0.1},
            {"params": [by_hand.first.bias], "weight_decay": 0.0},
        ]
    )
    second = torch.optim.AdamW(by_hand.second.parameters(), lr=0.02, weight_decay=0.0)
    batches = two.batches(20)
    rates, norms = [], []
    for step in range(20):
        # Warm-up over the first 2 of 20 steps, then linearly down to 0 at step 20.
        rates.append(0.1 * (step / 2 if step < 2 else (20 - step) / 18))
        for group in first.param_groups:
            group["lr"] = rates[-1]
        first.zero_grad()
        second.zero_grad()
        by_hand.loss(by_hand.first, batches.global_rows(step)).backward()
        norms.append(float(nn.utils.clip_grad_norm_(by_hand.first.parameters(), 0.5)))
        first.step()
        if step % 2:
            by_hand.loss(by_hand.second, batches.global_rows(step)).backward()
            nn.utils.clip_grad_norm_(by_hand.second.parameters(), 1.0)
            second.step()
    for name, model in by_hand.models.items():
        for expected, trained in zip(
            model.parameters(), objective.models[name].parameters(), strict=True
        ):
            torch.testing.assert_close(trained, expected)
    written = lines(tmp_path)
    assert [line["step"] for line in written] == list(range(1, 21))
    assert [line["first_learning_rate"] for line in written] == pytest.approx(rates)
    assert [line["first_gradient_norm"] for line in written] == pytest.approx(norms, rel=1e-4)
    assert max(norms) > 0.5


def test_biases_and_layer_norm_have_no_weight_decay() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Embedding(4, 3))
    optimizer = build_optimizer(model, OptimizerPlan(1e-3, weight_decay=0.01))
    decay = {
        id(parameter): group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert {name: decay[id(parameter)] for name, parameter in model.named_parameters()} == {
        "0.weight": 0.01,
        "0.bias": 0.0,
        "1.weight": 0.0,
        "1.bias": 0.0,
        "2.weight": 0.01,
    }


@pytest.mark.parametrize("length", [0.5, 40.0])
def test_lamb_moves_every_tensor_by_its_own_length(length: float) -> None:
    model = nn.Linear(3, 2).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= length / parameter.norm()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = build_optimizer(model, OptimizerPlan(0.01, "lamb", weight_decay=0.1))
    model(torch.ones(1, 3, dtype=torch.float64)).pow(2).sum().backward()
    optimizer.step()
    for old, new, decay in zip(before, model.parameters(), (0.1, 0.0), strict=True):
        first, second = 0.1 * new.grad, 0.001 * new.grad**2
        update = first / (second.sqrt() + 1e-6) + decay * old
        expected = old - 0.01 * old.norm() / update.norm() * update
        torch.testing.assert_close(new.detach(), expected, rtol=1e-5, atol=1e-9)
        moved = float((new.detach() - old).norm())
        assert moved == pytest.approx(0.01 * length, rel=1e-5)


def test_lamb_resumed_equals_lamb_undisturbed(tmp_path: Path) -> None:
    optimizers = {name: replace(each, name="lamb") for name, each in TWO.items()}
    lamb = plan(optimizers=optimizers, checkpoint_steps=2)
    whole, resumed = Regression(), Regression()
    run(tmp_path / "whole", whole, lamb)
    with pytest.raises(TrainingDiverged):
        run(tmp_path / "broken", Regression(broken_at=5), lamb)
    assert run(tmp_path / "broken", resumed, lamb).resumed_at == 4
    assert torch.equal(resumed.first.weight, whole.first.weight)
    assert torch.equal(resumed.second.weight, whole.second.weight)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize(
    ("kind", "models"),
    [
        ("retriever", ["retriever"]),
        ("joint", ["ranker", "retriever"]),
        ("query_tower", ["retriever"]),
    ],
)
def test_killed_and_resumed_equals_undisturbed(
    workers: WorkerGroup, store: Path, tmp_path: Path, size: int, kind: str, models: list[str]
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    undisturbed = workers.run(size, train_objective, store, whole, kind)[0]
    context = multiprocessing.get_context("spawn")
    doomed = [
        context.Process(
            target=in_process_group,
            args=(rank, size, tmp_path / "meeting", train_objective, (store, broken, kind, True)),
        )
        for rank in range(size)
    ]
    for process in doomed:
        process.start()
    for process in doomed:
        process.join()
    assert doomed[-1].exitcode == -9
    assert [line["step"] for line in lines(broken)] == [1, 2, 3, 4]
    resumed = workers.run(size, train_objective, store, broken, kind)[0]
    assert (undisturbed.resumed_at, resumed.resumed_at) == (0, 3)
    assert final_state(broken) == final_state(whole)
    parts = ("optimizer", "weights")
    assert sorted(final_state(whole)) == [f"{m}.{p}.safetensors" for m in models for p in parts]
    for expected, measured in zip(lines(whole), lines(broken), strict=True):
        del expected["rows_per_second"], measured["rows_per_second"]
        assert measured == expected


def test_a_finished_run_only_restores_its_weights(tmp_path: Path) -> None:
    two = plan(optimizers=TWO)
    trained = Regression()
    first = run(tmp_path, trained, two)
    fresh, notes = Regression(), list[str]()
    again = run(tmp_path, fresh, two, notes)
    assert fresh.steps == 0
    assert torch.equal(fresh.first.weight, trained.first.weight)
    assert again.metrics == first.metrics
    assert notes == ["training was finished already: 10 steps"]


def test_lines_beyond_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    two = plan(optimizers=TWO)
    with pytest.raises(TrainingDiverged):
        run(tmp_path, Regression(broken_at=5), two)
    with (tmp_path / "training.jsonl").open("a") as stream:
        stream.write('{"step": 9, "lo')
    resumed = run(tmp_path, Regression(), two)
    assert resumed.resumed_at == 3
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 11))


def test_a_loss_that_is_no_number_stops_and_says_where(tmp_path: Path) -> None:
    objective = Regression(broken_at=4)
    with pytest.raises(TrainingDiverged, match=r"step 5 of 10 \(epoch 0\): the loss is nan"):
        run(tmp_path, objective, plan(optimizers=TWO))
    assert bool(torch.isfinite(objective.first.weight).all())


def test_checkpoints_of_another_plan_are_refused(tmp_path: Path) -> None:
    run(tmp_path, Regression(), plan(optimizers=TWO))
    with pytest.raises(ValueError, match=r"another training run \(seed: 7 there, 8 here\)"):
        run(tmp_path, Regression(), plan(optimizers=TWO, seed=8))
    # How often checkpoints are kept changes no result.
    assert run(tmp_path, Regression(), plan(optimizers=TWO, checkpoint_steps=1)).resumed_at == 10


def test_a_retriever_learns_its_rows(store: Path, tmp_path: Path) -> None:
    long = plan(global_batch_size=8, num_train_epochs=40, checkpoint_steps=1000)
    result = run(tmp_path, retriever_objective(store), long)
    assert lines(tmp_path)[0]["loss"] > 1.0
    assert result.metrics["loss"] < 0.5


def test_the_opening_line_says_what_will_happen(store: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    run(tmp_path, retriever_objective(store), plan(num_train_epochs=3), notes)
    assert notes[0].startswith("training with 1 process on cpu")
    assert (
        "global batch 4, 11 negatives per query (cross-batch, 2 of them its own), "
        "12 steps over 16 rows (4 steps an epoch, 0 rows left over)"
    ) in notes[0]
    assert "s a step: about" in notes[1]


def test_shares_that_do_not_fit_are_refused(store: Path, tmp_path: Path) -> None:
    objective = retriever_objective(store, negatives="in_batch", in_batch_group_size=2)
    arguments = (
        StoreCheckpoints(Store(str(tmp_path)), "checkpoints"),
        Quiet(),
        tmp_path / "training.jsonl",
    )
    with pytest.raises(ValueError, match=r"whole groups of 2: use 1 or 2 workers"):
        train(objective, plan(), World(0, 4, CPU), *arguments)
    odd = retriever_objective(store, negatives="in_batch", in_batch_group_size=3)
    with pytest.raises(ValueError, match="no multiple of the group size 3"):
        train(odd, plan(), World.single(CPU), *arguments)
    with pytest.raises(ValueError, match=r"planned for \['ranker'\].*models are \['retriever'\]"):
        train(
            objective,
            plan(optimizers={"ranker": OptimizerPlan(1e-3)}),
            World.single(CPU),
            *arguments,
        )
