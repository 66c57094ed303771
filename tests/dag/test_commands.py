from __future__ import annotations

import shutil

import pytest

from pipeline.artifacts.store import Store
from pipeline.dag.locking import artifact_lock, run_lock
from pipeline.dag.runner import run_plan
from pipeline.dag.selection import Selection
from tests.dag.test_garbage import artifacts
from tests.dag.test_runner import data_file

LOOKING = ("plan", "status", "why", "graph", "verify", "gc")


def refused(capsys, root: object) -> bool:
    return capsys.readouterr().err.startswith(f"root {root}: ")


@pytest.mark.parametrize("verb", ["plan", "status", "verify", "gc", "run"])
def test_a_root_that_is_none_is_refused_with_a_reason(bench, tmp_path, capsys, verb):
    file = tmp_path / "afile"
    file.write_text("")
    assert bench.verb(verb, root=str(file)) == 2 and refused(capsys, file)
    assert bench.verb(verb, root=str(file / "below")) == 2 and refused(capsys, file / "below")
    assert bench.verb(verb, root="foo://bar/x") == 2
    assert capsys.readouterr().err == "root foo://bar/x: Protocol not known: foo\n"
    assert bench.verb(verb, root="s3:/bucket/x") == 2
    assert "write s3://bucket/x" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_an_object_store_out_of_reach_is_refused_with_a_reason(bench, monkeypatch, capsys, verb):
    exceptions = pytest.importorskip("botocore.exceptions")

    def out_of_reach(*_: object) -> None:
        raise exceptions.EndpointConnectionError(endpoint_url="http://nowhere")

    root = "memory://out-of-reach"
    monkeypatch.setattr(Store, "list", out_of_reach)
    assert bench.verb(verb, root=root) == 2 and refused(capsys, root)
    # As if the connection was lost later.
    monkeypatch.setattr(Store, "list", lambda *_: [])
    monkeypatch.setattr(Store, "read_bytes", out_of_reach)
    assert bench.verb(verb, root=root) == 2 and refused(capsys, root)


def test_a_root_that_cannot_be_written_refuses_runs(bench, monkeypatch, capsys):
    def forbidden(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Store, "create", forbidden)
    assert bench.run() == (2, []) and refused(capsys, bench.root)


def test_what_is_wrong_is_said_though_it_cannot_be_recorded(bench, tmp_path, capsys):
    file = tmp_path / "afile"
    file.write_text("")
    assert bench.run("stages.left.params.fial=true", root=str(file)) == (2, [])
    shown = capsys.readouterr().err
    assert "did you mean 'fail'?" in shown and f"this is not recorded: root {file}: " in shown


def test_a_result_that_cannot_be_written_leaves_the_exit_code(bench, monkeypatch, capsys):
    write = Store.write_bytes

    def full(store, path, data):
        if path.endswith("result.json"):
            raise OSError(28, "No space left on device")
        write(store, path, data)

    monkeypatch.setattr(Store, "write_bytes", full)
    assert bench.run("stages.left.params.fail=true")[0] == 3
    assert "result.json cannot be written: [Errno 28]" in capsys.readouterr().out


def test_verify_moves_all_or_nothing(bench, capsys):
    bench.run()
    before = artifacts(bench)
    data_file(bench, "left").write_bytes(b"")
    with artifact_lock(bench.store, bench.plan()["sum"].directory, "stage 'sum'"):
        assert bench.verb("verify", apply=True) == 4
    assert "stage 'sum' is being made by process" in capsys.readouterr().err
    assert artifacts(bench) == before and bench.store.list("locks") == []
    assert bench.verb("verify", apply=True) == 3
    assert len(artifacts(bench)) == len(before) - 2


class Killed(BaseException):
    """As if the process had died."""


@pytest.mark.parametrize("moves", range(4))
def test_who_is_killed_while_setting_aside_leaves_nothing_of_what_is_gone(
    bench, monkeypatch, moves
):
    bench.run()
    before = {planned.name: planned.directory for planned in bench.plan().stages}
    data_file(bench, "data").write_bytes(b"")
    move, done = Store.move, []

    def killed(store, path, target):
        if len(done) == moves:
            raise Killed
        done.append(path)
        move(store, path, target)

    monkeypatch.setattr(Store, "move", killed)
    with pytest.raises(Killed):
        bench.verb("verify", apply=True)
    monkeypatch.undo()
    left = artifacts(bench)
    assert len(done) == moves and before["data"] in left
    for child, parents in {"sum": ["left", "right"], "left": ["data"], "right": ["data"]}.items():
        assert before[child] not in left or all(before[parent] in left for parent in parents)
    # What is left is made again by those who do the same once more.
    assert bench.verb("verify", apply=True) == 3
    assert bench.run() == (0, ["data", "left", "right", "sum"])


def test_on_an_object_store_what_is_set_aside_loses_its_marker_first(bench, monkeypatch):
    root = f"memory://{bench.root.parent.name}"
    bench.run(root=root)
    store = Store(root)
    bench.store = store
    directory = bench.plan()["sum"].directory

    def killed(*_):
        raise Killed

    monkeypatch.setattr(Store, "move", killed)
    with pytest.raises(Killed):
        bench.run(root=root, selection=Selection(force=["sum"]))
    assert store.exists(f"{directory}/manifest.json")
    assert not store.exists(f"{directory}/_SUCCESS") and bench.states()["sum"] == "to run"


@pytest.mark.parametrize("verb", LOOKING)
def test_looking_makes_no_root(bench, verb):
    assert bench.verb(verb, stage="left" if verb == "why" else "") == 0
    assert not bench.root.exists()


