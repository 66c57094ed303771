"""The pipeline files that come with the project are right, and can be planned anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.run_pipeline import main
from pipeline.dag.specification import read_pipeline
from pipeline.stages import NAMES, registry

PROJECT = Path(__file__).parents[2]
FILES = [PROJECT / "pipeline.yaml", *sorted((PROJECT / "recipes").rglob("*.yaml"))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PROJECT)))
def test_a_pipeline_file_is_valid_and_can_be_planned(file: Path, tmp_path: Path, capsys):
    pipeline = read_pipeline(str(file), registry(), ())
    used = {stage.type.name for stage in pipeline.stages}
    assert {"ingest", "tokenize", "train_retriever"} <= used <= set(NAMES)
    # ANCE has no ranker; what samplers draw is measured, too.
    assert used & {"evaluate", "draws"}
    assert main(["plan", str(file), "--root", str(tmp_path / "root")]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in pipeline.names)


def test_every_stage_type_has_its_place_in_some_file():
    pipelines = [read_pipeline(str(file), registry(), ()) for file in FILES]
    assert {stage.type.name for each in pipelines for stage in each.stages} == set(NAMES)
