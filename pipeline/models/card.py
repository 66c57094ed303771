"""The model card (README.md) of an exported model: what the caller states, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Exported = Literal["retriever", "ranker", "joined_ranker"]

_RETRIEVER_USE = """\
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("path/to/this/folder")
queries = model.encode_query(["a question"])
passages = model.encode_document([("a title", "the text of a passage")])
print(model.similarity(queries, passages))
"""

_RANKER_USE = """\
from sentence_transformers import CrossEncoder

model = CrossEncoder("path/to/this/folder")
print(model.predict([("a question", "a title the text of a passage")]))  # probability of relevance
print(model.rank("a question", ["one passage", "another passage"]))
"""

# Its module is no part of sentence-transformers, which would not import it from a path.
_JOINED_RANKER_USE = """\
from sentence_transformers import CrossEncoder
from pipeline.models.joined_pairs import JoinedPairs  # of the package rocketqa-ray

model = CrossEncoder(modules=[JoinedPairs.load("path/to/this/folder")])
# A tab stands between title and text; scores are probabilities of relevance.
print(model.predict([("a question", "a title\\tthe text of a passage")]))
print(model.rank("a question", ["one passage", "another passage"]))
"""

_USES = {"retriever": _RETRIEVER_USE, "ranker": _RANKER_USE, "joined_ranker": _JOINED_RANKER_USE}


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
    """

    title: str
    description: str = ""
    facts: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    limits: str = ""
    license: str | None = None

    def write(self, folder: Path, exported: Exported) -> None:
        """Write README.md into `folder`, with the lines that load the model."""
        (folder / "README.md").write_text(self._text(exported), encoding="utf-8")

    def _text(self, exported: Exported) -> str:
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
        parts.append(f"```python\n{_USES[exported]}```")
        if self.facts:
            parts.append("## How it was made\n\n" + _table(self.facts))
        if self.metrics:
            measured = {name: f"{value:.4f}" for name, value in self.metrics.items()}
            parts.append("## Measured\n\n" + _table(measured))
        if self.limits:
            parts.append("## Limits\n\n" + self.limits)
        return "\n\n".join(parts) + "\n"


def _table(rows: Mapping[str, str | int | float | bool]) -> str:
    lines = ["| | |", "|---|---|"]
    for name, value in rows.items():
        lines.append(f"| {_cell(name)} | {_cell(str(value))} |")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
