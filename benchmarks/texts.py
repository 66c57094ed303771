"""Texts to measure with: real ones from installed documentation, and generated ones of any size."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Documentation:
    """Summary lines and bodies of docstrings; `queries[i]` belongs to `passages[i]`."""

    queries: list[str]
    passages: list[str]


def documentation(pairs: int) -> Documentation:
    """Labelled pairs of the `pydocs` source; the title is part of the passage's text.

    Raises:
        ValueError: there are not that many.
    """
    from pipeline.sources.pydocs import PydocsParams, PydocsSource
    from pipeline.sources.records import Problems

    source = PydocsSource(PydocsParams(max_passages=None), Problems())
    passages = {one.passage_id: f"{one.title} {one.text}" for one in source.passages()}
    queries = {one.query_id: one.text for one in source.queries()}
    labelled = [
        (queries[one.query_id], passages[one.passage_id])
        for one in source.judgements()
        if one.query_id in queries
    ]
    if len(labelled) < pairs:
        raise ValueError(f"the documentation has {len(labelled)} labelled pairs, not {pairs}")
    chosen = np.random.default_rng(0).permutation(len(labelled))[:pairs]
    return Documentation([labelled[i][0] for i in chosen], [labelled[i][1] for i in chosen])


def write_beir(folder: Path, passages: int, queries: int, seed: int = 0) -> None:
    """Write a generated collection in BEIR's layout.

    Words are drawn from 30,000 by Zipf's law; a passage has 20 to 120 of them, a query 4 to 12 of
    those of its one relevant passage. The share of labelled queries per passage is the caller's.
    """
    draw = np.random.default_rng(seed)
    words = np.array([_word(rank) for rank in range(30_000)])
    chance = 1 / np.arange(1, len(words) + 1)
    edges = np.cumsum(chance / chance.sum())
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    asked = set(draw.choice(passages, queries, replace=False).tolist())
    with (
        (folder / "corpus.jsonl").open("w", encoding="utf-8") as corpus,
        (folder / "queries.jsonl").open("w", encoding="utf-8") as questions,
        (folder / "qrels" / "train.tsv").open("w", encoding="utf-8") as qrels,
    ):
        qrels.write("query-id\tcorpus-id\tscore\n")
        for number in range(passages):
            length = int(draw.integers(20, 121))
            at = np.minimum(np.searchsorted(edges, draw.random(length)), len(words) - 1)
            text = words[at].tolist()
            title = " ".join(text[:3])
            row = {"_id": f"p{number}", "title": title, "text": " ".join(text[3:])}
            corpus.write(json.dumps(row) + "\n")
            if number in asked:
                count = int(draw.integers(4, 13))
                query = " ".join(draw.choice(text, count).tolist())
                questions.write(json.dumps({"_id": f"q{number}", "text": query}) + "\n")
                qrels.write(f"q{number}\tp{number}\t1\n")


def _word(rank: int) -> str:
    """A word of its own for each rank, shorter for frequent ones."""
    consonants, vowels = "bcdfghklmnprstvz", "aeiou"
    syllables, rest = [], rank + 1
    while rest:
        rest, one = divmod(rest, len(consonants) * len(vowels))
        syllables.append(consonants[one // len(vowels)] + vowels[one % len(vowels)])
    return "".join(syllables)
