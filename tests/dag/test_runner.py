from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.artifacts.locks import Lock
from pipeline.artifacts.store import Store
from pipeline.dag.locking import artifact_lock
from pipeline.dag.runner import _Runner
from pipeline.dag.selection import Selection
from pipeline.sources.records import DataError, Place
from tests.dag import toys

REPOSITORY = Path(__file__).parents[2]
ALL = ["data", "left", "right", "random", "sum"]


def test_runs_once_then_only_what_changed(bench):
    assert bench.run() == (0, ALL)
    assert bench.run() == (0, [])
    assert bench.document("sum", "total.json") == (0 + 2 + 4 + 6) + (0 + 6)
    assert bench.run("stages.right.params.factor=4") == (0, ["right", "sum"])
    # The way back is cached: artifacts are never overwritten.
    assert bench.run() == (0, [])
    assert bench.run("seed=14") == (0, ["random"])


ROUNDS = """\
root: {root}
stages:
  start: {{uses: numbers}}
repeat:
  rounds: 2
  stages:
    x_{{round}}: {{uses: scale, inputs: {{numbers: "x_{{previous}}"}}}}
  first:
    x_{{round}}: {{inputs: {{numbers: start}}}}
"""


def test_with_more_rounds_only_the_new_ones_run(bench):
    bench.write(ROUNDS.format(root=bench.root))
    assert bench.run() == (0, ["start", "x_1", "x_2"])
    assert bench.run("repeat.rounds=4") == (0, ["x_3", "x_4"])
    assert bench.run("repeat.rounds=1") == (0, [])
    assert bench.run("stages.x_2.params.factor=3", "repeat.rounds=3") == (0, ["x_2", "x_3"])


def test_a_stage_is_told_its_seed_key_and_sources(bench):
    from pipeline.dag.keys import stage_seed

    bench.run()
    assert bench.document("random", "numbers.json") == [stage_seed(13, "draw")]
    assert stage_seed(13, "draw") != stage_seed(13, "numbers")


def test_result_file_tells_what_happened(bench, capsys):
    assert bench.run()[0] == 0
    (result,) = bench.results()
    assert result["exit_code"] == 0 and result["pipeline"] == "toy"
    by_name = {stage["name"]: stage for stage in result["stages"]}
    assert list(by_name) == ALL
    assert by_name["right"]["outcome"]["dropped"] == {"odd": 2}
    assert {stage["status"] for stage in result["stages"]} == {"done"}
    shown = capsys.readouterr().out
    assert "right: done in" in shown and "4 numbers in, 2 out, 2 dropped (2 odd)" in shown
    assert "right: warning: something odd" in shown
    assert "The total is 18." in shown
    bench.run()
    assert "The total is 18." in capsys.readouterr().out, "cached stages are reported too"


def test_manifest_holds_key_inputs_and_circumstances(bench):
    from pipeline.artifacts.keys import digest

    bench.run()
    manifest = bench.plan()["left"].manifest
    assert digest(manifest.key_inputs) == manifest.key
    assert manifest.run["stage_name"] == "left" and manifest.code_digest
    assert "device" not in manifest.outcome and manifest.run["device"] == "cpu"


def test_force_runs_a_stage_and_all_below(bench):
    bench.run()
    assert bench.run(selection=Selection(force=["left"])) == (0, ["left", "sum"])
    assert bench.run() == (0, [])
    assert len(bench.store.list("aside/scale")) == 1
    assert bench.run(selection=Selection(force=["right", "random"]))[1] == [
        "right",
        "random",
        "sum",
    ]


def test_the_root_is_proved_to_be_shared_where_anything_runs(bench, monkeypatch):
    from pipeline.distributed import shared_root

    proved: list[Store] = []
    monkeypatch.setattr(shared_root, "prove_shared_root", proved.append)
    for expected, force in ((1, []), (1, []), (2, ["data"])):
        assert bench.run(selection=Selection(force=force))[0] == 0
        assert len(proved) == expected


def test_a_forced_run_that_fails_is_finished_by_the_next(bench, monkeypatch):
    bench.run()
    monkeypatch.setenv("TOY_FAIL", "left")
    assert bench.run(selection=Selection(force=["data"])) == (3, ["data", "left"])
    monkeypatch.delenv("TOY_FAIL")
    # Everything below `data` is older than the new `data`, though its keys are the same.
    assert bench.run() == (0, ["left", "right", "sum"])


