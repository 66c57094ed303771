"""Runs a plan: one stage after the other, under locks, each published before the next starts."""

from __future__ import annotations

import json
import logging
import platform
import signal
import socket
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from types import FrameType
from typing import Any

from pipeline.artifacts.locks import Locked
from pipeline.artifacts.manifest import CorruptArtifact, Manifest, read_manifest
from pipeline.artifacts.reader import Artifact
from pipeline.artifacts.store import Store
from pipeline.artifacts.writer import ArtifactWriter
from pipeline.dag.contract import Context, Inputs, Outcome
from pipeline.dag.identities import package_version
from pipeline.dag.keys import stage_seed
from pipeline.dag.layout import RUNS, reference_path
from pipeline.dag.locking import artifact_lock, set_aside
from pipeline.dag.plan import Plan, PlannedStage
from pipeline.dag.progress import open_progress
from pipeline.dag.tables import outcome_lines


class ExitCode(IntEnum):
    """What the process returns; also in the run's `result.json`."""

    DONE = 0
    WRONG_CONFIGURATION = 2
    STAGE_FAILED = 3
    LOCKED = 4
    INTERRUPTED = 130
    TERMINATED = 143


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived."""


@dataclass(frozen=True)
class StageResult:
    """What became of one stage of a run.

    Attributes:
        status: `cached`, `done`, `failed`, `locked`, `skipped` or `interrupted`.
    """

    name: str
    type: str
    key: str
    status: str
    seconds: float = 0.0
    outcome: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True)
class RunResult:
    """What became of a run, as written to `runs/<id>/result.json`."""

    run: str
    pipeline: str
    exit_code: int
    started: str
    seconds: float
    stages: tuple[StageResult, ...] = ()
    error: str = ""

    def save(self, store: Store) -> None:
        """Write it below the root."""
        store.write_json(f"{RUNS}/{self.run}/result.json", asdict(self))


def new_run_id() -> str:
    """A name that sorts by time."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}-{uuid.uuid4().hex[:4]}"


def run_plan(
    plan: Plan,
    chosen: set[str],
    store: Store,
    keep_going: bool = False,
    tell: Callable[[str], None] = print,
) -> RunResult:
    """Run the chosen stages of a plan that have no result yet.

    Args:
        plan: as made for this root.
        chosen: names of the stages this run is about; what they need beside must have a result.
        store: the root.
        keep_going: after a failure, still run what does not depend on the failed stage.
        tell: shows a line to the user.
    """
    runner = _Runner(plan, chosen, store, keep_going, tell)
    return runner.run()


