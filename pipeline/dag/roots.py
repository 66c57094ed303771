"""The root as the verbs meet it: opened, or refused with a reason; small caches below it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pipeline.artifacts.store import Store, wrong_root
from pipeline.dag.layout import misspelt_root, resolve_root

# Clients of object stores raise their own exceptions where no connection or credentials are had.
CLIENTS = ("aiobotocore", "aiohttp", "botocore", "gcsfs", "google")


class UnusableRoot(Exception):
    """The root cannot be opened, read or written."""

    def __init__(self, uri: str, what: object) -> None:
        super().__init__(f"root {uri}: {what}")


def open_root(root: str) -> Store:
    """The store below `root`, which need not exist yet.

    Raises:
        UnusableRoot: it is no folder, cannot be reached, or is of a kind that nothing here reads.
    """
    if right := misspelt_root(root):
        raise UnusableRoot(root, f"is no folder and no address: write {right}")
    resolved, warning = resolve_root(root)
    for address in (root, resolved):
        if wrong := wrong_root(address):
            raise UnusableRoot(f"'{address}'", wrong)
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
    store = Store(resolved)
    try:
        if store.is_local:
            # A root that does not exist yet holds nothing, and is made by the first run.
            with suppress(FileNotFoundError):
                os.listdir(store.uri)
        else:
            store.list()
    except Exception as error:
        # Any store may fail in its own way; what it says is the reason.
        raise UnusableRoot(store.uri, error) from error
    return store


@contextmanager
def root_errors(store: Store) -> Iterator[None]:
    """Turn what goes wrong with the store inside the block into UnusableRoot."""
    try:
        yield
    except BrokenPipeError:
        raise
    except Exception as error:
        if isinstance(error, OSError) or type(error).__module__.partition(".")[0] in CLIENTS:
            raise UnusableRoot(store.uri, error) from error
        raise


def recall(store: Store, path: str) -> dict[str, Any]:
    """What `remember` kept; empty where there is nothing that can be read."""
    try:
        found = store.read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def remember(store: Store, path: str, value: Any) -> None:
    """Keep a cache below the root, unless there is no root yet, or it cannot be written.

    Looking at a plan must not make a root, and needs none that can be written.
    """
    # Any store may refuse in its own way; without the cache the same is only found out again.
    with suppress(Exception):
        if store.list():
            store.write_json(path, value)
