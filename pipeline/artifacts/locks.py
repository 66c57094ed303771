"""A lock per artifact keeps two drivers from doing the same work; correctness never rests on it."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline.artifacts.store import Store

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 10.0
MISSED_BEATS = 3
# More than clocks of two machines ever differ by.
CLOCKS_DIFFER_SECONDS = 600.0


class Locked(Exception):
    """Another driver holds the lock."""

    def __init__(self, what: str, holder: dict[str, Any]) -> None:
        age = time.time() - float(holder.get("heartbeat", 0))
        super().__init__(
            f"{what} is being made by process {holder.get('pid')} on {holder.get('host')} "
            f"(last sign of life {age:.0f} s ago); wait for it, or stop it and run again"
        )


def _process_start(pid: int) -> str:
    """A value that differs between two processes that had the same number one after the other."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]


def _process_space() -> str:
    """Where process numbers mean the same: a boot of a machine, and a container on it; "" unknown.

    Containers may share a host's name and not see each other's processes.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _parsed(data: bytes) -> dict[str, Any]:
    """Who holds a lock; empty where it cannot be read."""
    try:
        holder = json.loads(data)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


class Lock:
    """Exclusive use of a path below a root, kept alive by a heartbeat. A context manager.

    Raises on entry:
        Locked: it is held and its holder still shows signs of life.
    """

    def __init__(
        self,
        store: Store,
        path: str,
        what: str,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._store = store
        self._path = path
        self._what = what
        self._every = heartbeat_seconds
        self._token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def _contents(self) -> bytes:
        holder = {
            "token": self._token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process_start": _process_start(os.getpid()),
            "process_space": _process_space(),
            "job": os.environ.get("RAY_JOB_ID", ""),
            "heartbeat": time.time(),
            "every": self._every,
        }
        return json.dumps(holder).encode()

    def _holder(self) -> dict[str, Any] | None:
        try:
            return _parsed(self._store.read_bytes(self._path))
        except FileNotFoundError:
            return None

    def _is_stale(self, holder: dict[str, Any]) -> bool:
        space = _process_space()
        if space and holder.get("process_space") == space:
            start = _process_start(int(holder.get("pid", 0)))
            if start != holder.get("process_start"):
                return True
        silent = time.time() - float(holder.get("heartbeat", 0))
        patience = MISSED_BEATS * float(holder.get("every", HEARTBEAT_SECONDS))
        if patience < silent < CLOCKS_DIFFER_SECONDS:
            silent = self._silent_by_the_store(silent)
        return silent > patience

    def _silent_by_the_store(self, otherwise: float) -> float:
        """Seconds since the lock was written, by the one clock that its holder and we share."""
        probe = f"{self._path}.{self._token}"
        self._store.write_bytes(probe, b"now")
        try:
            return self._store.modified(probe) - self._store.modified(self._path)
        except (FileNotFoundError, NotImplementedError):
            # It was let go just now, or the store tells no times.
            return otherwise
        finally:
            self._store.delete(probe)

    def __enter__(self) -> Lock:
        if not self._store.create(self._path, self._contents()):
            self._take_over()
        self._thread = threading.Thread(target=self._beat, name="lock heartbeat", daemon=True)
        self._thread.start()
        return self

    def _take_over(self) -> None:
        holder = self._holder()
        if self._is_ours(holder):
            # A client that got no answer asked again, and was refused by what it had written.
            return
        if holder is not None:
            if not self._is_stale(holder):
                raise Locked(self._what, holder)
            self._remove(holder)
        if not self._store.create(self._path, self._contents()):
            holder = self._holder()
            if not self._is_ours(holder):
                raise Locked(self._what, holder or {})

    def _is_ours(self, holder: dict[str, Any] | None) -> bool:
        return holder is not None and holder.get("token") == self._token

    def _remove(self, stale: dict[str, Any]) -> None:
        """Remove a stale lock, but not that of a driver which took it over just before us."""
        holder = self._holder()
        if holder is None or holder.get("token") == stale.get("token"):
            taken = self._store.take(self._path)
            holder = _parsed(taken) if taken is not None else None
            if holder is None or holder.get("token") == stale.get("token"):
                return
            self._store.create(self._path, taken or b"")
        raise Locked(self._what, holder)

    def _beat(self) -> None:
        while not self._stop.wait(self._every):
            try:
                holder = self._holder()
                if not self._is_ours(holder):
                    return
                self._store.write_bytes(self._path, self._contents())
            except Exception as error:
                # A store that fails for a moment must not end the signs of life for good.
                logger.warning("no sign of life in the lock %s: %s", self._path, error)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        if self._is_ours(self._holder()):
            self._store.delete(self._path)
