"""The verbs of `run_pipeline.py`: each takes the options, prints, and returns an exit code."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pipeline.artifacts.locks import Locked
from pipeline.artifacts.reader import Artifact
from pipeline.artifacts.store import Store
from pipeline.dag import views
from pipeline.dag.assembly import assemble
from pipeline.dag.contract import StageType
from pipeline.dag.garbage import collect, find_garbage, planning_runs
from pipeline.dag.identities import Identities
from pipeline.dag.locking import live_runs, run_lock, set_aside
from pipeline.dag.plan import Plan, PlannedStage, make_plan
from pipeline.dag.progress import open_progress
from pipeline.dag.records import ExitCode, RunResult, new_run_id
from pipeline.dag.roots import UnusableRoot, open_root, root_errors
from pipeline.dag.runner import run_plan
from pipeline.dag.selection import Selection, check_runnable, matching
from pipeline.dag.specification import DEFAULT_ROOT, Pipeline, read_pipeline
from pipeline.dag.tables import size
from pipeline.dag.yaml_nodes import Position, Problem, SpecificationError

# What each verb takes beside `--set` and `--root`, which change the file that every verb reads.
CHOOSING = ("--only", "--from", "--until")
TAKEN: Mapping[str, tuple[str, ...]] = {
    "run": (*CHOOSING, "--force", "--keep-going", "--strict-code"),
    "plan": (*CHOOSING, "--force", "--strict-code"),
    "status": ("--strict-code",),
    "why": ("--strict-code",),
    "graph": CHOOSING,
    "verify": (*CHOOSING, "--apply"),
    "gc": ("--apply",),
    "doctor": (),
}
VERBS = tuple(TAKEN)
DEFAULT_FILE = "pipeline.yaml"


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line.

    Attributes:
        settings: `path=value` overrides of the file.
        root: replaces the file's root.
        stage: whose results `why` explains.
        apply: let `gc` delete, and `verify` set damaged artifacts aside.
        mistakes: what is wrong with the command line itself; with any, nothing is done.
    """

    verb: str = "run"
    file: str = DEFAULT_FILE
    stage: str = ""
    selection: Selection = field(default_factory=Selection)
    settings: tuple[str, ...] = ()
    root: str | None = None
    keep_going: bool = False
    strict_code: bool = False
    apply: bool = False
    mistakes: tuple[str, ...] = ()

    def given(self) -> list[str]:
        """The options that are there, of those that some verbs do not take."""
        there = {
            "--only": self.selection.only,
            "--from": self.selection.start,
            "--until": self.selection.until,
            "--force": self.selection.force,
            "--keep-going": self.keep_going,
            "--strict-code": self.strict_code,
            "--apply": self.apply,
        }
        return [option for option, value in there.items() if value]


