from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from pipeline.stages import registry

GENERATOR = Path(__file__).parents[2] / "docs" / "generate_reference.py"


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("generate_reference", GENERATOR)
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate_reference"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["generate_reference"]


def test_the_committed_page_is_up_to_date(generator):
    message = "run `python docs/generate_reference.py` and commit docs/pipeline.md"
    assert generator.page() == generator.PAGE.read_text(encoding="utf-8"), message


def test_every_parameter_of_every_stage_is_on_the_page(generator):
    text = generator.reference()
    for stage in registry().values():
        _, _, section = text.partition(f"\n### {stage.name}\n")
        section = section.partition("\n### ")[0]
        for name in (*stage.inputs, *stage.params.model_fields):
            assert f"| `{name}` |" in section


def test_attributes_are_read_from_docstrings(generator):
    text = """One thing.

    Attributes:
        first: a value: with a colon,
            on two lines.
        second, third: two of them.

    Raises:
        ValueError: never.
    """
    assert generator.attributes_of(text) == {
        "first": "a value: with a colon, on two lines.",
        "second": "two of them.",
        "third": "two of them.",
    }
