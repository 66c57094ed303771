"""What the training stages share: the run on every rank, and the outcome."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.artifacts.kinds import NEGATIVE_POOLS
from pipeline.dag.contract import Context, Inputs, Mismatch, Outcome, Progress

if TYPE_CHECKING:
    import pyarrow as pa
    import torch

    from pipeline.artifacts.checkpoints import StoreCheckpoints
    from pipeline.artifacts.reader import Artifact
    from pipeline.artifacts.writer import ArtifactWriter
    from pipeline.stages.refresh import PoolRefresher
    from pipeline.training.loop import TrainingPlan
    from pipeline.training.objective import Objective
    from pipeline.training.refresh import Refresher
    from pipeline.training.rows import Rows, TrainingPairs
    from pipeline.training.world import World


# Below this many passages a rank waits for the others more than it computes.
LEAST_PASSAGES = 16

_OF_AN_ATTEMPT = ("resumed_at", "final_rows_per_second")


class Prepared(Protocol):
    """Everything a rank needs to train, small enough to be sent: artifacts and parameters."""

    @property
    def plan(self) -> TrainingPlan:
        """How it is trained."""

    @property
    def rows(self) -> Sized:
        """What it is trained on."""

    @property
    def starts(self) -> Mapping[str, Artifact]:
        """What each trained model starts from, by the name its objective gives it."""

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
    refresher: Refresher | None = None

    def __call__(self, device: torch.device, progress: Progress) -> dict[str, Any]:
        """Train; rank 0 writes the model and the journal into the artifact."""
        from pipeline.artifacts.checkpoints import StoreCheckpoints
        from pipeline.models.device import describe, resolve_precision
        from pipeline.training.loop import train
        from pipeline.training.refresh import cautions, summary
        from pipeline.training.world import World

        world = World.current(device)
        precision = self.writer.settle(
            "precision",
            resolve_precision(self.precision, world.device),  # type: ignore[arg-type]
        )
        objective = self.prepared.objective(world, precision)
        with _emptied(self.writer.scratch() / f"rank-{world.rank}") as scratch:
            journal = scratch / "training.jsonl"
            checkpoints = StoreCheckpoints(
                self.writer.store, self.writer.checkpoint_directory, progress.note
            )
            plan = self.prepared.plan
            result = train(
                objective,
                plan,
                world,
                checkpoints,
                progress,
                journal,
                self._moments(objective),
                self.refresher,
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
                if plan.part is not None and plan.part[0] != plan.part[1]:
                    self._keep_moments(checkpoints, objective)
                self.writer.document("training.jsonl", journal.read_text())
                if plan.refresh is not None:
                    lines = [json.loads(line) for line in journal.read_text().splitlines()]
                    facts["refresh"], facts["warnings"] = summary(lines), cautions(lines)
        return facts

    def _moments(self, objective: Objective) -> dict[str, Path]:
        """Where the optimizers of a later part go on from."""
        from pipeline.training.state import moments_file

        part = self.prepared.plan.part
        if part is None or part[0] == 1:
            return {}
        number, _ = part
        found = {}
        for name in objective.models:
            start = self.prepared.starts[name]
            if not start.has("moments"):
                raise Mismatch(
                    f"part {number} goes on from the part before, and {start} is none: wire the "
                    f"{name} of part {number - 1}"
                )
            found[name] = start.folder("moments") / moments_file(name)
        return found

    def _keep_moments(self, checkpoints: StoreCheckpoints, objective: Objective) -> None:
        from pipeline.training.state import moments_file

        last = checkpoints.latest()
        if last is None:
            raise ValueError("the training has left no checkpoint")
        with self.writer.folder("moments") as folder:
            for name in objective.models:
                shutil.copyfile(last[1] / moments_file(name), folder / moments_file(name))


@contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    """A folder without what a killed attempt has left there, removed at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def group_sizes(shares: int, passages: int) -> list[int]:
    """How many ranks can share a global batch evenly, with enough to do for each; 1 always can.

    Args:
        shares: equal parts into which it can be cut.
        passages: that go through a model for each of these.
    """
    most = min(shares, shares * passages // LEAST_PASSAGES)
    return [1, *(ranks for ranks in range(2, most + 1) if shares % ranks == 0)]


def run_training(
    prepared: Prepared,
    precision: str,
    lists: Lists,
    group_sizes: Sequence[int],
    writer: ArtifactWriter,
    context: Context,
    refresher: PoolRefresher | None = None,
) -> Outcome:
    """Launch the training of a stage and report on it.

    Raises:
        TooFewRows: they make no batch.
    """
    from pipeline.distributed.training import launch

    # Workers would be started, and restarted, only to find this.
    prepared.plan.batches(len(prepared.rows))
    facts = launch(
        TrainingRun(prepared, precision, writer, refresher),
        context.resources,
        writer.store,
        f"{context.stage}-{writer.key[:16]}",
        group_sizes,
        context.progress,
        refresher,
    )
    final = {name: value for name, value in facts.items() if name.startswith("final_")}
    return Outcome(
        rows_in=lists.count,
        rows_out=lists.count - sum(lists.dropped.values()),
        unit="lists",
        dropped=dict(lists.dropped),
        counts={"rows": facts["rows"], "steps": facts["steps"]},
        metrics={**final, **facts.get("refresh", {})},
        warnings=facts.get("warnings", []),
        device=f"{facts['workers']} x {facts['device']}, {facts['precision']}",
    )


@dataclass(frozen=True, eq=False)
class Lists:
    """How many lists a training stage was wired to.

    Attributes:
        count: lists that came in.
        dropped: lists that gave no row, by reason.
    """

    count: int
    dropped: Mapping[str, int]


def read_rows(
    inputs: Inputs, num_negatives: int, seed: int, *, whole: bool = False
) -> tuple[Rows, Lists]:
    """All lists and pools of the input `lists`, in the order they are wired, as rows.

    Args:
        inputs: of the stage.
        num_negatives: of each row.
        seed: of the draws from pools.
        whole: a list is one row: one with more negatives is an error, instead of several rows.

    Raises:
        Mismatch: a list that should be whole would be cut, or pools are for another number.
    """
    from pipeline.stages import lineage, tables
    from pipeline.training.batches import source_seed
    from pipeline.training.drawn_rows import DrawnRows, JoinedRows
    from pipeline.training.rows import TrainingRows

    wired = inputs.many("lists")
    pools = [each for each in wired if each.kind_name == NEGATIVE_POOLS.name]
    parts: list[Rows] = []
    count, dropped = 0, {}
    if len(pools) < len(wired):
        lists = _written_lists([each for each in wired if each not in pools])
        if whole:
            _refuse_longer(lists, num_negatives)
        rows = TrainingRows.from_lists(lists, num_negatives)
        count, dropped = lists.num_rows, dict(rows.dropped)
        parts.append(rows)
    for number, each in enumerate(pools, 1):
        lineage.refuse_other_draws(each, num_negatives)
        one = each.document("pools.json")["one_row_per_query"]
        own_seed = source_seed(seed, number)
        drawn = DrawnRows(tables.pools_of(each), num_negatives, own_seed, one)
        count += len(drawn)
        parts.append(drawn)
    found = parts[0] if len(parts) == 1 else JoinedRows(parts)
    return found, Lists(count, dropped)


def _refuse_longer(lists: pa.Table, num_negatives: int) -> None:
    import pyarrow.compute as pc

    longest = pc.max(pc.list_value_length(lists["negatives"])).as_py() or 0
    if longest > num_negatives:
        raise Mismatch(
            f"there are lists with {longest} negatives, and num_negatives is {num_negatives}: a "
            "list is never divided, so give both stages the same number"
        )


def read_pairs(inputs: Inputs) -> tuple[TrainingPairs, Lists]:
    """All lists of the input `lists` as single pairs.

    Raises:
        Mismatch: pools are wired, from which only lists can be drawn.
    """
    from pipeline.training.rows import TrainingPairs

    wired = inputs.many("lists")
    for each in wired:
        if each.kind_name == NEGATIVE_POOLS.name:
            raise Mismatch(f"{each} holds pools: they give lists, so choose `loss: listwise`")
    lists = _written_lists(wired)
    pairs = TrainingPairs.from_lists(lists)
    return pairs, Lists(lists.num_rows, {})


def _written_lists(artifacts: Sequence[Artifact]) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables(each.read("lists") for each in artifacts)
