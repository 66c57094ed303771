"""One small actor that counts for the driver what its workers have done."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from pipeline.distributed.cluster import free_room, is_lost

POLL_SECONDS = 0.5
# Starting workers takes seconds; who has heard of none for so long is told what they wait for.
PATIENCE_SECONDS = 120.0
ANSWER_SECONDS = 60.0


class CountsProgress(Protocol):
    """What a live progress line takes, as `pipeline.dag.contract.Progress` spells it."""

    def start(self, what: str, total: int | None, unit: str = "rows") -> None:
        """Begin a line."""

    def advance(self, amount: int) -> None:
        """Count rows."""

    def note(self, text: str) -> None:
        """Show a line of text."""


class Tally:
    """Rows done, attempts per task, lines to show, failures, workers; in an actor of its own."""

    def __init__(self) -> None:
        self._events: list[tuple[str, Any]] = []
        self._attempts: dict[int, int] = {}
        self._failures: list[str] = []
        self._hopeless = ""
        self._workers: list[Any] = []

    def enlist(self, worker: Any) -> None:
        """Keep the handle of an actor that is at work, and is to end with it."""
        self.record("arrive", None)
        self._workers.append(worker)

    def workers(self) -> list[Any]:
        """The handles so far, one of an actor for each of its starts."""
        return self._workers

    def begin(self, task: int) -> int:
        """Count an attempt at `task`; how many there were, this one included."""
        self._attempts[task] = self._attempts.get(task, 0) + 1
        return self._attempts[task]

    def record(self, event: str, value: Any) -> None:
        """Keep an event for the driver."""
        if event == "advance" and self._events and self._events[-1][0] == "advance":
            value += self._events.pop()[1]
        self._events.append((event, value))

    def fail(self, what: str, final: bool = False) -> None:
        """Keep what went wrong in user code, which Ray's own exceptions may not carry.

        Args:
            what: went wrong.
            final: whether it would go wrong again.
        """
        self._failures.append(what)
        if final:
            self._hopeless = what

    def hopeless(self) -> str:
        """What went wrong and would again; empty where there is nothing."""
        return self._hopeless

    def failures(self) -> list[str]:
        """What went wrong so far."""
        return self._failures

    def drain(self) -> list[tuple[str, Any]]:
        """The events since the last call."""
        events, self._events = self._events, []
        return events


def reasons(tally: Any, error: Exception) -> str:
    """Why work on Ray failed: its own words if it left any, else Ray's `error`."""
    import ray

    if is_lost():
        return (
            "Ray's node on this machine died while it worked (out of memory, or killed); what was "
            "finished is kept: run again, with fewer workers if memory was short"
        )
    try:
        failures: list[str] = ray.get(tally.failures.remote(), timeout=ANSWER_SECONDS)
    except ray.exceptions.RayError:
        failures = []
    return "; ".join(dict.fromkeys(failures)) or str(error)


class RemoteProgress:
    """A worker's end of a driver's progress line: calls go to the tally, a few times a second."""

    def __init__(self, tally: Any) -> None:
        self._tally = tally
        self._pending = 0
        self._sent = time.monotonic()

    def start(self, what: str, total: int | None, unit: str = "rows") -> None:
        """Begin a line at the driver."""
        self._tally.record.remote("start", (what, total, unit))

    def advance(self, amount: int) -> None:
        """Count rows."""
        self._pending += amount
        if time.monotonic() - self._sent > POLL_SECONDS / 2:
            self.flush()

    def note(self, text: str) -> None:
        """Show a line of text at the driver."""
        self._tally.record.remote("note", text)

    def flush(self) -> Any:
        """Send what is counted and not yet sent."""
        sent = self._tally.record.remote("advance", self._pending)
        self._pending = 0
        self._sent = time.monotonic()
        return sent

    def finish(self) -> None:
        """Send the rest and wait for it: the driver stops listening when the work is done."""
        import ray

        ray.get(self.flush())


def _forward(tally: Any, progress: CountsProgress) -> bool:
    """Whether there was anything to forward."""
    import ray

    events = ray.get(tally.drain.remote(), timeout=ANSWER_SECONDS)
    for event, value in events:
        if event == "start":
            progress.start(*value)
        elif event == "advance":
            progress.advance(value)
        elif event == "note":
            progress.note(value)
    return bool(events)


@contextmanager
def counting(progress: CountsProgress, wanted: str) -> Iterator[Any]:
    """A tally actor whose events reach `progress` while the block runs.

    Args:
        progress: where they are shown.
        wanted: what the workers need, shown where none of them has come for a while.
    """
    import ray

    tally = ray.remote(num_cpus=0, max_restarts=3, max_task_retries=3)(Tally).remote()
    stop = threading.Event()

    def poll() -> None:
        began, heard = time.monotonic(), False
        while not stop.wait(POLL_SECONDS):
            try:
                heard = _forward(tally, progress) or heard
                if not heard and time.monotonic() - began > PATIENCE_SECONDS:
                    heard = True
                    progress.note(f"waiting for room: {wanted}, {free_room()}")
            except Exception:  # A lost tally costs a progress line, not the stage.
                return

    thread = threading.Thread(target=poll, name="progress", daemon=True)
    thread.start()
    try:
        yield tally
    finally:
        stop.set()
        thread.join()
        try:
            _forward(tally, progress)
            ray.kill(tally)
        except ray.exceptions.RayError:
            pass
