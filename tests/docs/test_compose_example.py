"""What docs/compose.md names is there, and its example can be planned."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from pipeline.dag.commands import Options, execute
from pipeline.dag.specification import read_pipeline
from pipeline.stages import registry

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "compose.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(EXAMPLE.replace("extends: pipeline.yaml", f"extends: {PROJECT}/pipeline.yaml"))
    return file


def test_the_example_is_planned(file, tmp_path, capsys):
    options = Options(verb="plan", file=str(file), root=str(tmp_path / "root"))
    assert execute(options, registry()) == 0
    out = capsys.readouterr().out
    for stage in yaml.safe_load(EXAMPLE)["stages"]:
        assert re.search(rf"^{stage} .* to run ", out, re.MULTILINE)


def test_the_example_leaves_the_default_run_as_it_is(file):
    own = {stage.name: stage for stage in read_pipeline(file, registry()).stages}
    for stage in read_pipeline(PROJECT / "pipeline.yaml", registry()).stages:
        if stage.name != "evaluation":
            assert (own[stage.name].params, own[stage.name].inputs) == (stage.params, stage.inputs)


def test_sections_that_are_linked_exist():
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in (PROJECT / "docs" / "methods.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("#")
    }
    linked = re.findall(r"\]\(methods\.md#([^)]+)\)", PAGE)
    assert linked and set(linked) <= headings
