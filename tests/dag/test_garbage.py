from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.dag import commands
from pipeline.dag.locking import artifact_lock, run_lock
from pipeline.dag.records import new_run_id, run_ids
from pipeline.dag.runner import _Runner
from pipeline.dag.selection import Selection
from tests.dag import toys

KEY = "0123456789abcdef0123456789abcdef"
FAILS = "stages.left.params.fail=true"


def artifacts(bench) -> set[str]:
    kinds = [kind for kind in toys.registry() if (bench.root / kind).is_dir()]
    return {f"{kind}/{name}" for kind in kinds for name in bench.store.list(kind)}


def put(bench, *paths: str) -> list[Path]:
    files = [bench.root / path for path in paths]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("[]")
    return files


def kill(bench, run: str) -> None:
    """Leave a run as if its process had been killed."""
    (bench.root / "runs" / run / "result.json").unlink()


def test_gc_keeps_what_references_name(bench, capsys):
    bench.run()
    first = artifacts(bench)
    bench.run("stages.left.params.factor=4")
    second = artifacts(bench)
    bench.run(selection=Selection(force=["random"]))
    # The last run was on the first parameters again.
    assert bench.verb("gc") == 0
    shown = capsys.readouterr().out
    assert artifacts(bench) == second and "3 folders" in shown and "set aside" in shown
    assert bench.verb("gc", apply=True) == 0
    assert artifacts(bench) == first
    assert bench.store.list("aside/draw") == []
    assert bench.run() == (0, [])


def test_gc_keeps_what_an_unfinished_run_names(bench):
    assert bench.run(FAILS)[0] == 3
    put(bench, f"slow/{KEY}/parts/rows-00000.json")
    before = artifacts(bench)
    assert bench.verb("gc", apply=True) == 0
    assert artifacts(bench) == before - {f"slow/{KEY}"}


def test_gc_keeps_an_unfinished_run_when_a_later_one_is_done(bench):
    assert bench.run("stages.data.params.count=6", FAILS)[0] == 3
    unfinished = artifacts(bench)
    assert bench.run()[0] == 0
    assert bench.verb("gc", apply=True) == 0
    assert unfinished <= artifacts(bench)


def test_gc_keeps_what_is_locked(bench):
    bench.run()
    directory = f"slow/{KEY}"
    put(bench, f"{directory}/rows/00000-1f2e3d4c.parquet")
    with artifact_lock(bench.store, directory, "it"):
        bench.verb("gc", apply=True)
        assert directory in artifacts(bench)
    bench.verb("gc", apply=True)
    assert directory not in artifacts(bench)


def test_gc_leaves_what_is_not_ours(bench):
    bench.run()
    foreign = put(
        bench,
        "photos/2024/a.jpg",
        f"photos/{KEY}/manifest.json",
        "slow/holiday/manifest.json",
        f"slow/{KEY}/a.jpg",
        f"slow/{KEY[:-1]}/parts/a.json",
        "aside/photos/a.jpg",
        "aside/slow/holiday/manifest.json",
        f"aside/slow/{KEY}-{new_run_id()}/a.jpg",
        "refs/heads/a.json",
        "runs/mine/plan.json",
        "runs/probes/a.jpg",
        "runs/ray-train/mine/a.jpg",
    )
    assert bench.verb("gc", apply=True) == 0
    assert all(file.is_file() for file in foreign)


@pytest.mark.parametrize(
    "file",
    [
        "_SUCCESS",
        "state/precision.json",
        "checkpoints/step-5.json",
        "rows/00000-1f2e3d4c.parquet",
        "numbers-1f2e3d4c.json",
        "files-1f2e3d4c/weights",
        "writing-ab12cd34/shard.parquet",
    ],
)
def test_gc_knows_what_a_killed_stage_left_at_any_moment(bench, file):
    bench.run()
    (left,) = put(bench, f"slow/{KEY}/{file}")
    (aside,) = put(bench, f"aside/slow/{KEY}-{new_run_id()}/{file}")
    assert bench.verb("gc", apply=True) == 0
    assert not left.exists() and not aside.exists()


def test_gc_spares_a_run_at_work(bench, monkeypatch):
    make = _Runner.make

    def meanwhile(runner, planned):
        if planned.name == "sum":
            monkeypatch.setattr(_Runner, "make", make)
            assert bench.run()[0] == 0
            # By now another run is the pipeline's newest unfinished one.
            assert bench.run("stages.data.params.count=8", FAILS)[0] == 3
            assert bench.verb("gc", apply=True) == 0
        return make(runner, planned)

    monkeypatch.setattr(_Runner, "make", meanwhile)
    assert bench.run("stages.data.params.count=6")[0] == 0
    assert bench.store.list("locks") == []


def test_gc_spares_what_a_run_finds_while_it_plans(bench, monkeypatch, capsys):
    bench.run("stages.data.params.count=6")
    bench.run()
    # By now no reference names the first results.
    plan = commands.make_plan

    def collected_meanwhile(*arguments, **options):
        monkeypatch.setattr(commands, "make_plan", plan)
        planned = plan(*arguments, **options)
        assert bench.verb("gc", apply=True) == 0
        return planned

    monkeypatch.setattr(commands, "make_plan", collected_meanwhile)
    chosen = Selection(only=["sum"], force=["sum"])
    assert bench.run("stages.data.params.count=6", selection=chosen) == (0, ["sum"])
    assert "is still planning: until it has said what it needs" in capsys.readouterr().out
    bench.run()
    assert bench.verb("gc", apply=True) == 0 and len(artifacts(bench)) == 5


def test_gc_takes_what_killed_runs_left_and_keeps_results(bench, capsys):
    for count in (5, 6, 7):
        bench.run(f"stages.data.params.count={count}", FAILS)
    failed = run_ids(bench.store)
    for run in failed[1:]:
        kill(bench, run)
    left = put(bench, f"runs/probes/{KEY}", f"runs/ray-train/a-{KEY[:16]}-1f2e3d4c/record.json")
    bench.run()
    (finished,) = set(run_ids(bench.store)) - set(failed)
    with run_lock(bench.store, new_run_id()):
        assert bench.verb("gc", apply=True) == 0
        assert all(file.exists() for file in left), "they may be those of the run at work"
    # The newest unfinished run of a pipeline may be taken up again.
    assert run_ids(bench.store) == [failed[0], failed[2], finished]
    capsys.readouterr()
    assert bench.verb("gc", apply=True) == 0
    assert capsys.readouterr().out.count("left by a killed run") == 2
    assert not any(file.exists() for file in left)
    assert run_ids(bench.store) == [failed[0], failed[2], finished]


def test_a_killed_run_that_was_brought_to_its_end_goes(bench):
    bench.run()
    (killed,) = run_ids(bench.store)
    kill(bench, killed)
    bench.run()
    assert bench.verb("gc", apply=True) == 0
    assert killed not in run_ids(bench.store) and len(run_ids(bench.store)) == 1


def test_a_dead_runs_lock_ages_out(bench):
    bench.run()
    (lock,) = put(bench, f"locks/runs-{new_run_id()}.json")
    lock.write_text('{"host": "elsewhere", "heartbeat": 0, "every": 10}')
    bench.run()
    assert bench.store.list("locks") == []


def test_what_cannot_be_deleted_does_not_count_as_freed(bench, capsys, monkeypatch):
    bench.run()
    put(bench, f"slow/{KEY}/parts/a.json")
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    assert bench.verb("gc", apply=True) == 0
    shown = capsys.readouterr().out
    assert f"not deleted: {bench.root}/slow/{KEY}" in shown and "0 B freed" in shown
