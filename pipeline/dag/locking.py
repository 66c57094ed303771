"""What is under lock: artifacts being made, runs at work; moving results out of the way."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack

from pipeline.artifacts.locks import Lock, Locked
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
    # Stages of one key share a directory, whose lock can be had only once.
    makers = {plan[name].directory: name for name in names if plan[name].directory}
    found = {directory: name for directory, name in makers.items() if store.list(directory)}
    with ExitStack() as locks:
        for directory, name in found.items():
            locks.enter_context(artifact_lock(store, directory, f"stage '{name}'"))
        for directory in found:
            store.move(directory, f"{ASIDE}/{directory}-{label}")
