"""The verbs of `run_pipeline.py`: each takes the options, prints, and returns an exit code."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pipeline.artifacts.reader import Artifact
from pipeline.artifacts.store import Store
from pipeline.dag import views
from pipeline.dag.assembly import assemble
from pipeline.dag.contract import StageType
from pipeline.dag.garbage import collect, find_garbage
from pipeline.dag.identities import Identities
from pipeline.dag.layout import resolve_root
from pipeline.dag.locking import set_aside
from pipeline.dag.plan import Plan, make_plan
from pipeline.dag.progress import open_progress
from pipeline.dag.runner import ExitCode, RunResult, new_run_id, run_plan
from pipeline.dag.selection import Selection, check_runnable, matching
from pipeline.dag.specification import DEFAULT_ROOT, Pipeline, read_pipeline
from pipeline.dag.tables import size
from pipeline.dag.yaml_nodes import Scalar, SpecificationError

VERBS = ("run", "plan", "status", "why", "graph", "verify", "gc", "doctor")


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line.

    Attributes:
        settings: `path=value` overrides of the file.
        root: replaces the file's root.
        stage: whose results `why` explains.
        apply: let `gc` delete, and `verify` set damaged artifacts aside.
    """

    verb: str = "run"
    file: str = "pipeline.yaml"
    stage: str = ""
    selection: Selection = field(default_factory=Selection)
    settings: tuple[str, ...] = ()
    root: str | None = None
    keep_going: bool = False
    strict_code: bool = False
    apply: bool = False


class _LogLines(logging.Handler):
    """Log lines on what is standard error at that moment: a live line moves out of their way."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        print(self.format(record), file=sys.stderr, flush=True)


def execute(options: Options, registry: Mapping[str, StageType]) -> int:
    """Carry out a verb; configuration mistakes are printed to standard error."""
    try:
        return _execute(options, registry)
    except SpecificationError as error:
        print(error, file=sys.stderr)
        count = len(error.problems)
        print(f"{count} mistake{'s' if count > 1 else ''}", file=sys.stderr)
        if options.verb == "run":
            _record_refusal(options, str(error))
        return ExitCode.WRONG_CONFIGURATION


def _execute(options: Options, registry: Mapping[str, StageType]) -> int:
    if options.verb == "doctor":
        return _doctor(options)
    pipeline = read_pipeline(options.file, registry, options.settings)
    store = _store(options.root or pipeline.root)
    if options.verb == "graph":
        print("\n".join([*views.graph_lines(pipeline), "", *views.mermaid_lines(pipeline)]))
        return ExitCode.DONE
    if options.verb == "gc":
        return _gc(options, store)
    chosen = options.selection.names(pipeline)
    asked = matching(pipeline, [options.stage], "why") if options.verb == "why" else set()
    plan = _plan(options, pipeline, store)
    if options.verb == "plan":
        print("\n".join(views.plan_lines(plan, chosen)))
    elif options.verb == "status":
        print("\n".join(views.status_lines(plan, store)))
    elif options.verb == "why":
        for name in (name for name in pipeline.names if name in asked):
            print("\n".join(views.why_lines(plan, name)))
    elif options.verb == "verify":
        return _verify(options, plan, store)
    else:
        return _run(options, plan, chosen, store)
    return ExitCode.DONE


def _store(root: str) -> Store:
    resolved, warning = resolve_root(root)
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    return Store(resolved)


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


def _run(options: Options, plan: Plan, chosen: set[str], store: Store) -> int:
    check_runnable(plan, chosen)
    # Libraries have their say from warnings on; our own rooms from notes on.
    logging.basicConfig(format="%(name)s: %(message)s", handlers=[_LogLines()])
    logging.getLogger("pipeline").setLevel(logging.INFO)
    result = run_plan(plan, chosen, store, options.keep_going)
    print("\n".join(views.run_lines(result)))
    return result.exit_code


def _record_refusal(options: Options, error: str) -> None:
    """Write the result of a run that never began, if it is clear where to."""
    root = options.root or _root_of(options)
    if root is None:
        return
    RunResult(
        run=new_run_id(),
        pipeline=Path(options.file).stem,
        exit_code=ExitCode.WRONG_CONFIGURATION,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=0.0,
        error=error,
    ).save(_store(root))


def _root_of(options: Options) -> str | None:
    """The root that the file names, however wrong the rest of it is."""
    try:
        tree, _ = assemble(Path(options.file), options.settings, [])
    except SpecificationError:
        return None
    root = tree.entries.get("root", Scalar(DEFAULT_ROOT, tree.position)).plain()
    return root if isinstance(root, str) else None


def _verify(options: Options, plan: Plan, store: Store) -> int:
    damaged = set()
    for planned in plan.stages:
        if planned.manifest is None:
            if planned.rerun:
                print(f"{planned.name}: {planned.reason}")
                damaged.add(planned.name)
            continue
        artifact = Artifact(store, planned.directory, planned.manifest)
        progress = open_progress(planned.name)
        total = sum(record.bytes for record in planned.manifest.files)
        try:
            progress.start("hashing", total, "bytes")
            wrong = artifact.damage(progress.advance)
        finally:
            progress.close()
        if wrong:
            damaged.add(planned.name)
        print("\n".join(f"{planned.name}: {line}" for line in wrong or ["ok"]))
    if damaged and options.apply:
        aside = plan.pipeline.below(damaged)
        set_aside(plan, aside, store, new_run_id())
        print(f"set aside: {', '.join(sorted(aside))}; the next run makes them again")
    elif damaged:
        print("`verify --apply` sets damaged artifacts and all made from them aside")
    return ExitCode.STAGE_FAILED if damaged else ExitCode.DONE


def _gc(options: Options, store: Store) -> int:
    garbage = find_garbage(store)
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

    root, _ = resolve_root(options.root or _root_of(options) or DEFAULT_ROOT)
    for finding in examine(root):
        print(finding, flush=True)
    return ExitCode.DONE
