from __future__ import annotations

import io
from dataclasses import replace

import pytest

from pipeline.dag import doctor, progress
from pipeline.dag.layout import resolve_root
from pipeline.dag.progress import duration, open_progress
from pipeline.dag.roots import UnusableRoot, open_root
from pipeline.dag.tables import aligned, number, outcome_lines, size
from tests.dag import toys


def test_why_shows_every_field_that_differs(bench, capsys):
    bench.run()
    capsys.readouterr()
    settings = ("stages.left.params.factor=6", "stages.left.params.mode=plus")
    assert bench.verb("why", *settings, stage="left") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[3:]]
    assert rows[1:] == [["params.factor", "2", "6"], ["params.mode", "times", "plus"]]
    bench.verb("why", *settings, stage="sum")
    assert "see: why left, why right" in capsys.readouterr().out
    bench.verb("why", stage="left")
    assert "nothing differs" in capsys.readouterr().out
    assert bench.verb("why", stage="lfet") == 2
    assert "did you mean 'left'?" in capsys.readouterr().err


def test_a_run_ends_with_the_warnings_of_cached_stages_too(bench, capsys, monkeypatch):
    def doubtful(*given):
        return replace(toys.scale.run(*given), warnings=("take care",))

    registry = {**toys.registry(), "scale": replace(toys.scale, run=doubtful)}
    monkeypatch.setattr(toys, "registry", lambda: registry)
    bench.run("stages.right.params.factor=4")
    first = capsys.readouterr().out.splitlines()
    bench.run("stages.right.params.factor=4")
    second = capsys.readouterr().out.splitlines()
    for lines in (first, second):
        assert lines[-3:-1] == ["left: warning: take care", "right: warning: take care"]


def test_status_tells_fresh_from_stale(bench, capsys):
    bench.run()
    capsys.readouterr()
    bench.verb("status", "stages.left.params.factor=6")
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "fresh" in lines["data"] and "4 numbers" in lines["data"]
    assert "stale" in lines["left"] and "stale" in lines["sum"] and "fresh" in lines["right"]
    assert "exit code 0" in lines["last"]


def test_graph_as_text_and_as_mermaid(bench, capsys):
    assert bench.verb("graph") == 0
    text, _, mermaid = capsys.readouterr().out.partition("\n\n")
    assert "parts=left+right" in text
    lines = mermaid.splitlines()
    assert lines[0] == "flowchart TD"
    ids = {line.split('"')[1].split("<")[0]: line.split("[")[0].strip() for line in lines[1:6]}
    arrows = {line.strip() for line in lines[6:]}
    assert arrows == {
        f"{ids['data']} -->|Numbers| {ids['left']}",
        f"{ids['data']} -->|Numbers| {ids['right']}",
        f"{ids['left']} -->|Sorted| {ids['sum']}",
        f"{ids['right']} -->|Sorted| {ids['sum']}",
    }


def test_plan_marks_what_is_not_chosen(bench, capsys):
    from pipeline.dag.selection import Selection

    assert bench.verb("plan", selection=Selection(until=["left"])) == 0
    out = capsys.readouterr().out
    assert out.count("(not chosen)") == 3 and "0 cached, 2 to run" in out


def test_aligned_puts_numbers_to_the_right():
    lines = aligned([["a", "1,000"], ["bb", "7"]], ["n", "rows"])
    assert lines == ["n    rows", "a   1,000", "bb      7"]


def test_numbers_sizes_and_durations():
    assert [number(x) for x in (1234567, 2.0, 0.123456)] == ["1,234,567", "2", "0.1235"]
    assert [size(x) for x in (0, 999, 1500, 2.5e7, 3e12)] == [
        "0 B", "999 B", "1.5 kB", "25 MB", "3.0 TB"
    ]  # fmt: skip
    assert [duration(x) for x in (0.44, 59.4, 185, 7800)] == [
        "0.4 s", "59 s", "3 min 05 s", "2 h 10 min"
    ]  # fmt: skip