class _LogLines(logging.Handler):
    """Log lines on what is standard error at that moment: a live line moves out of their way."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        print(self.format(record), file=sys.stderr, flush=True)


def execute(options: Options, registry: Mapping[str, StageType]) -> int:
    """Carry out a verb; whatever keeps it from being carried out is printed to standard error."""
    try:
        _check(options)
        return _execute(options, registry)
    except SpecificationError as error:
        print(error, file=sys.stderr)
        count = len(error.problems)
        print(f"{count} mistake{'s' if count > 1 else ''}", file=sys.stderr)
        if options.verb == "run":
            _record_refusal(options, str(error))
        return ExitCode.WRONG_CONFIGURATION
    except UnusableRoot as error:
        print(error, file=sys.stderr)
        return ExitCode.WRONG_CONFIGURATION
    except Locked as error:
        print(error, file=sys.stderr)
        return ExitCode.LOCKED


def _check(options: Options) -> None:
    """Raise SpecificationError where the command line makes no sense, whatever the file says."""
    problems = [Problem(Position("command line"), message) for message in options.mistakes]
    for option in options.given():
        if option not in TAKEN[options.verb]:
            takers = ", ".join(verb for verb, taken in TAKEN.items() if option in taken)
            message = f"`{options.verb}` does not take it; leave it out (taken by: {takers})"
            problems.append(Problem(Position(option), message))
    if problems:
        raise SpecificationError(problems)


def _execute(options: Options, registry: Mapping[str, StageType]) -> int:
    if options.verb == "doctor":
        return _doctor(options)
    pipeline = read_pipeline(options.file, registry, options.settings)
    chosen = options.selection.names(pipeline)
    asked = matching(pipeline, [options.stage], "why") if options.verb == "why" else set()
    if options.verb == "graph":
        lines = [*views.graph_lines(pipeline, chosen), "", *views.mermaid_lines(pipeline, chosen)]
        print("\n".join(lines))
        return ExitCode.DONE
    store = open_root(pipeline.root if options.root is None else options.root)
    with root_errors(store):
        if options.verb == "gc":
            return _gc(options, store, registry)
        if options.verb == "run":
            return _run(options, pipeline, chosen, store)
        plan = _plan(options, pipeline, store)
        if options.verb == "verify":
            return _verify(options, plan, chosen, store)
        if options.verb == "plan":
            print("\n".join(views.plan_lines(plan, chosen)))
        elif options.verb == "status":
            print("\n".join(views.status_lines(plan, store)))
        for name in (name for name in pipeline.names if name in asked):
            print("\n".join(views.why_lines(plan, name)))
    return ExitCode.DONE


def _plan(options: Options, pipeline: Pipeline, store: Store) -> Plan:
    progress = open_progress("plan")
    try:
        return make_plan(
            pipeline,
            store,
            # Only a run asks the hub: a plan says the same with and without a network.
            Identities(store, progress, online=options.verb == "run"),
            force=options.selection.forced(pipeline),
            strict_code=options.strict_code,
        )
    finally:
        progress.close()


def _run(options: Options, pipeline: Pipeline, chosen: set[str], store: Store) -> int:
    run = new_run_id()
    # The locks of killed runs would otherwise lie there until somebody collects.
    live_runs(store)
    # Before the plan: what the plan finds cached must not be collected before the run begins.
    with run_lock(store, run):
        plan = _plan(options, pipeline, store)
        check_runnable(plan, chosen)
        # Libraries have their say from warnings on; our own rooms from notes on.
        logging.basicConfig(format="%(name)s: %(message)s", handlers=[_LogLines()])
        logging.getLogger("pipeline").setLevel(logging.INFO)
        result = run_plan(plan, chosen, store, run, options.keep_going)
    print("\n".join(views.run_lines(result)))
    return result.exit_code


def _record_refusal(options: Options, error: str) -> None:
    """Write the result of a run that never began, if it is clear where to and can be done."""
    try:
        name, root = _heading(options)
    except SpecificationError:
        name, root = Path(options.file).stem, None
    root = root if options.root is None else options.root
    if root is None:
        return
    refusal = RunResult(
        run=new_run_id(),
        pipeline=name,
        exit_code=ExitCode.WRONG_CONFIGURATION,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=0.0,
        error=error,
    )
    try:
        store = open_root(root)
        with root_errors(store):
            refusal.save(store)
    except UnusableRoot as failure:
        print(f"this is not recorded: {failure}", file=sys.stderr)


def _heading(options: Options) -> tuple[str, str | None]:
    """The pipeline's name, and its root or None, however wrong the rest of the file is.

    Raises:
        SpecificationError: the file cannot be read.
    """
    tree, _ = assemble(Path(options.file), options.settings, [])
    top = {key: node.plain() for key, _, node in tree if key in ("name", "root")}
    name, root = top.get("name"), top.get("root", DEFAULT_ROOT)
    return (
        name if isinstance(name, str) else Path(options.file).stem,
        root if isinstance(root, str) else None,
    )


def _verify(options: Options, plan: Plan, chosen: set[str], store: Store) -> int:
    damaged = set()
    for planned in (planned for planned in plan.stages if planned.name in chosen):
        if planned.manifest is not None:
            wrong = _damage(planned, store)
            print("\n".join(f"{planned.name}: {line}" for line in wrong or ["ok"]))
        else:
            wrong = [planned.reason] if planned.rerun else []
            print(f"{planned.name}: {planned.reason if planned.rerun else 'no result to verify'}")
        if wrong:
            damaged.add(planned.name)
    if damaged and options.apply:
        aside = plan.below(damaged)
        set_aside(plan, aside, store, new_run_id())
        print(f"set aside: {', '.join(sorted(aside))}; the next run makes them again")
    elif damaged:
        print("`verify --apply` sets damaged artifacts and all made from them aside")
    return ExitCode.STAGE_FAILED if damaged else ExitCode.DONE


def _damage(planned: PlannedStage, store: Store) -> list[str]:
    """What is wrong with a published result; every byte of it is read."""
    assert planned.manifest is not None
    progress = open_progress(planned.name)
    try:
        total = sum(record.bytes for record in planned.manifest.files)
        progress.start("hashing", total, "bytes")
        return Artifact(store, planned.directory, planned.manifest).damage(progress.advance)
    finally:
        progress.close()


def _gc(options: Options, store: Store, registry: Mapping[str, StageType]) -> int:
    for run in planning_runs(store):
        print(f"run {run} is still planning: until it has said what it needs, all artifacts stay")
    garbage = find_garbage(store, registry)
    for item in garbage:
        print(f"{item.directory}  {size(item.bytes)}  {item.why}")
    total = size(sum(item.bytes for item in garbage))
    if options.apply:
        print(f"{size(collect(store, garbage))} freed")
    else:
        print(f"{len(garbage)} folders, {total}; `gc --apply` deletes them")
    return ExitCode.DONE


def _doctor(options: Options) -> int:
    from pipeline.dag.doctor import examine

    named = None
    # A machine can be examined before there is a pipeline, but not by a file that is not there.
    if options.file != DEFAULT_FILE or Path(options.file).exists():
        _, named = _heading(options)
    given = (root for root in (options.root, named, DEFAULT_ROOT) if root is not None)
    for finding in examine(next(given)):
        print(finding, flush=True)
    return ExitCode.DONE
