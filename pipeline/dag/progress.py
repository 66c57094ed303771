"""Progress of a running stage: a live line on a terminal, plain lines at intervals elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

# Plain lines come this long after the start, then ever more rarely up to the longest gap.
FIRST_GAP_SECONDS = 5.0
LONGEST_GAP_SECONDS = 60.0


def open_progress(stage: str, stream: TextIO | None = None) -> StageProgress:
    """The progress of `stage` on `stream` (standard output): live if that is a terminal."""
    out = stream or sys.stdout
    return LiveLine(stage, out) if out.isatty() else PlainLines(stage, out)


class StageProgress:
    """What a stage is told to report to; close it when the stage ends."""

    def __init__(self, stage: str, out: TextIO) -> None:
        self.stage = stage
        self.out = out

    def start(self, what: str, total: int | None, unit: str = "rows") -> None:
        """Begin counting `what` up to `total` (None: unknown)."""
        raise NotImplementedError

    def advance(self, amount: int) -> None:
        """Count `amount` more as done."""
        raise NotImplementedError

    def note(self, text: str) -> None:
        """Show a line of text."""
        print(f"{self.stage}: {text}", file=self.out, flush=True)

    def close(self) -> None:
        """Stop showing."""


class PlainLines(StageProgress):
    """A line now and then."""

    def __init__(self, stage: str, out: TextIO) -> None:
        super().__init__(stage, out)
        self._what = ""

    def start(self, what: str, total: int | None, unit: str = "rows") -> None:
        """Begin counting."""
        self._what, self._total, self._unit = what, total, unit
        self._done = 0
        self._started = time.monotonic()
        self._gap = FIRST_GAP_SECONDS
        self._next = self._started + self._gap
        self.note(f"{what}, {total:,} {unit}" if total is not None else what)

    def advance(self, amount: int) -> None:
        """Count, and print a line when one is due."""
        if not self._what:
            return
        self._done += amount
        now = time.monotonic()
        if now < self._next:
            return
        self._gap = min(self._gap * 2, LONGEST_GAP_SECONDS)
        self._next = now + self._gap
        self.note(f"{self._what}: {self._line(now - self._started)}")

    def _line(self, seconds: float) -> str:
        rate = self._done / max(seconds, 1e-9)
        text = f"{self._done:,} {self._unit}, {rate:,.1f}/s"
        if self._total and self._done:
            left = (self._total - self._done) / rate
            share = 100 * self._done / self._total
            text = (
                f"{self._done:,} of {self._total:,} {self._unit} ({share:.0f} %), "
                f"{rate:,.1f}/s, {duration(left)} left"
            )
        return text


class LiveLine(StageProgress):
    """One line that changes in place."""

    def __init__(self, stage: str, out: TextIO) -> None:
        super().__init__(stage, out)
        self._live: RichProgress | None = None
        self._task: TaskID | None = None

    def start(self, what: str, total: int | None, unit: str = "rows") -> None:
        """Begin counting; an earlier count of the same stage ends."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.close()
        self._live = Progress(
            TextColumn("{task.fields[stage]}: {task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[count]}"),
            TimeRemainingColumn(),
            console=Console(file=self.out),
            transient=True,
        )
        self._unit = unit
        self._task = self._live.add_task(what, total=total, stage=self.stage, count="")
        self._live.start()

    def advance(self, amount: int) -> None:
        """Count."""
        if self._live is None or self._task is None:
            return
        task = self._live.tasks[0]
        done = task.completed + amount
        rate = done / max(task.elapsed or 0.0, 1e-9)
        of = f"/{task.total:,.0f}" if task.total is not None else ""
        count = f"{done:,.0f}{of} {self._unit}, {rate:,.1f}/s"
        self._live.update(self._task, advance=amount, count=count)

    def note(self, text: str) -> None:
        """Show a line above the live one."""
        if self._live is None:
            super().note(text)
        else:
            self._live.console.print(f"{self.stage}: {text}", markup=False, highlight=False)

    def close(self) -> None:
        """Remove the live line."""
        if self._live is not None:
            self._live.stop()
        self._live = self._task = None


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