@pytest.mark.parametrize("verb", LOOKING)
def test_looking_needs_no_root_that_can_be_written(bench, monkeypatch, tmp_path, verb):
    source = tmp_path / "numbers.txt"
    source.write_text("1 2 3")
    bench.run()

    def forbidden(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with run_lock(bench.store, "20260101-000000-000000-abcd"):
        # The caches have something new to keep, and a lock has to be judged.
        bench.store.delete("memory")
        for name in ("create", "write_bytes", "delete"):
            monkeypatch.setattr(Store, name, forbidden)
        setting = f"stages.data.params.path={source}"
        assert bench.verb(verb, setting, stage="left" if verb == "why" else "") == 0
        monkeypatch.undo()


def test_a_first_run_remembers_what_it_read(bench):
    bench.run()
    assert "code.json" in bench.store.list("memory")


def test_verify_and_graph_honour_the_selection(bench, capsys):
    bench.run()
    data_file(bench, "left").write_bytes(b"")
    capsys.readouterr()
    assert bench.verb("verify", selection=Selection(only=["data"])) == 0
    shown = capsys.readouterr().out
    assert shown.endswith("data: ok\n") and "left" not in shown
    assert bench.verb("verify", selection=Selection(until=["sum"])) == 3
    assert bench.verb("graph", selection=Selection(until=["left"])) == 0
    shown = capsys.readouterr().out.split("flowchart TD")[1]
    assert shown.count("-->") == 1 and '"left<br/>' in shown and '"sum<br/>' not in shown


@pytest.mark.parametrize("verb", ["run", "plan", "verify", "graph"])
def test_a_choice_of_nothing_is_a_mistake(bench, capsys, verb):
    assert bench.verb(verb, selection=Selection(start=["sum"], until=["data"])) == 2
    assert "no stage is chosen by --from sum and --until data at once" in capsys.readouterr().err


def test_a_reference_that_another_run_wrote_meanwhile_is_written_again(bench):
    bench.run()
    plan = bench.plan()
    bench.run("stages.left.params.factor=4")
    assert bench.store.read_json("refs/toy/left.json")["key"] != plan["left"].key
    assert run_plan(plan, {"left"}, bench.store, "20260101-000000-000000-abcd").exit_code == 0
    assert bench.store.read_json("refs/toy/left.json")["key"] == plan["left"].key


@pytest.mark.parametrize("text", ['{"stage":', "{}", "[]", "\udcff"])
def test_a_damaged_reference_is_noted_again_by_the_next_run(bench, capsys, text):
    bench.run()
    file = bench.root / "refs" / "toy" / "data.json"
    file.write_bytes(text.encode(errors="surrogateescape"))
    for verb in ("plan", "status", "why"):
        assert bench.verb(verb, stage="data" if verb == "why" else "") == 0
    if text not in ("{}", "[]"):
        assert bench.verb("gc", apply=True) == 2
        shown = capsys.readouterr().err
        assert "refs/toy/data.json is damaged (" in shown and "run its pipeline again" in shown
    assert bench.run() == (0, [])
    assert bench.store.read_json("refs/toy/data.json")["key"] == bench.plan()["data"].key
    assert bench.verb("gc", apply=True) == 0 and len(artifacts(bench)) == 5


@pytest.mark.parametrize("name", ["plan.json", "result.json"])
@pytest.mark.parametrize("text", ['{"stages":', "{}", "[]", "\udcff"])
def test_a_damaged_record_of_a_run_is_named_with_what_to_do(bench, capsys, name, text):
    bench.run()
    (folder,) = (bench.root / "runs").iterdir()
    (folder / name).write_bytes(text.encode(errors="surrogateescape"))
    capsys.readouterr()
    for verb in ("status", "gc"):
        assert bench.verb(verb) == 2
        shown = capsys.readouterr().err
        assert f"runs/{folder.name}/{name} is damaged (" in shown and "delete its folder" in shown
    shutil.rmtree(folder)
    assert bench.run() == (0, [])
    assert bench.verb("status") == 0 and bench.verb("gc", apply=True) == 0
    assert len(artifacts(bench)) == 5


def test_why_with_an_unknown_key_names_the_last_result(bench, capsys):
    bench.run()
    last = bench.store.read_json("refs/toy/left.json")
    capsys.readouterr()
    assert bench.verb("why", "stages.data.params.path=/no/such/file", stage="left") == 0
    shown = capsys.readouterr().out
    assert f"last {last['key']} ({last['written']})" in shown and "no earlier result" not in shown
    assert "today's key is not known; see: why data" in shown
    assert bench.verb("why", "stages.data.params.path=/no/such/file", stage="data") == 0
    assert "source missing: /no/such/file does not exist" in capsys.readouterr().out


def test_a_source_that_cannot_be_read_is_not_the_roots_fault(bench, tmp_path, monkeypatch):
    from pipeline.dag.identities import Identities

    def forbidden(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Identities, "_digests", forbidden)
    source = tmp_path / "numbers.txt"
    source.write_text("1")
    reasons = bench.reasons(f"stages.data.params.path={source}")
    assert f"{source} cannot be read: [Errno 13] Permission denied" in reasons["data"]


@pytest.mark.parametrize("root", ["", "s3://", "/"])
def test_a_root_that_names_nothing_is_refused(bench, capsys, root):
    assert bench.verb("plan", root=root) == 2
    assert capsys.readouterr().err.startswith(f"root '{root}': ")
    assert bench.run(root=root) == (2, [])
