"""Runs a plan: one stage after the other, under locks, each published before the next starts."""

from __future__ import annotations

import logging
import platform
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from pipeline.artifacts.locks import Locked
from pipeline.artifacts.manifest import CorruptArtifact, Manifest, read_manifest
from pipeline.artifacts.reader import Artifact
from pipeline.artifacts.store import Store
from pipeline.artifacts.writer import ArtifactWriter
from pipeline.dag.contract import Context, Inputs
from pipeline.dag.identities import package_version
from pipeline.dag.keys import stage_seed
from pipeline.dag.layout import reference_path
from pipeline.dag.locking import artifact_lock, set_aside
from pipeline.dag.plan import Plan, PlannedStage
from pipeline.dag.progress import open_progress
from pipeline.dag.records import ExitCode, RunResult, StageResult, reference_of, save_wanted
from pipeline.dag.tables import outcome_lines


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived."""


def run_plan(
    plan: Plan,
    chosen: set[str],
    store: Store,
    run: str,
    keep_going: bool = False,
    tell: Callable[[str], None] = print,
) -> RunResult:
    """Run the chosen stages of a plan that have no result yet.

    Args:
        plan: as made for this root.
        chosen: names of the stages this run is about; what they need beside must have a result.
        store: the root.
        run: the run's id, whose lock the caller holds until this returns.
        keep_going: after a failure, still run what does not depend on the failed stage.
        tell: shows a line to the user.
    """
    runner = _Runner(plan, chosen, store, run, keep_going, tell)
    return runner.run()


class _Runner:
    def __init__(
        self,
        plan: Plan,
        chosen: set[str],
        store: Store,
        run: str,
        keep_going: bool,
        tell: Callable[[str], None],
    ) -> None:
        self.plan = plan
        self.pipeline = plan.pipeline
        self.chosen = chosen
        self.store = store
        self.keep_going = keep_going
        self.tell = tell
        self.id = run
        self.results: dict[str, StageResult] = {}
        self.repaired: set[str] = set()

    def run(self) -> RunResult:
        started, clock = datetime.now(UTC), time.monotonic()
        self.announce(started)
        code, error = ExitCode.DONE, ""
        with _terminating():
            try:
                self.set_aside(p.name for p in self.plan.stages if p.rerun)
                if obstacle := self.obstacle():
                    code, error = ExitCode.STAGE_FAILED, obstacle
                    self.tell(error)
                else:
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
            self.save(result)
        return result

    def save(self, result: RunResult) -> None:
        try:
            result.save(self.store)
        except Exception as error:
            # Any store may fail in its own way; the exit code still says what became of the run.
            self.tell(f"the run's result.json cannot be written: {error}")

    def announce(self, started: datetime) -> None:
        """Name the keys that this run needs, so that a collector spares them."""
        save_wanted(
            self.store,
            self.id,
            {
                "pipeline": self.pipeline.name,
                "file": self.pipeline.file,
                "started": started.isoformat(timespec="seconds"),
                "host": socket.gethostname(),
                "artifacts": [p.directory for p in self.plan.stages if p.directory],
            },
        )

    def obstacle(self) -> str:
        """What makes all work on the cluster useless, before hours are spent on first stages."""
        from pipeline.distributed.shared_root import prove_shared_root

        todo = [
            p for p in self.plan.stages if p.name in self.chosen and (p.rerun or not p.manifest)
        ]
        if all(planned.stage.resources.workers == 0 for planned in todo):
            return ""
        try:
            prove_shared_root(self.store)
        except Exception as error:
            return str(error)
        return ""

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
            self.tell(f"{planned.name}: failed\n{_account(error)}")
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
        reported = outcome.plain()
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
        # Another run may have named its own result since this one was planned.
        reference = reference_of(self.store, self.pipeline.name, planned.name)
        if reference and reference["key"] == planned.key:
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
        """The stage whose artifact `error` says is damaged; of several, one that is chosen."""
        for found in _chain(error):
            if isinstance(found, CorruptArtifact):
                makers = [
                    planned.name
                    for planned in self.plan.stages
                    if self.store.full(planned.directory) == found.directory
                ]
                if makers:
                    return next((name for name in makers if name in self.chosen), makers[0])
        return None

    def repair(self, name: str) -> bool:
        """Have a damaged stage and all below it made again; False if that cannot be."""
        if name in self.repaired or name not in self.chosen:
            return False
        self.repaired.add(name)
        self.tell(f"{name}: its artifact is damaged; it and all that depends on it is made again")
        try:
            self.set_aside([name])
        except Locked:
            raise
        except Exception as error:
            # Any store may refuse in its own way; the stage that met the damage fails of it.
            self.tell(f"{name}: its artifact cannot be moved out of the way: {error}")
            return False
        for below in self.plan.below([name]):
            self.results.pop(below, None)
        return True

    def set_aside(self, names: Iterable[str]) -> None:
        """Move the results of the chosen among `names`, and of all below them, out of the way."""
        below = self.plan.below(set(names) & self.chosen)
        set_aside(self.plan, below, self.store, self.id)


def _account(error: Exception) -> str:
    """An exception of our own explains itself; of any other the traceback is wanted."""
    own = type(error).__module__.startswith("pipeline.")
    if own and error.__cause__ is None:
        return str(error)
    return traceback.format_exc().rstrip()


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those behind it."""
    seen: list[BaseException] = []
    todo: BaseException | None = error
    while todo is not None and todo not in seen:
        seen.append(todo)
        yield todo
        # Ray keeps the exception of a worker as `cause`.
        todo = todo.__cause__ or getattr(todo, "cause", None) or todo.__context__


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
