from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.dag import toys
from tests.dag.test_runner import data_file

REPOSITORY = Path(__file__).parents[2]


def test_states_and_reasons(bench):
    assert set(bench.states().values()) == {"to run"}
    assert set(bench.reasons().values()) == {"no result yet"}
    assert bench.run()[0] == 0
    assert set(bench.states().values()) == {"cached"}
    reasons = bench.reasons("stages.left.params.factor=6", "seed=1")
    assert reasons["left"] == "params.factor: 2 → 6"
    assert reasons["random"].startswith("seed: ")
    assert reasons["sum"] == "input parts changed: left, right"
    assert reasons["data"] == reasons["right"] == ""
    forced = bench.reasons(force=["left"])
    assert forced["left"] == "forced" and forced["sum"] == "'left' is made again"


def test_a_missing_source_leaves_keys_unknown_and_plan_succeeds(bench, capsys):
    setting = "stages.data.params.path=/no/such/file"
    assert bench.verb("plan", setting) == 0
    shown = capsys.readouterr().out
    assert "source missing: /no/such/file does not exist; key not known yet" in shown
    states = bench.states(setting)
    assert [n for n, s in states.items() if s == "unknown"] == ["data", "left", "right", "sum"]
    code, ran = bench.run(setting)
    assert code == 2 and ran == []
    assert bench.run(setting, selection=chosen(only=["random"])) == (0, ["random"])


def chosen(**options):
    from pipeline.dag.selection import Selection

    return Selection(**options)


def test_equal_stages_share_a_result(bench):
    bench.write(f"root: {bench.root}\nstages:\n  a: {{uses: numbers}}\n  b: {{uses: numbers}}\n")
    assert bench.reasons()["b"] == "has the same key as 'a'"
    assert bench.run() == (0, ["a"])


TWINS = """\
root: {root}
stages:
  a: {{uses: numbers}}
  b: {{uses: numbers}}
  of_a: {{uses: scale, inputs: {{numbers: a}}}}
  of_b: {{uses: scale, inputs: {{numbers: b}}, params: {{factor: 4}}}}
"""


@pytest.mark.parametrize("twin", ["a", "b"])
def test_a_forced_stage_takes_its_twins_and_theirs_along(bench, twin):
    bench.write(TWINS.format(root=bench.root))
    assert bench.run() == (0, ["a", "of_a", "of_b"])
    reasons = bench.reasons(force=[twin])
    other = "b" if twin == "a" else "a"
    assert reasons[twin] == "forced" and reasons[other] == f"'{twin}' is made again"
    assert bench.run(selection=chosen(force=[twin])) == (0, ["a", "of_a", "of_b"])
    # Where only one is chosen, what was made from the other waits for the next run.
    assert bench.run(selection=chosen(only=[twin], force=[twin])) == (0, [twin])
    assert bench.states() == {"a": "cached", "b": "cached", "of_a": "to run", "of_b": "to run"}


def test_a_damaged_result_is_that_of_its_twins_too(bench):
    bench.write(TWINS.format(root=bench.root))
    bench.run()
    data_file(bench, "a").write_bytes(b"")
    setting = "stages.of_b.params.factor=6"
    only = chosen(only=["b", "of_b"])
    assert bench.run(setting, selection=only) == (0, ["b", "of_b"])
    assert bench.states(setting)["of_a"] == "to run"
    data_file(bench, "b").write_bytes(b"")
    assert bench.verb("verify", setting, apply=True) == 3
    assert set(bench.states(setting).values()) == {"to run"}


def test_the_result_of_a_chosen_twin_serves(bench, capsys):
    bench.write(TWINS.format(root=bench.root))
    assert bench.run(selection=chosen(only=["a", "of_b"])) == (0, ["a", "of_b"])
    settings = ["stages.a.params.count=7", "stages.b.params.count=7"]
    assert bench.run(*settings, selection=chosen(only=["of_b"])) == (2, [])
    assert "'of_b' needs 'b', which has no result: run it first" in capsys.readouterr().err


def test_a_chosen_stage_says_which_source_it_lacks_above_it(bench, capsys):
    setting = "stages.data.params.path=/no/such/file"
    missing = "'data': source missing: /no/such/file does not exist; key not known yet"
    for name in ("left", "sum"):
        assert bench.run(setting, selection=chosen(only=[name])) == (2, [])
        shown = capsys.readouterr().err
        assert f"'{name}' needs {missing}" in shown and "1 mistake\n" in shown
    assert bench.run(setting, selection=chosen(only=["left", "data"])) == (2, [])
    shown = capsys.readouterr().err
    assert missing in shown and "1 mistake\n" in shown
    assert not any("None" in path for path in bench.store.list("locks"))


def test_partly_done_stages_say_how_far(bench):
    bench.write(f"root: {bench.root}\nstages: {{a: {{uses: slow}}}}\n")
    planned = bench.plan()["a"]
    import pyarrow as pa

    from pipeline.artifacts.writer import ArtifactWriter

    writer = ArtifactWriter(bench.store, "slow", planned.key, toys.NUMBERS)
    for index in range(2):
        writer.shards("rows").write(index, pa.table({"value": pa.array([index], pa.int32())}))
    assert bench.plan()["a"].state == "partly done"
    assert bench.reasons()["a"] == "2 shards (no result yet)"


def test_changed_code_is_seen_and_followed_only_when_asked(bench, monkeypatch):
    from pipeline.dag import plan

    bench.run()
    original = plan.CodeDigests.of
    monkeypatch.setattr(plan.CodeDigests, "of", lambda self, module: original(self, module) + "x")
    assert set(bench.reasons().values()) == {"code changed since, version not bumped"}
    assert bench.run() == (0, [])
    code, ran = bench.run(strict_code=True)
    assert code == 0 and ran == ["data", "left", "right", "random", "sum"]
    assert bench.run(strict_code=True) == (0, [])


def test_twenty_cached_stages_plan_without_heavy_imports(tmp_path):
    root = tmp_path / "root"
    lines = [f"root: {root}", "stages:", "  s0: {uses: numbers}"]
    lines += [
        f"  s{n}: {{uses: scale, inputs: {{numbers: s{n - 1}}}, params: {{factor: {n}}}}}"
        for n in range(1, 20)
    ]
    (tmp_path / "pipeline.yaml").write_text("\n".join(lines))
    script = tmp_path / "job.py"
    script.write_text(
        "import sys, time, json\n"
        "started = time.perf_counter()\n"
        f"sys.path.insert(0, {str(REPOSITORY / 'jobs')!r})\n"
        "import run_pipeline\n"
        "from tests.dag import toys\n"
        "code = run_pipeline.main(sys.argv[1:], toys.registry())\n"
        "heavy = ['ray', 'torch', 'pyarrow', 'transformers', 'numpy', 'rich', 'fsspec']\n"
        "seconds = time.perf_counter() - started\n"
        "print(json.dumps([code, [m for m in heavy if m in sys.modules], seconds]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}

    def start(*words: str) -> tuple[list, float]:
        clock = time.perf_counter()
        done = subprocess.run(
            [sys.executable, str(script), *words],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1]), time.perf_counter() - clock

    assert start()[0][0] == 0
    for verb in ("plan", "run"):
        (code, heavy, inside), whole = start(verb)
        assert code == 0 and heavy == []
        print(f"{verb} of 20 cached stages: {inside:.2f} s, {whole:.2f} s with the interpreter")
