"""The training loop of every objective: the same code in one process and in many."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.methods import schedules
from pipeline.methods.refresh import RefreshSchedule
from pipeline.models.device import describe
from pipeline.training.batches import Batches, part_seed
from pipeline.training.checkpoints import CheckpointStore
from pipeline.training.journal import Journal
from pipeline.training.objective import Objective, Progress
from pipeline.training.optimizer import OptimizerPlan, build_optimizer, parameters_of
from pipeline.training.phases import Phases
from pipeline.training.refresh import Refresher, Section
from pipeline.training.state import (
    load_information,
    load_moments,
    load_state,
    save_state,
    weights_of,
)
from pipeline.training.world import World

MEASURED_STEPS = 5
JOURNAL = "training.jsonl"


class TrainingDiverged(ArithmeticError):
    """The loss or a gradient is not a finite number."""


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that shapes a training run beside the objective.

    Attributes:
        seed: of the batches' order and of dropout.
        global_batch_size: rows of one step over all workers.
        optimizers: one for each of the objective's models, by the model's name.
        num_train_epochs: passes over the rows.
        max_steps: number of steps in place of `num_train_epochs`.
        checkpoint_steps: a checkpoint is kept every so many steps, and at the end.
        phases: models that take turns; each model's schedule then counts its own steps alone. None
            trains all in every step.
        part: (number, of), 1-based: this is one of several equally long parts of a training, whose
            schedules run over all of them; without `of` a part after the first has the full rate.
        refresh: when rows are made anew by the weights of this training; None: never.
    """

    seed: int
    global_batch_size: int
    optimizers: Mapping[str, OptimizerPlan]
    num_train_epochs: float = 1.0
    max_steps: int | None = None
    checkpoint_steps: int = 500
    phases: Phases | None = None
    part: tuple[int, int | None] | None = None
    refresh: RefreshSchedule | None = None

    def trained(self, step: int) -> Iterable[str]:
        """The models that 0-based `step` trains."""
        return self.optimizers if self.phases is None else (self.phases.at(step),)

    def rate(self, model: str, step: int, total: int) -> float:
        """A model's learning rate in 0-based `step` of `total`."""
        plan = self.optimizers[model]
        if self.phases is not None:
            step, total = (self.phases.done(model, count) for count in (step, total))
        number, parts = self.part or (1, 1)
        if parts is None and number > 1:
            return plan.learning_rate
        step, total = (number - 1) * total + step, (parts or 1) * total
        warmup = round(plan.warmup_ratio * total)
        return plan.learning_rate * schedules.factor(plan.schedule, step, total, warmup)

    def batches(self, rows: int, version: int = 0) -> Batches:
        """The batches of `rows` rows; each version of them is shuffled as a part of its own."""
        seed = part_seed(self.seed, 1 + version)
        return Batches(rows, self.global_batch_size, seed, self.num_train_epochs, self.max_steps)


@dataclass(frozen=True)
class TrainingResult:
    """What a finished training did.

    Attributes:
        steps: optimizer steps of the whole run.
        resumed_at: steps that an earlier attempt had done.
        dropped_per_epoch: rows left out of each epoch for filling no whole batch.
        metrics: means over the last tenth of the steps; empty on ranks other than 0.
    """

    steps: int
    resumed_at: int
    dropped_per_epoch: int
    metrics: Mapping[str, float]


