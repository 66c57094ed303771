"""The collector: what no pipeline, lock or unfinished run names may go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.artifacts.locks import Locked
from pipeline.artifacts.manifest import SUCCESS, directory_of
from pipeline.artifacts.store import Store
from pipeline.dag.layout import ASIDE, REFERENCES, RESERVED, RUNS
from pipeline.dag.locking import artifact_lock, is_locked
from pipeline.dag.runner import ExitCode


@dataclass(frozen=True)
class Garbage:
    """A folder below the root that nothing needs.

    Attributes:
        why: `set aside`, `no longer named` or `unfinished`.
    """

    directory: str
    bytes: int
    why: str


def find_garbage(store: Store) -> list[Garbage]:
    """Artifacts that no reference file, lock or unfinished run names, and what was set aside."""
    kept = needed(store)
    found = []
    for stage_type in store.list():
        if stage_type in RESERVED or stage_type.startswith("."):
            continue
        for name in store.list(stage_type):
            directory = f"{stage_type}/{name}"
            if directory in kept or is_locked(store, directory):
                continue
            published = store.exists(f"{directory}/{SUCCESS}")
            why = "no longer named" if published else "unfinished"
            found.append(Garbage(directory, _size(store, directory), why))
    for stage_type in store.list(ASIDE):
        for name in store.list(f"{ASIDE}/{stage_type}"):
            directory = f"{ASIDE}/{stage_type}/{name}"
            found.append(Garbage(directory, _size(store, directory), "set aside"))
    return found


def collect(store: Store, garbage: list[Garbage], tell: Callable[[str], None] = print) -> int:
    """Delete; an artifact that a driver has begun to make meanwhile stays. Returns bytes freed."""
    freed = 0
    for item in garbage:
        if item.directory.startswith(f"{ASIDE}/"):
            store.delete(item.directory)
        else:
            try:
                with artifact_lock(store, item.directory, item.directory):
                    if item.directory in needed(store):
                        continue
                    store.delete(item.directory)
            except Locked as error:
                tell(f"kept: {error}")
                continue
        freed += item.bytes
    return freed


def needed(store: Store) -> set[str]:
    """Directories named by a reference file or by the newest run of a pipeline, if unfinished."""
    kept = set()
    for pipeline in store.list(REFERENCES):
        for name in store.list(f"{REFERENCES}/{pipeline}"):
            if name.endswith(".json") and not name.startswith("."):
                reference = store.read_json(f"{REFERENCES}/{pipeline}/{name}")
                kept.add(directory_of(reference["type"], reference["key"]))
    newest: dict[str, str] = {}
    for run in store.list(RUNS):
        plan = store.read_json_if_any(f"{RUNS}/{run}/plan.json")
        if plan:
            newest[plan["pipeline"]] = run
    for run in newest.values():
        result = store.read_json_if_any(f"{RUNS}/{run}/result.json")
        if result is None or result["exit_code"] != ExitCode.DONE:
            kept |= set(store.read_json(f"{RUNS}/{run}/plan.json")["artifacts"])
    return kept


def _size(store: Store, directory: str) -> int:
    return sum(size for _, size in store.walk(directory))
