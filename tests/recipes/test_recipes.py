from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.dag.commands import Options, execute
from pipeline.dag.specification import Pipeline, read_pipeline
from pipeline.stages import registry

PROJECT = Path(__file__).parents[2]
PAPER = sorted((PROJECT / "recipes" / "paper").glob("*.yaml"))
FILES = [PROJECT / "pipeline.yaml", *sorted((PROJECT / "recipes").rglob("*.yaml"))]


def of_type(pipeline: Pipeline, name: str) -> list:
    return [stage for stage in pipeline.stages if stage.type.name == name]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_is_right_and_names_each_run(file):
    pipeline = read_pipeline(file, registry())
    for stage in of_type(pipeline, "evaluate"):
        assert len(stage.params.names) == len(stage.inputs["runs"])
        assert set(stage.params.untrained) <= set(stage.params.names)


def test_names_are_unique():
    names = [read_pipeline(file, registry()).name for file in FILES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("file", PAPER, ids=lambda file: file.stem)
def test_a_plan_without_the_data_says_what_is_missing(file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert execute(Options(verb="plan", file=str(file)), registry()) == 0
    out = capsys.readouterr().out
    assert "para.txt does not exist; key not known yet" in out


@pytest.mark.parametrize("file", PAPER, ids=lambda file: file.stem)
def test_paper_recipes_follow_the_released_code(file):
    pipeline = read_pipeline(file, registry())
    for stage in of_type(pipeline, "train_retriever"):
        assert stage.inputs["base"] == ("base",)
        assert not stage.params.mask_known_positives and stage.params.negatives == "cross_batch"
        assert not stage.params.encoder.shared and stage.params.encoder.temperature == 1
        assert stage.params.global_batch_size % stage.resources.workers == 0
    for stage in of_type(pipeline, "train_ranker"):
        assert (stage.params.head, stage.params.adversarial) == ("pooled_two_class", 0.01)
        assert stage.params.schedule == "constant" and stage.params.warmup_ratio == 0
    for stage in (*of_type(pipeline, "denoise"), *of_type(pipeline, "pseudo_label")):
        assert "calibration" not in stage.inputs


@pytest.mark.parametrize("name", ["openqa", "openqa_fraction"])
def test_retrievers_that_are_compared_take_equally_many_steps(name):
    pipeline = read_pipeline(PROJECT / "recipes" / f"{name}.yaml", registry())
    trained = of_type(pipeline, "train_retriever")
    assert len(trained) == 12
    assert len({stage.params.max_steps for stage in trained} - {None}) == 1
    assert len({stage.params.global_batch_size for stage in trained}) == 1
