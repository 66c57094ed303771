"""Drivers that are killed, drivers that meet, and what a run costs that has nothing to do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.benches import contents
from tests.end_to_end.runs import Run

JOB = Path(__file__).parents[2] / "jobs" / "run_pipeline.py"
# Slow enough to be caught at work, on any machine.
LONG = (
    "stages.retriever_0.params.max_steps=250",
    "stages.retriever_0.params.checkpoint_steps=10",
)


@contextmanager
def driver(run: Run, *more: str) -> Iterator[subprocess.Popen]:
    """Another process at work on a run."""
    process = subprocess.Popen(
        [sys.executable, str(JOB), *run.arguments(), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(root: str, pattern: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 240
    while not list(Path(root).glob(pattern)):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The long training, in this process."""
    run = tiny_run.below(tmp_path_factory.mktemp("undisturbed"), *LONG)
    assert run("--until", "vectors_0") == 0
    return run


def test_a_killed_driver_is_continued_by_the_next(undisturbed, tmp_path, capsys):
    run = undisturbed.below(tmp_path / "root")
    with driver(run, "--until", "vectors_0") as process:
        wait_for(run.root, "train_retriever/*/checkpoints/step-*.json", process)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert run("plan") == 0
    lines = capsys.readouterr().out.splitlines()
    planned = next(line for line in lines if line.startswith("retriever_0"))
    assert "partly done" in planned and "a checkpoint at step" in planned
    # Its lock is still there, and no obstacle: its process is gone.
    assert list(Path(run.root, "locks").iterdir())
    assert run("--until", "vectors_0") == 0
    assert "resumed after step" in capsys.readouterr().out
    for stage in ("lists_0", "retriever_0", "vectors_0"):
        assert contents(run.artifact(stage)) == contents(undisturbed.artifact(stage))
    assert not list(Path(run.root, "locks").iterdir())


def test_two_drivers_on_one_root_do_the_work_once(undisturbed, tmp_path, capsys):
    run = undisturbed.below(tmp_path / "root")
    with driver(run, "--until", "vectors_0") as other:
        wait_for(run.root, "locks/train_retriever-*.json", other)
        assert run("--until", "vectors_0") == 4
        shown = capsys.readouterr().out
        assert f"stage 'retriever_0' is being made by process {other.pid} on" in shown
        assert other.wait(timeout=240) == 0
    assert run("--until", "vectors_0") == 0 and run("verify") == 0
    assert set(run.results()[-1].values()) == {"cached"}
    for stage in ("lists_0", "retriever_0", "vectors_0"):
        assert contents(run.artifact(stage)) == contents(undisturbed.artifact(stage))


NOTHING_TO_DO = """
import json, sys, time
from jobs.run_pipeline import main
started = time.process_time()
code = main(sys.argv[1:])
seconds = time.process_time() - started
heavy = sorted({"ray", "torch", "pyarrow", "faiss", "transformers"} & set(sys.modules))
print(json.dumps({"code": code, "seconds": seconds, "heavy": heavy}))
"""


@pytest.mark.parametrize("verb", ["run", "plan", "status"])
def test_nothing_to_do_takes_no_time_and_no_libraries(tiny_run, verb):
    found = subprocess.run(
        [sys.executable, "-c", NOTHING_TO_DO, *tiny_run.arguments(verb)],
        cwd=JOB.parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(found.stdout.splitlines()[-1])
    assert told["code"] == 0 and told["heavy"] == []
    assert len(tiny_run.plan().stages) > 20 and told["seconds"] < 1


def test_one_parameter_runs_its_stage_and_what_depends_on_it(tiny_run, elsewhere):
    assert elsewhere("--until", "candidates_0") == 0
    other = elsewhere.below(elsewhere.root, "stages.vectors_0.params.dtype=float32")
    assert other("--until", "candidates_0") == 0
    changed = {name for name, status in other.results()[-1].items() if status == "done"}
    assert changed == {"vectors_0", "candidates_0"}
    for stage in ("tokens", "lists_0", "retriever_0"):
        assert contents(other.artifact(stage)) == contents(tiny_run.artifact(stage))