def test_plain_progress_prints_now_and_then(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    out = io.StringIO()
    shown = open_progress("encode", out)
    shown.advance(5)  # before any start: nothing to say
    shown.start("passages", 1000)
    for _ in range(100):
        clock[0] += 1
        shown.advance(10)
    lines = out.getvalue().splitlines()
    assert lines[0] == "encode: passages, 1,000 rows"
    assert lines[1] == "encode: passages: 50 of 1,000 rows (5 %), 10.0/s, 1 min 35 s left"
    # At 5, 15, 35 and 75 seconds: ever more rarely.
    assert len(lines) == 5
    shown.start("unknown", None, "pairs")
    clock[0] += 10
    shown.advance(20)
    assert out.getvalue().splitlines()[-1] == "encode: unknown: 20 pairs, 2.0/s"


def test_live_progress_on_a_terminal():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    shown = open_progress("encode", out)
    shown.note("before")
    shown.advance(1)
    shown.start("passages", 100)
    shown.advance(40)
    shown.note("half [way]")
    shown.start("more", None)
    shown.advance(7)
    shown.close()
    text = out.getvalue()
    assert "encode: before" in text and "encode: half [way]" in text
    assert "40/100 rows" in text and "7 rows" in text


def test_roots_of_submitted_jobs(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    job = {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}
    assert resolve_root("artifacts", {}) == (str(tmp_path / "artifacts"), "")
    assert resolve_root("s3://b/p", job) == ("s3://b/p", "")
    assert resolve_root("/data", job) == ("/data", "")
    assert resolve_root("~/x", job) == (str(tmp_path / "x"), "")
    with_root = {**job, "ARTIFACT_ROOT": "gs://bucket/run/"}
    assert resolve_root("artifacts", with_root) == ("gs://bucket/run/artifacts", "")
    # Of a variable that is not set nothing but the scheme is left.
    monkeypatch.setenv("RAY_JOB_ID", "01")
    monkeypatch.setenv("ARTIFACT_ROOT", "s3://")
    with pytest.raises(UnusableRoot, match="names no bucket"):
        open_root("artifacts")
    resolved, warning = resolve_root("artifacts", job)
    assert resolved == str(tmp_path / "artifacts") and "$ARTIFACT_ROOT is not set" in warning


def test_doctor_says_what_to_do(monkeypatch, tmp_path, capsys):
    answers = {
        doctor.TORCH_PROBE: (["2.0", None, [], "AVX2"], ""),
        doctor.FAISS_PROBE: (None, "ModuleNotFoundError: No module named 'faiss'"),
    }
    monkeypatch.setattr(doctor, "_probe", answers.__getitem__)
    findings = {finding.what: finding for finding in doctor.examine(str(tmp_path / "root"))}
    assert list(findings) == ["Python", "torch", "faiss", "Ray", "root", "cache", "models"]
    assert str(findings["Python"]).startswith("ok ")
    assert str(findings["faiss"]).startswith("warn") and "install faiss" in str(findings["faiss"])
    (tmp_path / "file").write_text("")
    findings = {f.what: f for f in doctor.examine(str(tmp_path / "file" / "below"))}
    assert "--root" in findings["root"].advice


def test_doctor_makes_no_folder_of_a_misspelt_address(bench, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "_probe", lambda _: (None, "not asked"))
    assert bench.verb("doctor", root="s3:/bucket/x") == 0
    expected = "warn  root: s3:/bucket/x is no folder and no address → write s3://bucket/x\n"
    assert expected in capsys.readouterr().out
    assert not (tmp_path / "s3:").exists()


def test_a_probe_that_fails_is_a_finding():
    assert doctor._probe("import json; print(json.dumps([1]))") == ([1], "")
    found, error = doctor._probe("import no_such_module_anywhere")
    assert found is None and "no_such_module_anywhere" in error


def test_a_stage_ends_with_its_rows_what_it_measured_and_its_warnings():
    outcome = {
        "rows_in": 1200,
        "rows_out": 1100,
        "unit": "queries",
        "dropped": {"too short": 60, "too long": 40},
        "counts": {"filled": 3, "missing": 0},
        "metrics": {
            "gold_below": 0.108,
            "share_below_by_rank": {"1-5": 0.3, "6-10": 1.0, "deeper": {"50": 0.5}},
        },
        "warnings": ["take care"],
    }
    assert outcome_lines("lists", outcome, 75.0) == [
        "lists: done in 1 min 15 s: 1,200 queries in, 1,100 out, "
        "100 dropped (60 too short, 40 too long), filled 3",
        "lists: gold_below 0.108",
        "lists: share_below_by_rank 1-5: 0.3, 6-10: 1",
        "lists: share_below_by_rank deeper 50: 0.5",
        "lists: warning: take care",
    ]
