"""What the training stages share: the run on every rank, and the outcome."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.dag.contract import Context, Inputs, Outcome, Progress

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from pipeline.artifacts.writer import ArtifactWriter
    from pipeline.training.loop import Objective, TrainingPlan
    from pipeline.training.world import World


_OF_AN_ATTEMPT = ("resumed_at", "final_rows_per_second")


class Prepared(Protocol):
    """Everything a rank needs to train, small enough to be sent: artifacts and parameters."""

    @property
    def plan(self) -> TrainingPlan:
        """How it is trained."""

    def objective(self, world: World, precision: str) -> Objective:
        """Load models and rows on this rank."""

    def save(self, objective: Objective, folder: Path, facts: Mapping[str, Any]) -> None:
        """Export the trained model into the artifact's folder."""


@dataclass(frozen=True)
class TrainingRun:
    """One stage's training, as every rank runs it."""

    prepared: Prepared
    precision: str
    writer: ArtifactWriter

    def __call__(self, device: torch.device, progress: Progress) -> dict[str, Any]:
        """Train; rank 0 writes the model and the journal into the artifact."""
        from pipeline.artifacts.checkpoints import StoreCheckpoints
        from pipeline.models.device import describe, resolve_precision
        from pipeline.training.loop import train
        from pipeline.training.world import World

        world = World.current(device)
        precision = self.writer.settle(
            "precision",
            resolve_precision(self.precision, world.device),  # type: ignore[arg-type]
        )
        objective = self.prepared.objective(world, precision)
        with tempfile.TemporaryDirectory() as temporary:
            journal = Path(temporary, "training.jsonl")
            result = train(
                objective,
                self.prepared.plan,
                world,
                StoreCheckpoints(
                    self.writer.store, self.writer.checkpoint_directory, progress.note
                ),
                progress,
                journal,
            )
            facts = {
                "steps": result.steps,
                "resumed_at": result.resumed_at,
                "rows": objective.row_count,
                "rows_left_over_per_epoch": result.dropped_per_epoch,
                "workers": world.size,
                "precision": precision,
                "device": describe(world.device),
                **{f"final_{name}": value for name, value in result.metrics.items()},
            }
            if world.rank == 0:
                # What differs between attempts stays out: equal models are equal files.
                told = {name: fact for name, fact in facts.items() if name not in _OF_AN_ATTEMPT}
                with self.writer.folder("model") as folder:
                    self.prepared.save(objective, folder, told)
                self.writer.document("training.jsonl", journal.read_text())
        return facts


def run_training(
    prepared: Prepared,
    precision: str,
    lists: pa.Table,
    dropped: Mapping[str, int],
    shares: int,
    writer: ArtifactWriter,
    context: Context,
) -> Outcome:
    """Launch the training of a stage and report on it."""
    from pipeline.distributed.training import launch

    facts = launch(
        TrainingRun(prepared, precision, writer),
        context.resources,
        writer.store,
        f"{context.stage}-{writer.key[:16]}",
        shares,
        context.progress,
    )
    return Outcome(
        rows_in=lists.num_rows,
        rows_out=lists.num_rows - sum(dropped.values()),
        unit="lists",
        dropped=dict(dropped),
        counts={"rows": facts["rows"], "steps": facts["steps"]},
        metrics={name: value for name, value in facts.items() if name.startswith("final_")},
        device=f"{facts['workers']} x {facts['device']}, {facts['precision']}",
    )


def read_lists(inputs: Inputs) -> pa.Table:
    """All training lists of the stage's input `lists`, in the order they are wired."""
    import pyarrow as pa

    return pa.concat_tables(lists.read("lists") for lists in inputs.many("lists"))
