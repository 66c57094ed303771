"""Several Ray nodes on this machine; one of them is killed while a stage runs."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.artifacts.reader import Artifact
from pipeline.artifacts.store import Store
from tests.cluster.tiny import result_of, write_pipeline

pytestmark = pytest.mark.ray

SCRIPT = Path(__file__).parents[2] / "cluster" / "local_cluster.py"
PATIENCE_SECONDS = 300
PASSAGES = 120


class Running:
    """The script in a process of its own, and the lines it has printed."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._coming: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.deadline = time.monotonic() + PATIENCE_SECONDS

    def _read(self) -> None:
        for line in self.process.stdout:
            self._coming.put(line.rstrip("\n"))
        self._coming.put(None)

    def _next(self) -> str | None:
        return self._coming.get(timeout=max(0.0, self.deadline - time.monotonic()))

    def until(self, pattern: str) -> re.Match[str]:
        """Wait for a line; fails with what was printed where it does not come."""
        while True:
            line = self._next()
            assert line is not None, "\n".join(self.lines)
            self.lines.append(line)
            if found := re.search(pattern, line):
                return found

    def rest(self) -> str:
        while (line := self._next()) is not None:
            self.lines.append(line)
        self.process.wait(timeout=60)
        return "\n".join(self.lines)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=90)


def node_at_work(raylets: list[int]) -> int | None:
    """A raylet with a worker that holds a part of the stage."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            title = (entry / "cmdline").read_bytes()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent in raylets and b"MapWorker" in title:
            return parent
    return None


def test_a_run_outlives_a_node(tmp_path: Path) -> None:
    file = write_pipeline(tmp_path, workers=2, passages=PASSAGES)
    root = tmp_path / "shared"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "ARTIFACT_ROOT": str(root),
        "OMP_NUM_THREADS": "1",
    }
    running = Running(["--nodes", "2", "--", str(file)], environment)
    try:
        raylets = [int(running.until(rf"node {n}: raylet (\d+)")[1]) for n in (1, 2)]
        running.until(r"tokens: tokenising")
        shards = root / "results" / "tokenize"
        while len(list(shards.glob("*/passages/*.parquet"))) < 5:
            assert time.monotonic() < running.deadline and running.process.poll() is None
            time.sleep(0.02)
        victim = node_at_work(raylets)
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        assert not list(shards.glob("*/_SUCCESS")), "the stage was over too soon"
        output = running.rest()
    finally:
        running.end()
    assert running.process.returncode == 0, output
    result = result_of(root / "results")
    assert [stage["status"] for stage in result["stages"]] == ["done"] * 3
    tokens = Artifact.open(Store(str(root / "results")), "tokenize", result["stages"][2]["key"])
    assert tokens.rows("passages") == PASSAGES and tokens.damage() == []
    for raylet in raylets:
        assert not Path(f"/proc/{raylet}").exists()