@pytest.mark.parametrize(
    ("selection", "ran"),
    [
        (Selection(until=["left"]), ["data", "left"]),
        (Selection(only=["data", "random"]), ["data", "random"]),
        (Selection(start=["data"]), ["data", "left", "right", "sum"]),
        (Selection(start=["data"], until=["right"]), ["data", "right"]),
        (Selection(only=["r*"], until=["r*"]), None),
    ],
)
def test_selection(bench, selection, ran):
    code, called = bench.run(selection=selection)
    assert (code, called) == ((0, ran) if ran else (2, []))


def test_only_with_a_missing_input_says_which(bench, capsys):
    assert bench.run(selection=Selection(only=["sum"])) == (2, [])
    shown = capsys.readouterr().err
    assert "'sum' needs 'left', which has no result: run it first" in shown
    assert "'sum' needs 'right'" in shown
    assert bench.run(selection=Selection(start=["left"]))[0] == 2
    bench.run(selection=Selection(until=["left", "right"]))
    assert bench.run(selection=Selection(only=["sum"])) == (0, ["sum"])
    assert bench.run(selection=Selection(only=["smu"])) == (2, [])
    assert "no stage is called 'smu' (did you mean 'sum'?)" in capsys.readouterr().err
    code, _ = bench.run(selection=Selection(only=["sum"], force=["left"]))
    assert code == 2 and "'left' is not among the stages" in capsys.readouterr().err


def test_a_failed_stage_stops_the_run(bench, capsys):
    code, ran = bench.run("stages.left.params.fail=true")
    assert (code, ran) == (3, ["data", "left"])
    shown = capsys.readouterr().out
    assert "Traceback" in shown and "RuntimeError: told to fail" in shown
    statuses = {s["name"]: s["status"] for s in bench.results()[-1]["stages"]}
    assert statuses == {"data": "done", "left": "failed", "sum": "skipped"}
    assert bench.results()[-1]["exit_code"] == 3
    assert bench.verb("status", "stages.left.params.fail=true") == 0
    assert "failed" in capsys.readouterr().out


def test_an_error_of_our_own_explains_itself(bench, capsys, monkeypatch):
    def unreadable(*_):
        raise DataError(Place("corpus.tsv", 3), "2 columns", "write three")

    registry = {**toys.registry(), "scale": replace(toys.scale, run=unreadable)}
    monkeypatch.setattr(toys, "registry", lambda: registry)
    assert bench.run() == (3, ["data"])
    out = capsys.readouterr().out
    assert "left: failed\ncorpus.tsv:3: 2 columns; write three\n" in out
    assert "Traceback" not in out


def test_keep_going_runs_what_does_not_depend_on_the_failure(bench):
    code, ran = bench.run("stages.left.params.fail=true", keep_going=True)
    assert (code, ran) == (3, ["data", "left", "right", "random"])
    assert bench.run() == (0, ["left", "sum"])


def test_wrong_configuration_is_written_down_where_the_root_is_clear(bench, capsys):
    bench.write(f"root: {bench.root}\nstagse: {{}}\n")
    assert bench.run() == (2, [])
    shown = capsys.readouterr().err
    assert "unknown key 'stagse' (did you mean 'stages'?)" in shown and "2 mistakes" in shown
    assert bench.results()[-1]["exit_code"] == 2


