"""What the verbs show of a plan."""

from __future__ import annotations

from typing import Any

from pipeline.artifacts.store import Store
from pipeline.dag.keys import differences
from pipeline.dag.locking import is_locked
from pipeline.dag.plan import Plan, PlannedStage, State, shown
from pipeline.dag.progress import duration
from pipeline.dag.records import RunResult, result_of, run_ids, wanted_by
from pipeline.dag.specification import Pipeline
from pipeline.dag.tables import aligned


def plan_lines(plan: Plan, chosen: set[str]) -> list[str]:
    """Every stage: its state, and why."""
    rows = [
        [
            planned.name,
            planned.stage.type.name,
            str(planned.state) if planned.name in chosen else f"{planned.state} (not chosen)",
            planned.reason,
        ]
        for planned in plan.stages
    ]
    counts = [
        f"{sum(p.state is state for p in plan.stages if p.name in chosen)} {state}"
        for state in State
    ]
    return [*aligned(rows, ["stage", "type", "state", "why"]), ", ".join(counts)]


def status_lines(plan: Plan, store: Store) -> list[str]:
    """Every stage: where its result stands, what is in it, when and how long it was made."""
    rows = []
    last = _last_run(plan.pipeline.name, store)
    failed = {s["name"]: s["error"] for s in last.get("stages", []) if s["status"] == "failed"}
    for planned in plan.stages:
        state = "fresh" if planned.state is State.CACHED else str(planned.state)
        if planned.state is State.TO_RUN and planned.reference:
            state = "stale"
        if planned.state is not State.CACHED and planned.name in failed:
            state = "failed"
        if planned.key and is_locked(store, planned.directory):
            state = "running"
        error = failed.get(planned.name, "") if state == "failed" else ""
        rows.append([planned.name, state, *_made(planned), error])
    lines = aligned(rows, ["stage", "state", "rows", "time", "made", "error"])
    if last:
        ended = f"exit code {last['exit_code']}" if "exit_code" in last else "not ended"
        lines.append(f"last run {last['run']}, started {last['started']}: {ended}")
    return lines


def _made(planned: PlannedStage) -> list[str]:
    if planned.manifest is None:
        return ["", "", ""]
    outcome, run = planned.manifest.outcome, planned.manifest.run
    rows = f"{outcome['rows_out']:,} {outcome['unit']}"
    return [rows, duration(run["seconds"]), run["started"]]


def _last_run(pipeline: str, store: Store) -> dict[str, Any]:
    for run in reversed(run_ids(store)):
        plan = wanted_by(store, run)
        if plan and plan["pipeline"] == pipeline:
            return {"run": run, "started": plan["started"], **(result_of(store, run) or {})}
    return {}


def why_lines(plan: Plan, name: str) -> list[str]:
    """What differs from the last result of a stage, field by field."""
    planned = plan[name]
    lines = [f"{name} ({planned.stage.type.name}): {planned.state}"]
    if planned.reason:
        lines[0] += f": {planned.reason}"
    if planned.key:
        lines.append(f"key {planned.key}")
    if planned.reference is None:
        return [*lines, "there is no earlier result of this stage to compare with"]
    lines.append(f"last {planned.reference['key']} ({planned.reference['written']})")
    if not planned.key:
        unknown = [parent for parent in planned.stage.parents if not plan[parent].key]
        hint = f"; see: why {', why '.join(unknown)}" if unknown else ""
        return [*lines, f"nothing can be compared: today's key is not known{hint}"]
    changed = differences(planned.reference["key_inputs"], planned.key_inputs)
    if not changed:
        return [*lines, "nothing differs"]
    rows = []
    for path, old, new in changed:
        given = planned.stage.inputs.get(path.partition(".")[2], ())
        hint = f"see: why {', why '.join(given)}" if path.startswith("inputs.") and given else ""
        rows.append([path, shown(old), shown(new), hint])
    return [*lines, *aligned(rows, ["field", "last", "now", ""])]


def graph_lines(pipeline: Pipeline, chosen: set[str]) -> list[str]:
    """The graph as text: each chosen stage with what goes in and what comes out."""
    rows = []
    for stage in (stage for stage in pipeline.stages if stage.name in chosen):
        given = ", ".join(f"{name}={'+'.join(names)}" for name, names in stage.inputs.items())
        rows.append([stage.name, stage.type.name, given, stage.type.output.name])
    return aligned(rows, ["stage", "type", "inputs", "makes"])


def mermaid_lines(pipeline: Pipeline, chosen: set[str]) -> list[str]:
    """The chosen stages, and what goes from one to another, as a Mermaid flowchart."""
    lines = ["flowchart TD"]
    # `end` and other words of Mermaid's grammar cannot be node names.
    stages = [stage for stage in pipeline.stages if stage.name in chosen]
    ids = {stage.name: f"s{index}" for index, stage in enumerate(stages)}
    lines += [f'  {ids[s.name]}["{s.name}<br/>{s.type.name}"]' for s in stages]
    for stage in stages:
        for parent in (parent for parent in stage.parents if parent in chosen):
            kind = pipeline[parent].type.output.name
            lines.append(f"  {ids[parent]} -->|{kind}| {ids[stage.name]}")
    return lines


def run_lines(result: RunResult) -> list[str]:
    """What a run ends with: the table of stages, the stages' reports, the exit code."""
    rows = []
    for stage in result.stages:
        outcome = stage.outcome
        row_in = f"{outcome['rows_in']:,}" if outcome else ""
        row_out = f"{outcome['rows_out']:,}" if outcome else ""
        dropped = f"{sum(outcome['dropped'].values()):,}" if outcome else ""
        seconds = "" if stage.status == "cached" else duration(stage.seconds)
        rows.append([stage.name, stage.status, row_in, row_out, dropped, seconds, stage.error])
    header = ["stage", "result", "in", "out", "dropped", "time", "error"]
    total = f"run {result.run}: exit code {result.exit_code} after {duration(result.seconds)}"
    reports = [f"\n{text}\n" for stage in result.stages if (text := stage.outcome.get("report"))]
    # Also those of cached stages: what was doubtful once still is.
    warnings = [
        f"{stage.name}: warning: {text}"
        for stage in result.stages
        for text in stage.outcome.get("warnings", ())
    ]
    return [*(aligned(rows, header) if rows else []), *reports, *warnings, total]
