"""The collector: what no pipeline, lock or unfinished run names may go.

A root may be a folder or a bucket that holds other things too. So only what has both a name and
contents that the writer of artifacts gives is taken for an artifact.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.artifacts.kinds import Kind
from pipeline.artifacts.locks import Locked
from pipeline.artifacts.manifest import MANIFEST, SUCCESS, directory_of
from pipeline.artifacts.store import Store
from pipeline.artifacts.writer import CHECKPOINTS, PARTS, REFRESH, STATE, WRITING
from pipeline.dag.contract import StageType
from pipeline.dag.layout import ASIDE, REFERENCES, RESERVED, RUNS
from pipeline.dag.locking import artifact_lock, is_locked, live_runs
from pipeline.dag.records import RUN_ID, ExitCode, result_of, run_folder, run_ids, wanted_by
from pipeline.dag.roots import UnusableRoot
from pipeline.distributed.shared_root import PROBES

KEY = re.compile(r"[0-9a-f]{32}")
# Numbered where one run moved the same artifact several times.
SET_ASIDE = re.compile(rf"{KEY.pattern}-{RUN_ID.pattern}(-\d+)?")
# A folder or document of an artifact, with the suffix of the attempt that wrote it.
WRITTEN = re.compile(r"(?P<stem>.+)-[0-9a-f]{8}(\.\w+)?")
# Where Ray Train keeps its own record of a training while it runs: stage, key, attempt.
RAY_TRAIN = f"{RUNS}/ray-train"
RAY_RECORD = re.compile(r".+-[0-9a-f]{16}-[0-9a-f]{8}")


@dataclass(frozen=True)
class Garbage:
    """A folder or file below the root that nothing needs.

    Attributes:
        why: `set aside`, `no longer named`, `unfinished` or `left by a killed run`.
    """

    directory: str
    bytes: int
    why: str


def find_garbage(store: Store, registry: Mapping[str, StageType]) -> list[Garbage]:
    """What can be deleted.

    Args:
        store: the root.
        registry: the stage types, whose artifacts are looked at; other folders are not ours.
    """
    return [
        *_artifacts(store, registry),
        *_set_aside(store, registry),
        *_left_by_killed_runs(store),
    ]


def collect(store: Store, garbage: list[Garbage], tell: Callable[[str], None] = print) -> int:
    """Delete; an artifact that a driver has begun to make meanwhile stays. Returns bytes freed.

    What could not be deleted is told, and does not count.
    """
    freed = 0
    for item in garbage:
        if item.directory.partition("/")[0] in RESERVED:
            store.delete(item.directory)
        else:
            try:
                with artifact_lock(store, item.directory, item.directory):
                    if spared(store)(item.directory):
                        continue
                    store.delete(item.directory)
            except Locked as error:
                tell(f"kept: {error}")
                continue
        left = _size(store, item.directory)
        if left or store.list(item.directory):
            tell(f"not deleted: {store.full(item.directory)}; see who may write there")
        freed += max(0, item.bytes - left)
    return freed


def spared(store: Store) -> Callable[[str], bool]:
    """Tells a directory that a reference file names, or a run at work or to be taken up again.

    While a run is planning, that is every directory: it may be finding any of them cached.
    """
    kept = set(_referenced(store))
    for artifacts in _open_runs(store).values():
        if artifacts is None:
            return lambda _: True
        kept.update(artifacts)
    return kept.__contains__


def planning_runs(store: Store) -> list[str]:
    """Runs at work that have not said yet what they need."""
    return [run for run, artifacts in _open_runs(store).items() if artifacts is None]


def _referenced(store: Store) -> Iterator[str]:
    for pipeline in store.list(REFERENCES):
        for name in store.list(f"{REFERENCES}/{pipeline}"):
            if name.endswith(".json") and not name.startswith("."):
                path = f"{REFERENCES}/{pipeline}/{name}"
                try:
                    reference = store.read_json(path)
                except ValueError as error:
                    # What it named is not known, and must not be deleted.
                    what = f"{path} is damaged ({error}): run its pipeline again, or delete it"
                    raise UnusableRoot(store.uri, what) from error
                # A root of another use may have a folder of that name.
                if isinstance(reference, dict) and {"type", "key"} <= set(reference):
                    yield directory_of(reference["type"], reference["key"])


def _open_runs(store: Store) -> dict[str, list[str] | None]:
    """Run -> artifacts it names: those at work, and of each pipeline the newest unfinished one.

    A run that is still planning has None. An unfinished run that another one has brought to its end
    leaves nothing to take up again.
    """
    runs = run_ids(store)
    live = live_runs(store)
    found: dict[str, list[str] | None] = {}
    newest: dict[str, tuple[str, list[str]]] = {}
    for run in sorted({*runs, *live}):
        wanted = wanted_by(store, run)
        if wanted is None:
            if run in live:
                found[run] = None
            continue
        result = result_of(store, run)
        if run in live:
            found[run] = wanted["artifacts"]
        elif result is None or result["exit_code"] != ExitCode.DONE:
            newest[wanted["pipeline"]] = run, wanted["artifacts"]
    return found | {
        run: artifacts
        for run, artifacts in newest.values()
        if not all(store.exists(f"{directory}/{SUCCESS}") for directory in artifacts)
    }


def _artifacts(store: Store, registry: Mapping[str, StageType]) -> Iterator[Garbage]:
    is_spared = spared(store)
    for stage_type, declared in sorted(registry.items()):
        for name in filter(KEY.fullmatch, store.list(stage_type)):
            directory = f"{stage_type}/{name}"
            if is_spared(directory) or is_locked(store, directory):
                continue
            contents = store.list(directory)
            if _is_artifact(contents, declared.output):
                why = "no longer named" if SUCCESS in contents else "unfinished"
                yield Garbage(directory, _size(store, directory), why)


def _set_aside(store: Store, registry: Mapping[str, StageType]) -> Iterator[Garbage]:
    for stage_type, declared in sorted(registry.items()):
        for name in filter(SET_ASIDE.fullmatch, store.list(f"{ASIDE}/{stage_type}")):
            directory = f"{ASIDE}/{stage_type}/{name}"
            if _is_artifact(store.list(directory), declared.output):
                yield Garbage(directory, _size(store, directory), "set aside")


def _is_artifact(contents: list[str], kind: Kind) -> bool:
    """Whether a folder with these entries has something that only a writer of artifacts writes."""
    own = {MANIFEST, SUCCESS, PARTS, STATE, CHECKPOINTS, REFRESH, *kind.tables}
    stems = {*kind.folders, *(PurePosixPath(name).stem for name in kind.documents)}
    written = [found for name in contents if (found := WRITTEN.fullmatch(name))]
    return (
        not own.isdisjoint(contents)
        or any(found["stem"] in stems for found in written)
        or any(name.startswith(WRITING) for name in contents)
    )


def _left_by_killed_runs(store: Store) -> Iterator[Garbage]:
    """Records and folders of runs that ended without a result; results always stay."""
    # Listed before the locks are looked at: whose file is in the list had its lock before.
    found = {PROBES: KEY, RAY_TRAIN: RAY_RECORD}
    nameless = [
        f"{folder}/{name}"
        for folder, pattern in found.items()
        for name in filter(pattern.fullmatch, store.list(folder))
    ]
    runs = run_ids(store)
    live = live_runs(store)
    kept = {*live, *_open_runs(store)}
    killed = [run_folder(run) for run in runs if run not in kept and not result_of(store, run)]
    # Neither probes nor Ray's records say which run they belong to.
    for path in [*([] if live else nameless), *killed]:
        yield Garbage(path, _size(store, path), "left by a killed run")


def _size(store: Store, path: str) -> int:
    if store.exists(path):
        return store.size(path) or 0
    return sum(size for _, size in store.walk(path))