def test_a_held_lock_gives_exit_code_4(bench):
    planned = bench.plan()["left"]
    script = (
        "import sys, time\n"
        "from pipeline.artifacts.store import Store\n"
        "from pipeline.dag.locking import artifact_lock\n"
        "with artifact_lock(Store(sys.argv[1]), sys.argv[2], 'left'):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(bench.root), planned.directory],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        text=True,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        assert bench.run() == (4, ["data"])
        assert bench.results()[-1]["exit_code"] == 4
        assert bench.run(keep_going=True) == (4, ["right", "random"])
        assert bench.run(selection=Selection(only=["left"], force=["left"])) == (4, [])
    finally:
        holder.kill()
        holder.wait()
    # A dead holder's lock is taken over at once on its own host.
    assert bench.run() == (0, ["left", "sum"])


# Damage ---------------------------------------------------------------------------------------


def data_file(bench, stage: str) -> Path:
    planned = bench.plan()[stage]
    return bench.root / planned.directory / planned.manifest.files[0].path


def test_a_damaged_input_is_made_again_with_all_below(bench):
    bench.run()
    file = data_file(bench, "data")
    file.write_bytes(file.read_bytes() + b" ")
    # Nothing opens it while all below is cached; a change below does.
    assert bench.run() == (0, [])
    code, ran = bench.run("stages.left.params.factor=4")
    assert code == 0 and ran == ["data", "left", "right", "sum"]
    assert bench.store.list("aside") == ["numbers", "scale"]


def test_an_artifact_that_was_forced_and_is_damaged_again_is_made_once_more(bench, monkeypatch):
    bench.run()
    opened = _Runner.open_inputs

    def damaging(runner, planned):
        if planned.name == "left":
            monkeypatch.setattr(_Runner, "open_inputs", opened)
            data_file(bench, "data").write_bytes(b"")
        return opened(runner, planned)

    monkeypatch.setattr(_Runner, "open_inputs", damaging)
    code, ran = bench.run(selection=Selection(force=["data"]))
    assert (code, ran) == (0, ["data", "data", "left", "right", "sum"])
    assert len(bench.store.list("aside/numbers")) == 2
    assert bench.verb("gc", apply=True) == 0
    assert bench.store.list("aside/numbers") == []


def test_damage_that_cannot_be_moved_away_fails_the_stage(bench, monkeypatch, capsys):
    bench.run()
    data_file(bench, "data").write_bytes(b"")

    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Store, "move", refused)
    assert bench.run("stages.left.params.factor=4")[0] == 3
    shown = capsys.readouterr().out
    assert "data: its artifact cannot be moved out of the way: [Errno 13]" in shown
    assert "left: failed" in shown and bench.results()[-1]["exit_code"] == 3


def test_damage_found_by_a_worker_is_repaired_too(bench, monkeypatch):
    from pipeline.artifacts.manifest import CorruptArtifact

    class WorkerError(Exception):
        """As Ray hands on what a worker raised."""

        def __init__(self, cause: Exception) -> None:
            super().__init__("a worker failed")
            self.cause = cause

    bench.run(selection=Selection(until=["data"]))
    where = bench.store.full(bench.plan()["data"].directory)
    original = toys.Inputs.__getitem__

    def damaged_once(inputs, name):
        monkeypatch.setattr(toys.Inputs, "__getitem__", original)
        raise WorkerError(CorruptArtifact(where, "a shard has another hash"))

    monkeypatch.setattr(toys.Inputs, "__getitem__", damaged_once)
    code, ran = bench.run(selection=Selection(until=["left"]))
    assert (code, ran) == (0, ["left", "data", "left"])


def test_a_manifest_of_another_format_is_made_again(bench):
    bench.run()
    folder = bench.root / bench.plan()["sum"].directory
    manifest = json.loads((folder / "manifest.json").read_text())
    data = json.dumps(manifest | {"format_version": 2, "something": "new"}).encode()
    (folder / "manifest.json").write_bytes(data)
    (folder / "_SUCCESS").write_text(hashlib.sha256(data).hexdigest())
    assert "manifest format 2 is not known" in bench.reasons()["sum"]
    assert bench.run() == (0, ["sum"])


def test_a_damaged_manifest_is_seen_by_the_plan(bench):
    bench.run()
    manifest = bench.root / bench.plan()["data"].directory / "manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    assert "does not match its success marker" in bench.reasons()["data"]
    assert bench.reasons()["left"] == "'data' is made again"
    assert bench.run() == (0, ["data", "left", "right", "sum"])


def test_damage_outside_the_selection_stops_the_stage_that_needs_it(bench, capsys):
    bench.run(selection=Selection(until=["data"]))
    file = data_file(bench, "data")
    file.write_bytes(b"")
    assert bench.run(selection=Selection(only=["left"]))[0] == 3
    assert "is damaged" in capsys.readouterr().out


def test_verify_finds_flipped_bits_and_sets_aside(bench, capsys):
    bench.run()
    assert bench.verb("verify") == 0
    file = data_file(bench, "left")
    data = bytearray(file.read_bytes())
    data[-2] ^= 1
    file.write_bytes(data)
    assert bench.verb("verify") == 3
    assert "left: " in capsys.readouterr().out
    assert bench.verb("verify", apply=True) == 3
    assert bench.run() == (0, ["left", "sum"])
    assert bench.verb("verify") == 0


