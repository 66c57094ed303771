"""What a run leaves below `runs/`: what it wanted, and what became of it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

from pipeline.artifacts.store import Store
from pipeline.dag.layout import RUNS, reference_path
from pipeline.dag.roots import UnusableRoot

RUN_ID = re.compile(r"\d{8}-\d{6}-\d{6}-[0-9a-f]{4}")

_REMEDY = "if that run is not at work, delete its folder; its results stay where they are"


class ExitCode(IntEnum):
    """What the process returns; also in the run's `result.json`."""

    DONE = 0
    WRONG_CONFIGURATION = 2
    STAGE_FAILED = 3
    LOCKED = 4
    INTERRUPTED = 130
    TERMINATED = 143


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
        store.write_json(f"{run_folder(self.run)}/result.json", asdict(self))


def reference_of(store: Store, pipeline: str, stage: str) -> dict[str, Any] | None:
    """What is noted of the latest result of a pipeline's stage.

    None where nothing is, or nothing that can be read: the next run notes it again.
    """
    try:
        found = store.read_json(reference_path(pipeline, stage))
    except (FileNotFoundError, ValueError):
        return None
    whole = isinstance(found, dict) and {"type", "key", "key_inputs", "written"} <= set(found)
    return found if whole else None


def new_run_id() -> str:
    """A name that sorts by time."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S-%f}-{uuid.uuid4().hex[:4]}"


def run_ids(store: Store) -> list[str]:
    """The runs of which there is something, oldest first."""
    return [name for name in store.list(RUNS) if RUN_ID.fullmatch(name)]


def run_folder(run: str) -> str:
    """Where a run's files are, relative to the root."""
    return f"{RUNS}/{run}"


def save_wanted(store: Store, run: str, wanted: Mapping[str, Any]) -> None:
    """Write what a run is about: its pipeline, and the artifacts that a collector has to spare."""
    store.write_json(f"{run_folder(run)}/plan.json", wanted)


def wanted_by(store: Store, run: str) -> dict[str, Any] | None:
    """What `save_wanted` wrote; None for a run that was refused, or has not come so far.

    Raises:
        UnusableRoot: it is damaged.
    """
    return _record(store, run, "plan.json", {"pipeline", "started", "artifacts"})


def result_of(store: Store, run: str) -> dict[str, Any] | None:
    """The fields of its `RunResult`; None for a run that was killed, or has not ended.

    Raises:
        UnusableRoot: it is damaged.
    """
    return _record(store, run, "result.json", {"exit_code", "stages"})


def _record(store: Store, run: str, name: str, fields: set[str]) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] | None = store.read_json_if_any(f"{run_folder(run)}/{name}")
    except ValueError as error:
        what = f"{run_folder(run)}/{name} is damaged ({error})"
        raise UnusableRoot(store.uri, f"{what}: {_REMEDY}") from error
    if found is not None and not (isinstance(found, dict) and fields <= set(found)):
        what = f"{run_folder(run)}/{name} is damaged (no object with {', '.join(sorted(fields))})"
        raise UnusableRoot(store.uri, f"{what}: {_REMEDY}")
    return found
