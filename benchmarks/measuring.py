"""Timing two sides in turns, memory of child processes, and facts about the machine.

Sides take turns (A B A B), so that other work on the machine meets both of them, and ratios are
taken round by round. CPU time is the second figure: it hardly sees other processes, but it counts
threads that wait by spinning.
"""

from __future__ import annotations

import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "transformers", "sentence-transformers", "faiss-gpu", "faiss-cpu", "ray")


@dataclass(frozen=True)
class Timing:
    """Seconds of one call.

    Attributes:
        wall: on the clock.
        cpu: of this process with all its threads, and of children that ended.
    """

    wall: float
    cpu: float


Side = Callable[[], Timing]
Timings = Mapping[str, Sequence[Timing]]


def timed(work: Callable[[], object]) -> Timing:
    """Call `work` once."""
    cpu, clock = sum(os.times()[:4]), time.perf_counter()
    work()
    return Timing(time.perf_counter() - clock, sum(os.times()[:4]) - cpu)


def alternate(sides: Mapping[str, Side], rounds: int) -> Timings:
    """Call all sides in turn, `rounds` times over."""
    timings: dict[str, list[Timing]] = {name: [] for name in sides}
    for number in range(1, rounds + 1):
        for name, side in sides.items():
            timings[name].append(side())
        shown = ", ".join(
            f"{name} {taken[-1].wall:.2f} s (CPU {taken[-1].cpu:.2f} s)"
            for name, taken in timings.items()
        )
        print(f"  round {number}: {shown}", flush=True)
    return timings


def ratios(timings: Timings, above: str, below: str) -> tuple[list[float], list[float]]:
    """Time of side `above` over that of `below`, round by round: on the clock, and of the CPU."""
    pairs = list(zip(timings[above], timings[below], strict=True))
    wall = [top.wall / bottom.wall for top, bottom in pairs]
    cpu = [top.cpu / max(bottom.cpu, 1e-3) for top, bottom in pairs]
    return wall, cpu


def medians(timings: Timings, rows: int | None = None, unit: str = "rows") -> None:
    """Print each side's median seconds, and rows per second if there is a number of rows."""
    for name, taken in timings.items():
        wall = statistics.median(one.wall for one in taken)
        cpu = statistics.median(one.cpu for one in taken)
        rate = f", {rows / wall:,.0f} {unit}/s" if rows else ""
        print(f"  {name}: {wall:.2f} s (CPU {cpu:.2f} s){rate}", flush=True)


def verdict(
    what: str,
    found: tuple[list[float], list[float]],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> None:
    """Print the median of ratios with their range, and whether the goal is reached."""
    wall, cpu = (statistics.median(values) for values in found)
    print(
        f"{what}: {wall:.2f} x ({min(found[0]):.2f} to {max(found[0]):.2f}), CPU time {cpu:.2f} x"
    )
    if at_least is not None:
        print(f"  goal at least {at_least}: {_both(wall >= at_least, cpu >= at_least)}")
    if at_most is not None:
        print(f"  goal at most {at_most}: {_both(wall <= at_most, cpu <= at_most)}")
    sys.stdout.flush()


def _both(wall: bool, cpu: bool) -> str:
    return f"{_word(wall)} on the clock, {_word(cpu)} in CPU time"


def _word(reached: bool) -> str:
    return "reached" if reached else "MISSED"


def limit(what: str, value: float, unit: str, at_most: float) -> None:
    """Print a figure beside its upper bound."""
    word = _word(value <= at_most)
    print(f"{what}: {value:,.2f} {unit}, goal at most {at_most:g} {unit}: {word}", flush=True)


def load() -> str:
    """Load averages: processes that want a CPU, over the last 1 and 5 minutes."""
    one, five, _ = os.getloadavg()
    return f"load {one:.1f} / {five:.1f} on {len(os.sched_getaffinity(0))} CPUs"


def machine() -> None:
    """Print what the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    name = next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), "CPU")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    print(f"{name}, {len(os.sched_getaffinity(0))} CPUs, {memory:.0f} GiB; {load()}")
    versions = [f"{library} {found}" for library in LIBRARIES if (found := _installed(library))]
    print(f"Python {platform.python_version()}, {', '.join(versions)}", flush=True)


def _installed(library: str) -> str:
    try:
        return version(library)
    except ModuleNotFoundError:
        return ""


def peak_bytes() -> int:
    """The most memory this process has held so far (resident set)."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage would still count what the parent held before this process was started.
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Worker:
    """A process of its own that holds what `make` makes, and times calls of it when asked."""

    def __init__(self, make: Callable[..., Callable[[], Any]], *arguments: Any) -> None:
        """Start the process; `make(*arguments)` returns the call to be timed."""
        context = get_context("spawn")
        self._pipe, far = context.Pipe()
        self._process = context.Process(target=_serve, args=(far, make, arguments), daemon=True)
        self._process.start()
        far.close()
        self._pipe.recv()
        self.result: Any = None

    def __call__(self) -> Timing:
        """Time one call in the process; its return value is then in `result`."""
        self._pipe.send("run")
        timing, self.result = self._pipe.recv()
        assert isinstance(timing, Timing)
        return timing

    def close(self) -> int:
        """End the process; its peak memory in bytes."""
        self._pipe.send("end")
        peak = int(self._pipe.recv())
        self._process.join()
        return peak


def _serve(pipe: Connection, make: Callable[..., Callable[[], Any]], arguments: Any) -> None:
    work = make(*arguments)
    pipe.send("ready")
    results: list[Any] = []
    while pipe.recv() == "run":
        results.clear()
        timing = timed(lambda: results.append(work()))
        pipe.send((timing, results[0]))
    pipe.send(peak_bytes())


@dataclass(frozen=True)
class Ran:
    """A command that ended well.

    Attributes:
        peak: most memory that it held, in bytes.
    """

    timing: Timing
    peak: int
    output: str


def run_command(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Ran:
    """Run a command to its end, for its time, its memory and its output.

    Raises:
        RuntimeError: it ended with another code than 0.
    """
    import subprocess
    import tempfile

    clock = time.perf_counter()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        process = subprocess.Popen(
            arguments,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - clock
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}:\n{text}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Ran(Timing(wall, usage.ru_utime + usage.ru_stime), usage.ru_maxrss * unit, text)