# Several processes ----------------------------------------------------------------------------

SLOW = "root: {root}\nstages:\n  a: {{uses: slow, params: {{shards: 6, seconds: {seconds}}}}}\n"


def start(bench, *words: str, log: Path) -> subprocess.Popen:
    script = bench.root.parent / "job.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(REPOSITORY / 'jobs')!r})\n"
        "import run_pipeline\n"
        "from tests.dag import toys\n"
        "sys.exit(run_pipeline.main(sys.argv[1:], toys.registry()))\n"
    )
    return subprocess.Popen(
        [sys.executable, str(script), *words, str(bench.file)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TOY_LOG": str(log)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(log: Path, lines: int) -> None:
    deadline = time.monotonic() + 60
    while not log.exists() or len(log.read_text().split()) < lines:
        assert time.monotonic() < deadline, "the driver did nothing"
        time.sleep(0.02)


def test_two_drivers_on_one_root_do_the_work_once(bench, tmp_path):
    bench.write(SLOW.format(root=bench.root, seconds=0.5))
    log = tmp_path / "log"
    first = start(bench, log=log)
    wait_for(log, 1)
    second = start(bench, log=log)
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 4, output
    assert "is being made by process" in output and f"process {first.pid} " in output
    output, _ = first.communicate(timeout=60)
    assert first.returncode == 0, output
    assert log.read_text().split() == [str(n) for n in range(6)]
    codes = sorted(result["exit_code"] for result in bench.results())
    assert codes == [0, 4]


def test_a_killed_driver_resumes_at_the_first_missing_shard(bench, tmp_path):
    bench.write(SLOW.format(root=bench.root, seconds=0.3))
    log = tmp_path / "log"
    driver = start(bench, log=log)
    wait_for(log, 2)
    driver.kill()
    driver.wait()
    done = len(log.read_text().split())
    assert bench.plan()["a"].state == "partly done"
    bench.write(SLOW.format(root=bench.root, seconds=0.3))
    again = start(bench, log=log)
    output, _ = again.communicate(timeout=60)
    assert again.returncode == 0 and "shards (no result yet)" in output, output
    # At most the shard that was being written when the driver died is written twice.
    written = [int(line) for line in log.read_text().split()]
    assert sorted(set(written)) == list(range(6)) and len(written) <= 7
    assert written[done] in (done, done - 1)
    manifest = bench.plan()["a"].manifest
    assert [f.index for f in manifest.files if f.part == "rows"] == list(range(6))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_a_run_cleanly(bench, tmp_path, number, code):
    bench.write(SLOW.format(root=bench.root, seconds=0.5))
    log = tmp_path / "log"
    driver = start(bench, log=log)
    wait_for(log, 1)
    driver.send_signal(number)
    output, _ = driver.communicate(timeout=60)
    assert driver.returncode == code, output
    (result,) = bench.results()
    assert result["exit_code"] == code and result["stages"][0]["status"] == "interrupted"
    assert bench.store.list("locks") == []


def test_lock_of_another_host_is_respected(bench):
    planned = bench.plan()["data"]
    with artifact_lock(bench.store, planned.directory, "data") as lock:
        assert isinstance(lock, Lock)
        assert bench.run()[0] == 4
        (name,) = bench.store.list("locks")
        assert json.loads((bench.root / "locks" / name).read_text())["pid"] == os.getpid()


def test_a_root_on_an_object_store(bench, capsys):
    """The runner's own files on a store without rename, folders or local paths."""
    bench.store = Store(f"memory://{bench.root.name}-{os.getpid()}")
    root = bench.store.uri
    assert bench.run(root=root) == (0, ALL)
    assert bench.run(root=root) == (0, [])
    assert set(bench.states().values()) == {"cached"}
    assert bench.run(root=root, selection=Selection(force=["left"])) == (0, ["left", "sum"])
    assert bench.run("stages.left.params.factor=4", root=root) == (0, ["left", "sum"])
    assert bench.run(root=root) == (0, [])
    capsys.readouterr()
    assert bench.verb("gc", root=root, apply=True) == 0
    assert bench.verb("gc", root=root) == 0
    assert capsys.readouterr().out.endswith("0 folders, 0 B; `gc --apply` deletes them\n")
    assert bench.run(root=root) == (0, [])
    assert bench.verb("verify", root=root) == 0
    assert not bench.root.exists()