class _Runner:
    def __init__(
        self,
        plan: Plan,
        chosen: set[str],
        store: Store,
        keep_going: bool,
        tell: Callable[[str], None],
    ) -> None:
        self.plan = plan
        self.pipeline = plan.pipeline
        self.chosen = chosen
        self.store = store
        self.keep_going = keep_going
        self.tell = tell
        self.id = new_run_id()
        self.results: dict[str, StageResult] = {}
        self.repaired: set[str] = set()

    def run(self) -> RunResult:
        started, clock = datetime.now(UTC), time.monotonic()
        self.announce(started)
        code, error = ExitCode.DONE, ""
        with _terminating():
            try:
                self.set_aside(p.name for p in self.plan.stages if p.rerun)
                self.work()
            except Locked as locked:
                code, error = ExitCode.LOCKED, str(locked)
                self.tell(error)
            except KeyboardInterrupt as interrupt:
                terminated = isinstance(interrupt, Terminated)
                code = ExitCode.TERMINATED if terminated else ExitCode.INTERRUPTED
                error = "stopped by a signal"
            except SystemExit:
                # Ray answers SIGTERM with this once it is running in this process.
                code, error = ExitCode.TERMINATED, "stopped by a signal"
            statuses = {result.status for result in self.results.values()}
            if code is ExitCode.DONE and "failed" in statuses:
                code = ExitCode.STAGE_FAILED
            elif code is ExitCode.DONE and "locked" in statuses:
                code = ExitCode.LOCKED
            result = RunResult(
                run=self.id,
                pipeline=self.pipeline.name,
                exit_code=int(code),
                started=started.isoformat(timespec="seconds"),
                seconds=round(time.monotonic() - clock, 3),
                stages=tuple(
                    self.results[name] for name in self.pipeline.names if name in self.results
                ),
                error=error,
            )
            result.save(self.store)
        return result

    def announce(self, started: datetime) -> None:
        """Name the keys that this run needs, so that a collector spares them."""
        self.store.write_json(
            f"{RUNS}/{self.id}/plan.json",
            {
                "pipeline": self.pipeline.name,
                "file": self.pipeline.file,
                "started": started.isoformat(timespec="seconds"),
                "host": socket.gethostname(),
                "artifacts": [p.directory for p in self.plan.stages if p.directory],
            },
        )

    def work(self) -> None:
        """Run until every chosen stage has a result; a repair takes results away again."""
        while planned := self.next():
            result = self.attempt(planned)
            if result is None:
                continue
            self.results[planned.name] = result
            if result.status in ("failed", "locked"):
                self.skip_below(planned.name)
                if not self.keep_going:
                    return

    def next(self) -> PlannedStage | None:
        for planned in self.plan.stages:
            if planned.name in self.chosen and planned.name not in self.results:
                return planned
        return None

    def skip_below(self, name: str) -> None:
        for below in self.pipeline.below([name]) & self.chosen - set(self.results):
            planned = self.plan[below]
            error = f"needs '{name}'"
            self.results[below] = self.result(planned, "skipped", error=error)

    def result(self, planned: PlannedStage, status: str, **more: Any) -> StageResult:
        kind = planned.stage.type.name
        return StageResult(planned.name, kind, str(planned.key), status, **more)

    # One stage --------------------------------------------------------------------------------

    def attempt(self, planned: PlannedStage) -> StageResult | None:
        """The result of a stage; None if an input was found damaged and will be made again."""
        clock = time.monotonic()

        def ended(status: str, **more: Any) -> StageResult:
            return self.result(planned, status, seconds=round(time.monotonic() - clock, 3), **more)

        try:
            if manifest := self.published(planned):
                self.refer(planned)
                return self.result(planned, "cached", outcome=manifest.outcome)
            with artifact_lock(self.store, planned.directory, f"stage '{planned.name}'"):
                # Another driver may have published it and let go of the lock just before.
                manifest, status = self.published(planned), "cached"
                if manifest is None:
                    manifest, status = self.make(planned), "done"
                    for line in outcome_lines(
                        planned.name, manifest.outcome, time.monotonic() - clock
                    ):
                        self.tell(line)
            self.refer(planned)
            return ended(status, outcome=manifest.outcome)
        except Locked as error:
            self.tell(str(error))
            return ended("locked", error=str(error))
        except Exception as error:
            damaged = self.damaged_stage(error)
            if damaged and self.repair(damaged):
                return None
            self.tell(f"{planned.name}: failed\n{traceback.format_exc().rstrip()}")
            return ended("failed", error=f"{type(error).__name__}: {error}")
        except BaseException:
            self.results[planned.name] = ended("interrupted")
            raise

    def published(self, planned: PlannedStage) -> Manifest | None:
        return read_manifest(self.store, planned.directory)

    def make(self, planned: PlannedStage) -> Manifest:
        """Run the stage and publish its artifact."""
        stage, key = planned.stage, str(planned.key)
        started, clock = datetime.now(UTC), time.monotonic()
        inputs = self.open_inputs(planned)
        writer = ArtifactWriter(self.store, stage.type.name, key, stage.type.output)
        progress = open_progress(stage.name)
        self.tell(f"{stage.name} ({stage.type.name}) runs: {planned.reason or 'made again'}")
        try:
            outcome = stage.type.run(
                inputs,
                stage.params,
                writer,
                Context(
                    stage=stage.name,
                    key=key,
                    resources=stage.resources,
                    progress=progress,
                    logger=logging.getLogger(f"pipeline.stages.{stage.type.name}"),
                    seed=stage_seed(stage.seed, stage.type.name),
                    sources=planned.sources,
                ),
            )
        finally:
            progress.close()
        reported = _plain(outcome)
        device = reported.pop("device")
        return writer.publish(
            key_inputs=planned.key_inputs,
            outcome=reported,
            code_digest=planned.code_digest,
            run={
                "run": self.id,
                "pipeline": self.pipeline.name,
                "stage_name": stage.name,
                "started": started.isoformat(timespec="seconds"),
                "seconds": round(time.monotonic() - clock, 3),
                "host": socket.gethostname(),
                "python": platform.python_version(),
                "versions": {name: package_version(name) for name in stage.type.libraries},
                "device": device,
                "resources": stage.resources.model_dump(mode="json"),
            },
        )

    def open_inputs(self, planned: PlannedStage) -> Inputs:
        artifacts = {}
        for name, given in planned.stage.inputs.items():
            opened = []
            for parent in given:
                source = self.plan[parent]
                artifact = Artifact.open(self.store, source.stage.type.name, str(source.key))
                artifact.check_sizes()
                opened.append(artifact)
            artifacts[name] = tuple(opened)
        return Inputs(artifacts)

    def refer(self, planned: PlannedStage) -> None:
        """Name the result as this pipeline's latest."""
        if planned.reference and planned.reference["key"] == planned.key:
            return
        self.store.write_json(
            reference_path(self.pipeline.name, planned.name),
            {
                "stage": planned.name,
                "type": planned.stage.type.name,
                "key": planned.key,
                "key_inputs": planned.key_inputs,
                "run": self.id,
                "written": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        )

    # Making again -----------------------------------------------------------------------------

    def damaged_stage(self, error: BaseException) -> str | None:
        """The stage whose artifact `error` says is damaged."""
        for found in _chain(error):
            if isinstance(found, CorruptArtifact):
                for planned in self.plan.stages:
                    if self.store.full(planned.directory) == found.directory:
                        return planned.name
        return None

    def repair(self, name: str) -> bool:
        """Have a damaged stage and all below it made again; False if that cannot be."""
        if name in self.repaired or name not in self.chosen:
            return False
        self.repaired.add(name)
        self.tell(f"{name}: its artifact is damaged; it and all that depends on it is made again")
        self.set_aside([name])
        for below in self.pipeline.below([name]):
            self.results.pop(below, None)
        return True

    def set_aside(self, names: Iterable[str]) -> None:
        """Move the results of the chosen among `names`, and of all below them, out of the way."""
        below = self.pipeline.below(set(names) & self.chosen)
        set_aside(self.plan, below, self.store, self.id)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those behind it."""
    seen: list[BaseException] = []
    todo: BaseException | None = error
    while todo is not None and todo not in seen:
        seen.append(todo)
        yield todo
        # Ray keeps the exception of a worker as `cause`.
        todo = todo.__cause__ or getattr(todo, "cause", None) or todo.__context__


def _plain(outcome: Outcome) -> dict[str, Any]:
    """The outcome as JSON values; numpy's numbers become Python's."""
    text = json.dumps(asdict(outcome), default=lambda value: value.item())
    found: dict[str, Any] = json.loads(text)
    return found


@contextmanager
def _terminating() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that locks are let go and the run's result is written."""

    def stop(_: int, __: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
