"""Artifacts under lock: whether one is being made, and moving results out of the way."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.artifacts.locks import Lock, Locked
from pipeline.artifacts.store import Store
from pipeline.dag.layout import ASIDE, LOCKS
from pipeline.dag.plan import Plan


def artifact_lock(store: Store, directory: str, what: str) -> Lock:
    """The lock of the artifact in `directory`; `what` names it in messages."""
    return Lock(store, f"{LOCKS}/{directory.replace('/', '-')}.json", what)


def is_locked(store: Store, directory: str) -> bool:
    """Whether a driver is making the artifact now; the lock of a dead one is removed."""
    if f"{directory.replace('/', '-')}.json" not in store.list(LOCKS):
        return False
    try:
        with artifact_lock(store, directory, directory):
            return False
    except Locked:
        return True


def set_aside(plan: Plan, names: Iterable[str], store: Store, label: str) -> None:
    """Move what there is of the stages' results to where the collector takes it.

    Args:
        plan: where the artifacts lie.
        names: stages.
        store: the root.
        label: distinguishes this from earlier times that the same artifact was moved.

    Raises:
        Locked: one of them is being made by another driver.
    """
    for name in names:
        directory = plan[name].directory
        if directory and store.list(directory):
            with artifact_lock(store, directory, f"stage '{name}'"):
                store.move(directory, f"{ASIDE}/{directory}-{label}")
