"""Every example of docs/data.md is read as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from pipeline.sources.assemble import Assembly
from pipeline.sources.records import Problems
from pipeline.sources.registry import READERS, SourceConfiguration, open_source

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_, _, FORMATS = PAGE.partition("\n## Formats\n")
SECTIONS = {
    section.split("\n")[0]: BLOCK.findall(section)
    for section in FORMATS.partition("\n## ")[0].split("\n### ")[1:]
}
WITHOUT_FILES = ("ir_datasets", "pydocs")


def source_of(blocks: list[tuple[str, str, str]]) -> dict:
    return next(yaml.safe_load(body)["source"] for kind, _, body in blocks if kind == "yaml")


def test_every_format_has_an_example():
    assert {source_of(blocks)["format"] for blocks in SECTIONS.values()} == set(READERS)


@pytest.mark.parametrize("name", SECTIONS)
def test_the_example_is_read(name, tmp_path, monkeypatch):
    blocks = SECTIONS[name]
    folder = tmp_path / "data" / "mine"
    folder.mkdir(parents=True)
    for kind, file, body in blocks:
        if file:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(body, encoding="utf-8")
        elif kind == "python":
            monkeypatch.chdir(folder)
            exec(body, {})
    monkeypatch.chdir(tmp_path)
    configuration = TypeAdapter(SourceConfiguration).validate_python(source_of(blocks))
    if configuration.format in WITHOUT_FILES:
        return
    assembly = Assembly(
        open_source(configuration, Problems()), passages_per_shard=10, validation_share=0.1, seed=1
    )
    passages = sum(table.num_rows for table in assembly.passages())
    tables = assembly.finish()
    splits = tables.queries["split"].to_pylist()
    assert passages >= 1 and tables.qrels.num_rows >= 2
    assert {"train", "dev"} <= set(splits)
