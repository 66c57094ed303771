"""The model card (README.md) of an exported model: what the caller states, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Exported = Literal["retriever", "ranker", "joined_ranker"]
Separator = Literal[" ", "\t"]

_RETRIEVER_USE = """\
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/to/this/folder")
queries = model.encode_query(["a question"])
# {titles}
passages = model.encode_document([{passages}])
print(model.similarity(queries, passages))
"""

_RANKER_USE = """\
from sentence_transformers import CrossEncoder
{imports}
model = {model}
# {titles}
passages = [{passages}]
print(model.predict([("a question", passages[0])]))  # a probability of relevance
print(model.rank("a question", passages))
"""

_RANKER = 'CrossEncoder("path/to/this/folder")'
# Its module is no part of sentence-transformers, which would not import it from a path.
_JOINED_RANKER = 'CrossEncoder(modules=[JoinedPairs.load("path/to/this/folder")])'
_JOINED_IMPORT = (
    "from pipeline.models.joined_pairs import JoinedPairs  # of the package rocketqa-ray\n"
)


@dataclass(frozen=True)
class Titles:
    """What a model was trained to read as a passage.

    Attributes:
        used: whether titles are part of passages.
        missing: what stands for a missing title where title and text are two sequences.
    """

    used: bool = True
    missing: str = "-"

    def told(self, exported: Exported) -> str:
        """The card's line about them."""
        if not self.used:
            return "left out: a passage is its text alone"
        if exported == "retriever":
            return f"part of passages, a missing one is {json.dumps(self.missing)}"
        return "part of passages"


@dataclass(frozen=True)
class Card:
    """What a caller knows about the model it exports.

    Attributes:
        title: first line.
        description: a sentence or two on what was trained, how and on what.
        facts: how it was made (base, data, optimiser steps, batch, seed, ...).
        metrics: what was measured; the names should say on which split.
        limits: what a user should not expect of it.
        license: an SPDX identifier, where known.
        titles: what the model reads as a passage.
    """

    title: str
    description: str = ""
    facts: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    limits: str = ""
    license: str | None = None
    titles: Titles = Titles()

    def write(self, folder: Path, exported: Exported, separator: Separator = " ") -> None:
        """Write README.md into `folder`, with the lines that load the model.

        Args:
            folder: of the exported model.
            exported: what it is.
            separator: what stands between title and text of a ranker's passage.
        """
        text = self._text(exported, _use(exported, self.titles, separator))
        (folder / "README.md").write_text(text, encoding="utf-8")

    def _text(self, exported: Exported, use: str) -> str:
        header = [
            "---",
            "library_name: sentence-transformers",
            f"pipeline_tag: {'sentence-similarity' if exported == 'retriever' else 'text-ranking'}",
            *([f"license: {self.license}"] if self.license else []),
            "---",
        ]
        parts = ["\n".join(header), f"# {self.title}"]
        if self.description:
            parts.append(self.description)
        parts.append(f"```python\n{use}```")
        facts = {**self.facts, "titles": self.titles.told(exported)}
        parts.append("## How it was made\n\n" + _table(facts))
        if self.metrics:
            measured = {name: f"{value:.4f}" for name, value in self.metrics.items()}
            parts.append("## Measured\n\n" + _table(measured))
        if self.limits:
            parts.append("## Limits\n\n" + self.limits)
        return "\n\n".join(parts) + "\n"


def _use(exported: Exported, titles: Titles, separator: Separator) -> str:
    if exported == "retriever":
        told, passages = _titled_sequences(titles)
        return _RETRIEVER_USE.format(titles=told, passages=passages)
    joined = exported == "joined_ranker"
    told, passages = _titled_text(titles, "\t" if joined else separator)
    return _RANKER_USE.format(
        imports=_JOINED_IMPORT if joined else "",
        model=_JOINED_RANKER if joined else _RANKER,
        titles=told,
        passages=passages,
    )


def _titled_sequences(titles: Titles) -> tuple[str, str]:
    """How passages are written where title and text are two sequences: in words, and as code."""
    if not titles.used:
        return "A passage is its text; titles were left out in training.", '"the text of a passage"'
    missing = json.dumps(titles.missing)
    told = f"A passage is a pair of title and text; {missing} stands for a missing title."
    return told, f'("a title", "the text of a passage"), ({missing}, "a text without title")'


def _titled_text(titles: Titles, separator: Separator) -> tuple[str, str]:
    """How passages are written where they are one text: in words, and as code."""
    if not titles.used:
        return _titled_sequences(titles)
    name = {" ": "space", "\t": "tab"}[separator]
    told = f"A {name} stands between title and text; a passage without title is its text alone."
    titled = json.dumps(f"a title{separator}the text of a passage")
    return told, f'{titled}, "a text without title"'


def _table(rows: Mapping[str, str | int | float | bool]) -> str:
    lines = ["| | |", "|---|---|"]
    for name, value in rows.items():
        lines.append(f"| {_cell(name)} | {_cell(str(value))} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
