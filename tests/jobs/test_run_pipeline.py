from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from tests.dag import toys

JOB = Path(__file__).parents[2] / "jobs" / "run_pipeline.py"


@pytest.fixture(scope="module")
def job():
    spec = importlib.util.spec_from_file_location("run_pipeline", JOB)
    module = importlib.util.module_from_spec(spec)
    sys.modules["run_pipeline"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["run_pipeline"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipeline.yaml").write_text(toys.PIPELINE.format(root="artifacts"))
    (tmp_path / "other.yaml").write_text("stages: {a: {uses: draw}}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "verb", "file", "stage"),
    [
        ([], "run", "pipeline.yaml", ""),
        (["other.yaml"], "run", "other.yaml", ""),
        (["run", "other.yaml"], "run", "other.yaml", ""),
        (["plan"], "plan", "pipeline.yaml", ""),
        (["gc", "other.yaml", "--apply"], "gc", "other.yaml", ""),
        (["other.yaml", "plan"], "plan", "other.yaml", ""),
        (["why", "left"], "why", "pipeline.yaml", "left"),
        (["other.yaml", "why", "left"], "why", "other.yaml", "left"),
        (["why", "--root", "x", "left", "other.yaml"], "why", "other.yaml", "left"),
    ],
)
def test_verbs_and_files(job, folder, words, verb, file, stage):
    options = job.options_of(words)
    assert (options.verb, options.file, options.stage) == (verb, file, stage)


def test_options(job, folder):
    line = "--only a,b --only c --from d --until e --force f --set seed=1 --set root=x,y"
    options = job.options_of([*line.split(), "--root", "r", "--keep-going", "--strict-code"])
    assert options.selection.only == ("a", "b", "c") and options.selection.start == ("d",)
    assert options.selection.until == ("e",) and options.selection.force == ("f",)
    assert options.settings == ("seed=1", "root=x,y") and options.root == "r"
    assert options.keep_going and options.strict_code and not options.apply


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plam"], "'plam' is neither a verb nor a file (did you mean 'plan'?)"),
        (["why"], "why: name a stage"),
        (["plan", "a.yaml", "b.yaml"], "one pipeline file at a time"),
        (["--kep-going"], "unknown option '--kep-going' (did you mean '--keep-going'?)"),
        (["--only", ","], "--only names no stage"),
        (["--apply"], "--apply: `run` does not take it; leave it out (taken by: verify, gc)"),
        (["doctor", "--only", "left"], "--only: `doctor` does not take it"),
        (["doctor", "nosuch.yaml"], "cannot read nosuch.yaml"),
        (["gc", "--until", "left"], "--until: `gc` does not take it"),
        (["plan", "--keep-going"], "--keep-going: `plan` does not take it"),
    ],
)
def test_mistakes_on_the_command_line_end_with_2(job, folder, capsys, words, message):
    assert job.main(words, toys.registry()) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("words", [["run", "nosuch.yaml"], ["plam"], ["--kep-going"]])
def test_a_refused_command_line_is_recorded_where_the_root_is_clear(job, folder, words):
    assert job.main([*words, "--root", "r"], toys.registry()) == 2
    (result,) = (folder / "r" / "runs").glob("*/result.json")
    recorded = json.loads(result.read_text())
    assert recorded["exit_code"] == 2 and words[-1] in recorded["error"]


def test_a_refusal_has_the_pipelines_own_name(job, folder):
    assert job.main(["--set", "stages.left.params.fial=true"], toys.registry()) == 2
    (result,) = (folder / "artifacts" / "runs").glob("*/result.json")
    assert json.loads(result.read_text())["pipeline"] == "toy"


def test_exit_codes(job, folder, capsys):
    registry = toys.registry()
    assert job.main(["plan"], registry) == 0
    assert job.main(["--set", "stages.left.params.fail=true"], registry) == 3
    assert job.main(["--set", "stages.left.params.fial=true"], registry) == 2
    assert job.main([], registry) == 0
    assert job.main(["plan", "missing.yaml"], registry) == 2
    assert "cannot read missing.yaml" in capsys.readouterr().err
    assert (folder / "artifacts" / "runs").is_dir()


def test_under_a_job_a_relative_root_goes_to_artifact_root(job, folder, monkeypatch):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setenv("ARTIFACT_ROOT", str(folder / "shared"))
    assert job.main(["--set", "stages.*.resources.workers=0"], toys.registry()) == 0
    assert (folder / "shared" / "artifacts" / "refs" / "toy" / "sum.json").is_file()
    assert not (folder / "artifacts").exists()
