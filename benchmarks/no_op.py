"""What planning costs, and a run with nothing to do, beside starting Python with what both import.

Without a file it makes a pipeline of 20 stages and runs it once; a file of one's own is measured as
it stands (run it before, so that nothing is left to do).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks import measuring, texts
from pipeline.distributed.cluster import PROJECT_ROOT

HEAD = """\
name: many-stages
root: {root}
stages:
  data: {{uses: ingest, params: {{source: {{format: beir, path: {source}}}}}}}
  base: {{uses: base_model}}
  tokens:
    uses: tokenize
    inputs: {{dataset: data, base: base}}
    resources: {{workers: 0}}
"""
LISTS = """\
  lists_{number}:
    uses: sample
    inputs: {{dataset: data, tokens: tokens}}
    params: {{source: corpus, replicate: {number}}}
"""
STAGES = 20
GOAL_SECONDS = 1.0

# Runs a command line as the job does, and fails if a heavy library was imported for it.
CHECKED = """\
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as ended:
    assert not ended.code, ended.code
heavy = {"ray", "torch", "transformers"} & set(sys.modules)
assert not heavy, f"imported: {heavy}"
"""
BARE = "import pydantic, pyarrow.parquet, yaml"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", nargs="?", help="a pipeline that has nothing left to do")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    measuring.machine()
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(options.file).resolve() if options.file else _make(Path(scratch))
        _measure(file, options.rounds)
    print(measuring.load())


def _make(folder: Path) -> Path:
    """A pipeline of small stages with all its results."""
    texts.write_beir(folder / "beir", passages=200, queries=50)
    text = HEAD.format(root=folder / "artifacts", source=folder / "beir")
    lists = [LISTS.format(number=number) for number in range(STAGES - 3)]
    file = folder / "pipeline.yaml"
    file.write_text(text + "".join(lists), encoding="utf-8")
    measuring.run_command([*_job(), "run", str(file)])
    return file


def _job() -> list[str]:
    return [sys.executable, str(PROJECT_ROOT / "jobs" / "run_pipeline.py")]


def _timing_of(command: list[str]) -> measuring.Timing:
    return measuring.run_command(command).timing


def _measure(file: Path, rounds: int) -> None:
    python, job = sys.executable, _job()[1]
    commands = {
        "python with imports": [python, "-c", BARE],
        "plan": [python, "-c", CHECKED, job, "plan", str(file)],
        "run": [python, "-c", CHECKED, job, "run", str(file)],
    }
    plan = measuring.run_command(commands["plan"]).output
    if "cached, 0 to run, 0 partly done, 0 unknown" not in plan:
        raise SystemExit(f"{file} has stages to run; run it first:\n{plan}")
    timings = measuring.alternate(
        {name: partial(_timing_of, command) for name, command in commands.items()},
        rounds,
    )
    measuring.medians(timings)
    for name in ("plan", "run"):
        measuring.verdict(
            f"{name} against python with imports",
            measuring.ratios(timings, name, "python with imports"),
        )
        best = min(one.wall for one in timings[name])
        cpu = statistics.median(one.cpu for one in timings[name])
        print(f"  fastest {best:.2f} s, CPU {cpu:.2f} s; neither Ray nor torch was imported")
        wall = statistics.median(one.wall for one in timings[name])
        measuring.limit(f"{name}, nothing to do", wall, "s", GOAL_SECONDS)


if __name__ == "__main__":
    main()
