"""What is under lock: artifacts being made, runs at work; moving results out of the way."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from itertools import count

from pipeline.artifacts.locks import Lock, Locked
from pipeline.artifacts.manifest import SUCCESS
from pipeline.artifacts.store import Store
from pipeline.dag.layout import ASIDE, LOCKS
from pipeline.dag.plan import Plan
from pipeline.dag.records import RUN_ID, run_folder


def artifact_lock(store: Store, directory: str, what: str) -> Lock:
    """The lock of the artifact in `directory`; `what` names it in messages."""
    return Lock(store, f"{LOCKS}/{_lock_name(directory)}", what)


def run_lock(store: Store, run: str) -> Lock:
    """Held for as long as a run is at work, so that a collector spares what the run names."""
    return artifact_lock(store, run_folder(run), f"the result of run {run}")


def live_runs(store: Store) -> set[str]:
    """The runs that are at work; the locks of dead ones are removed."""
    names = set(store.list(LOCKS))
    ids = {found[0] for name in names if (found := RUN_ID.search(name))}
    return {
        run
        for run in ids
        if _lock_name(run_folder(run)) in names and is_locked(store, run_folder(run))
    }


def _lock_name(directory: str) -> str:
    return f"{directory.replace('/', '-')}.json"


def is_locked(store: Store, directory: str) -> bool:
    """Whether a driver is making the artifact now; the lock of a dead one is removed."""
    if _lock_name(directory) not in store.list(LOCKS):
        return False
    try:
        with artifact_lock(store, directory, directory):
            return False
    except (Locked, OSError):
        # Where nothing can be written, nothing can be tried: the lock counts as held.
        return True


def set_aside(plan: Plan, names: Iterable[str], store: Store, label: str) -> None:
    """Move what there is of the stages' results to where the collector takes it: all or nothing.

    Args:
        plan: where the artifacts lie.
        names: stages.
        store: the root.
        label: distinguishes this from earlier times that the same artifact was moved.

    Raises:
        Locked: one of them is being made by another driver; nothing was moved.
    """
    wanted = set(names)
    # Stages of one key share a directory, whose lock can be had only once.
    makers: dict[str, str] = {}
    for planned in plan.stages:
        if planned.name in wanted and planned.directory:
            makers.setdefault(planned.directory, planned.name)
    # What was made of others goes first: a process that dies on the way leaves nothing that looks
    # finished and was made of what is gone.
    found = [directory for directory in reversed(makers) if store.list(directory)]
    with ExitStack() as locks:
        for directory in found:
            locks.enter_context(artifact_lock(store, directory, f"stage '{makers[directory]}'"))
        for directory in found:
            _move_aside(store, directory, label)


def _move_aside(store: Store, directory: str, label: str) -> None:
    kind, _, key = directory.partition("/")
    name, taken = f"{key}-{label}", store.list(f"{ASIDE}/{kind}")
    if name in taken:
        numbered = (f"{name}-{number}" for number in count(2))
        name = next(other for other in numbered if other not in taken)
    if not store.is_local:
        # File by file there: without the marker, half of an artifact does not look like all of it.
        store.delete(f"{directory}/{SUCCESS}")
    store.move(directory, f"{ASIDE}/{kind}/{name}")
