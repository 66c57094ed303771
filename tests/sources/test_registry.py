from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest
from pydantic import TypeAdapter, ValidationError

from pipeline.sources.parameters import locate
from pipeline.sources.registry import READERS, SourceConfiguration, outside

CONFIGURATION = TypeAdapter(SourceConfiguration)


@pytest.mark.parametrize("reader", READERS.values())
def test_readers_exist(reader):
    module, name = reader.split(":")
    assert callable(getattr(import_module(module), name))


def test_every_format_has_parameters_and_a_reader():
    formats = CONFIGURATION.json_schema()["discriminator"]["mapping"]
    assert set(formats) == set(READERS)


@pytest.mark.parametrize(
    "configuration",
    [
        {"format": "beer", "path": "a"},
        {"format": "beir"},
        {"format": "beir", "path": "a", "corpsu": "b"},
        {"format": "beir", "path": 3},
        {"format": "beir", "path": "a", "qrels": {"training": "b"}},
        {"format": "dureader", "path": "a", "remove_spaces": "yes"},
        {"path": "a"},
    ],
)
def test_mistakes_are_refused(configuration):
    with pytest.raises(ValidationError):
        CONFIGURATION.validate_python(configuration)


def test_pydocs_may_be_spelled_short():
    assert CONFIGURATION.validate_python("pydocs").format == "pydocs"
    found = outside(CONFIGURATION.validate_python({"format": "pydocs", "packages": ["numpy"]}))
    assert found.files == ()
    assert found.packages == ("numpy",)
    assert found.values == {"python": ".".join(map(str, sys.version_info[:3]))}


def test_compressed_names_are_found(write, tmp_path):
    write({"a.tsv.gz": "", "b.tsv.zst": "", "c.tsv": "", "c.tsv.gz": ""})
    names = {
        name: locate(str(tmp_path), name).name for name in ("a.tsv", "b.tsv", "c.tsv", "d.tsv")
    }
    assert names == {
        "a.tsv": "a.tsv.gz",
        "b.tsv": "b.tsv.zst",
        "c.tsv": "c.tsv",
        "d.tsv": "d.tsv",
    }


def test_outside_files_are_those_present_or_named(write, tmp_path):
    write({"corpus.jsonl.gz": "", "qrels/train.tsv": ""})
    path = str(tmp_path)
    found = outside(CONFIGURATION.validate_python({"format": "beir", "path": path}))
    names = [file.relative_to(tmp_path).as_posix() for file in found.files]
    assert names == ["corpus.jsonl.gz", "queries.jsonl", "qrels/train.tsv"]
    assert found.values == {"parts": "corpus queries qrels.train"}
    named = {"format": "beir", "path": path, "qrels": {"dev": "qrels/train.tsv", "test": "gone"}}
    found = outside(CONFIGURATION.validate_python(named))
    assert found.values == {"parts": "corpus queries qrels.dev qrels.test"}
    assert found.files[-1].name == "gone"


def test_dumped_parameters_hold_no_names_of_files():
    given = {"format": "dpr", "path": "data/nq", "corpus": "wiki.tsv", "positives": "first"}
    dumped = CONFIGURATION.validate_python(given).model_dump(mode="json")
    assert dumped == {"format": "dpr", "positives": "first"}


def test_planning_is_light():
    code = (
        "import sys, pipeline.sources.registry\n"
        "heavy = {'pyarrow', 'numpy', 'torch', 'ray', 'ir_datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=".")
