"""What docs/compose.md names is there, and its examples and that of a report can be planned."""

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
METHODS = (PROJECT / "docs" / "methods.md").read_text(encoding="utf-8")
EXAMPLES = [
    example
    for example in re.findall(r"^```yaml\n(.*?)^```$", PAGE + METHODS, re.MULTILINE | re.DOTALL)
    if example.startswith("extends: ")
]


def written(example, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(example.replace("extends: ", f"extends: {PROJECT}/"))
    return file


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: yaml.safe_load(text)["name"])
def test_the_examples_are_planned(example, tmp_path, capsys):
    file = written(example, tmp_path)
    options = Options(verb="plan", file=str(file), root=str(tmp_path / "root"))
    assert execute(options, registry()) == 0
    out = capsys.readouterr().out
    described = yaml.safe_load(example)
    for stage in described.get("stages") or described["repeat"]["stages"]:
        name = stage.replace("{round}", "1")
        assert re.search(rf"^{name} .* to run ", out, re.MULTILINE)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: yaml.safe_load(text)["name"])
def test_the_examples_leave_the_default_run_as_it_is(example, tmp_path):
    pipeline = read_pipeline(written(example, tmp_path), registry())
    own = {stage.name: stage for stage in pipeline.stages}
    for stage in read_pipeline(PROJECT / "pipeline.yaml", registry()).stages:
        if stage.name != "evaluation":
            assert (own[stage.name].params, own[stage.name].inputs) == (stage.params, stage.inputs)


def test_sections_that_are_linked_exist():
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in METHODS.splitlines()
        if line.startswith("#")
    }
    linked = re.findall(r"\]\(methods\.md#([^)]+)\)", PAGE)
    assert linked and set(linked) <= headings