def train(
    objective: Objective,
    plan: TrainingPlan,
    world: World,
    checkpoints: CheckpointStore,
    progress: Progress,
    metrics_file: Path,
    moments: Mapping[str, Path] | None = None,
    refresher: Refresher | None = None,
) -> TrainingResult:
    """Train the objective's models in place, from the last checkpoint where there is one.

    A resumed run ends with the same weights, bit for bit on a CPU, as one that was never
    interrupted; a finished run only restores its weights.

    Args:
        objective: what is trained.
        plan: how.
        world: this process among those that train together.
        checkpoints: where the run's state is kept; every rank must find the same there.
        progress: shows steps done; rank 0's alone.
        metrics_file: JSON lines, one a step, written by rank 0; lines beyond the step that a run
            resumes at are dropped. Checkpoints are put together in its folder.
        moments: of each optimizer that goes on from another training's, by the model's name: a file
            as checkpoints hold it.
        refresher: makes rows anew, where the plan says when.

    Raises:
        ValueError: the rows, the global batch and the workers do not fit together, or the
            checkpoints belong to another plan.
        TrainingDiverged: a loss or gradient is not finite.
    """
    run = _Run(objective, plan, world, checkpoints, progress, metrics_file, refresher)
    first = run.resume(moments or {})
    total = run.total
    if world.rank == 0:
        progress.note(run.opening_line(first))
        progress.start("training", total, unit="steps")
        progress.advance(first)
    for step in range(first, total):
        run.step(step)
        # Before the checkpoint: where a run resumes, all earlier weights have been handed over.
        run.hand_over(step + 1)
        if (step + 1) % plan.checkpoint_steps == 0 or step + 1 == total:
            run.save(step + 1)
    return TrainingResult(
        total, first, run.section.batches.dropped_per_epoch, run.journal.means(max(1, total // 10))
    )


class _Run:
    """One attempt at a training run."""

    def __init__(
        self,
        objective: Objective,
        plan: TrainingPlan,
        world: World,
        checkpoints: CheckpointStore,
        progress: Progress,
        metrics_file: Path,
        refresher: Refresher | None,
    ) -> None:
        self.objective, self.plan, self.world = objective, plan, world
        self.checkpoints, self.progress, self.refresher = checkpoints, progress, refresher
        self.section = Section(objective, plan.batches(objective.row_count))
        self.total = self.section.batches.total_steps
        _check_shares(plan, objective, world)
        self.journal = Journal(metrics_file if world.rank == 0 else None)
        self.optimizers = {
            name: build_optimizer(model, plan.optimizers[name])
            for name, model in objective.models.items()
        }
        # Beside the metrics: the system's own temporary folder may be too small for moments.
        self.scratch = metrics_file.parent / "checkpoint-in-the-making"
        self.seconds: list[float] = []
        for model in objective.models.values():
            model.train()

    def resume(self, moments: Mapping[str, Path]) -> int:
        """Restore the last checkpoint, or start alike on every rank; returns the steps done."""
        found = self.checkpoints.latest()
        done = found[0] if found else 0
        if self.world.any(done != self.world.minimum(done)):
            raise ValueError(
                f"the workers see different checkpoints (rank {self.world.rank}: step {done}): "
                "the checkpoints must lie where every node reads the same files"
            )
        if found is None:
            self.journal.restart(None, 0)
            for model in self.objective.models.values():
                self.world.broadcast(weights_of(model).values())
            for name, file in moments.items():
                load_moments(file, self.optimizers[name])
            return 0
        folder = found[1]
        self._check_same_plan(folder)
        load_state(folder, self.objective.models, self.optimizers)
        self.journal.restart(folder / JOURNAL, done)
        return done

    def step(self, step: int) -> None:
        """Do 0-based step `step`."""
        told = self._refresh(step)
        started, section = time.perf_counter(), self.section
        _seed(section.batches.seed, step - section.first, self.world.rank)
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        share = section.share(step, self.world.rank, self.world.size)
        scalars = section.objective.step(share, self.world)
        means = self.world.mean(torch.stack([value.detach().float() for value in scalars.values()]))
        metrics = dict(zip(scalars, means.tolist(), strict=True))
        metrics |= self._update(step, metrics["loss"])
        seconds = time.perf_counter() - started
        self.journal.write(
            {
                "step": step + 1,
                "epoch": share.epoch,
                **told,
                **metrics,
                "rows_per_second": self.plan.global_batch_size / seconds,
            }
        )
        self._show(step, seconds)

    def _refresh(self, step: int) -> dict[str, Any]:
        """Go on with the rows in force at 0-based `step`; what the journal tells of them."""
        schedule, refresher = self.plan.refresh, self.refresher
        if schedule is None or refresher is None:
            return {}
        version, started = schedule.version(step), time.perf_counter()
        if version != self.section.version:
            found = refresher.exchanged(self.objective, version)
            batches = self.plan.batches(found.row_count, version)
            self.section = Section(found, batches, schedule.first_step(version), version)
        waited, of_step = time.perf_counter() - started, schedule.encoder_step(version)
        told: dict[str, Any] = {"negatives_of_step": of_step, "seconds_waited": waited}
        if version and step == self.section.first and self.world.rank == 0:
            told |= refresher.report(version)
            needed = (schedule.needed(done) for done in self.checkpoints.steps())
            refresher.retain({version}.union(*needed), version)
            self.progress.note(
                f"step {step + 1}: negatives of step {of_step}, waited {waited:.1f} s for them"
            )
        return told

    def hand_over(self, done: int) -> None:
        """Have new rows made by the weights after `done` steps, if they are due."""
        schedule, refresher = self.plan.refresh, self.refresher
        version = schedule.due(done, self.total) if schedule else None
        if version is not None and refresher is not None and self.world.rank == 0:
            refresher.hand_over(self.objective, version)

    def _update(self, step: int, loss: float) -> dict[str, float]:
        """Average, check, clip and apply the gradients; returns rates and norms."""
        optimizers = {name: self.optimizers[name] for name in self.plan.trained(step)}
        self.world.average_gradients(
            p for optimizer in optimizers.values() for p in parameters_of(optimizer)
        )
        metrics: dict[str, float] = {}
        norms: dict[str, float] = {}
        for name, optimizer in optimizers.items():
            limit = self.plan.optimizers[name].max_gradient_norm
            norms[name] = float(nn.utils.clip_grad_norm_(parameters_of(optimizer), limit))
        self._check_finite(step, {"loss": loss, **{f"{n} gradient": v for n, v in norms.items()}})
        for name, optimizer in optimizers.items():
            rate = self.plan.rate(name, step, self.total)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            prefix = f"{name}_" if len(self.optimizers) > 1 else ""
            metrics |= {f"{prefix}learning_rate": rate, f"{prefix}gradient_norm": norms[name]}
        return metrics

    def _check_finite(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                raise TrainingDiverged(
                    f"step {step + 1} of {self.total} (epoch "
                    f"{self.section.epoch(step)}): the {name} is {value}. The weights were "
                    "not updated. Try a lower learning_rate, a longer warmup_ratio, or precision "
                    "float32"
                )

    def save(self, done: int) -> None:
        """Keep a checkpoint after `done` steps."""
        if self.world.rank == 0:
            information = {"step": done, "workers": self.world.size, "plan": self._identity()}
            # One fixed name, so that a killed attempt leaves at most one behind.
            shutil.rmtree(self.scratch, ignore_errors=True)
            self.scratch.mkdir(parents=True)
            save_state(self.scratch, self.objective.models, self.optimizers, information)
            self.journal.copy_to(self.scratch / JOURNAL)
            self.checkpoints.save(done, self.scratch)
            shutil.rmtree(self.scratch)
        self.world.barrier()

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint must agree in, as JSON has it."""
        identity = asdict(self.plan) | {"rows": self.objective.row_count}
        del identity["checkpoint_steps"]
        # As JSON gives it back: tuples are lists there.
        found: dict[str, Any] = json.loads(json.dumps(identity))
        return found

    def _check_same_plan(self, folder: Path) -> None:
        information, own = load_information(folder), self._identity()
        saved, workers = information["plan"], information["workers"]
        differing = [
            f"{key}: {saved.get(key)} there, {own[key]} here"
            for key in own
            if saved.get(key) != own[key]
        ]
        if differing:
            raise ValueError(
                f"{folder} belongs to another training run ({'; '.join(differing)}): remove it, or "
                "give this run another folder"
            )
        if workers != self.world.size:
            self.progress.note(
                f"goes on with {self.world.size} ranks where {workers} had begun: with the same "
                "batches and other draws of dropout"
            )

    def opening_line(self, first: int) -> str:
        """Devices, batch, negatives and steps in one line."""
        batches, total, size = self.section.batches, self.total, self.world.size
        workers = "1 process" if size == 1 else f"{size} workers"
        if first == total:
            return f"training was finished already: {total} steps"
        resumed = f", resumed after step {first}" if first else ""
        batch = self.plan.global_batch_size
        refresh = f", {self.plan.refresh}" if self.plan.refresh else ""
        return (
            f"training with {workers} on {describe(self.world.device)}: global batch {batch}, "
            f"{self.objective.describe(batch)}, {total} steps over {batches.rows} rows "
            f"({batches.steps_per_epoch} steps an epoch, "
            f"{batches.dropped_per_epoch} rows left over){refresh}{resumed}"
        )

    def _show(self, step: int, seconds: float) -> None:
        if self.world.rank != 0:
            return
        self.progress.advance(1)
        self.seconds.append(seconds)
        left = self.total - step - 1
        if len(self.seconds) == MEASURED_STEPS and left:
            # The first step also pays for memory and kernels, so the median speaks for the rest.
            each = float(np.median(self.seconds))
            self.progress.note(f"{each:.2g} s a step: about {_duration(each * left)} to go")


def _check_shares(plan: TrainingPlan, objective: Objective, world: World) -> None:
    if set(plan.optimizers) != set(objective.models):
        raise ValueError(
            f"optimizers are planned for {sorted(plan.optimizers)}, "
            f"but the models are {sorted(objective.models)}"
        )
    turns = {name for name, _ in plan.phases.turns} if plan.phases else set(objective.models)
    if turns != set(objective.models):
        raise ValueError(f"{sorted(turns)} take turns, the models are {sorted(objective.models)}")
    batch, group = plan.global_batch_size, objective.rows_per_group
    if batch % group:
        raise ValueError(
            f"global_batch_size {batch} is no multiple of the group size {group}: change either"
        )
    if batch % (world.size * group):
        fitting = [n for n in range(1, world.size) if batch % (n * group) == 0]
        whole = f" in whole groups of {group}" if group > 1 else ""
        raise ValueError(
            f"{world.size} workers cannot share a global batch of {batch} rows evenly{whole}: "
            f"use {' or '.join(map(str, fitting))} workers, or another global_batch_size"
        )


def _seed(seed: int, step: int, rank: int) -> None:
    """Seed torch for one step, so that dropout depends on neither restarts nor earlier steps."""
    torch.manual_seed(
        int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0])
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
