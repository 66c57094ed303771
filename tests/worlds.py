"""A generated world in which relevance is known: every pair, not only the labelled ones.

A passage speaks of one topic (several words of a topic's few) and names one key. A query gives some
of a topic's words and a key; relevant are the passages of that topic with that key.
Words of a topic are shared by all its passages, so what merely counts common words ranks passages
of the right topic with another key (true hard negatives) as high as the relevant ones. Of the
relevant passages of a query all but one are labelled; that one is a planted false negative.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

TRAIN, VALIDATION, DEV, UNLABELLED = "train", "validation", "dev", "unlabelled"


@dataclass(frozen=True)
class Sizes:
    """How large a world is.

    Attributes:
        copies: relevant passages of each topic and key.
        unasked: passages of each topic with a key that no query asks for.
        train, validation, dev, unlabelled: queries of each topic and key.
    """

    topics: int = 4
    keys: int = 3
    topic_words: int = 8
    filler_words: int = 20
    copies: int = 2
    unasked: int = 4
    train: int = 2
    validation: int = 1
    dev: int = 1
    unlabelled: int = 1


@dataclass(frozen=True)
class GeneratedWorld:
    """What was written, and the truth about it.

    Attributes:
        folder: a BEIR collection, with `unlabelled.jsonl` beside it.
        meanings: passage or query id -> (topic, key).
        labelled: query id -> the passages that the judgements name; none for unlabelled queries.
        splits: query id -> its split.
    """

    folder: Path
    meanings: dict[str, tuple[int, int]]
    labelled: dict[str, list[str]]
    splits: dict[str, str]

    def is_relevant(self, query_id: str, passage_id: str) -> bool:
        return self.meanings[query_id] == self.meanings[passage_id]

    def is_planted(self, query_id: str, passage_id: str) -> bool:
        """Relevant and not labelled."""
        relevant = self.is_relevant(query_id, passage_id)
        return relevant and passage_id not in self.labelled.get(query_id, [])

    def source(self) -> dict[str, object]:
        """The parameters with which `ingest` reads it."""
        source = {"format": "beir", "path": str(self.folder)}
        judgements = {split: f"qrels/{split}.tsv" for split in (TRAIN, VALIDATION, DEV)}
        return {**source, "qrels": judgements, "unlabelled_queries": "unlabelled.jsonl"}


def generate(folder: Path, sizes: Sizes, seed: int = 7) -> GeneratedWorld:
    """Write a world below `folder`."""
    draw = np.random.default_rng(seed)
    words = _words(sizes.topics * sizes.topic_words + sizes.keys + 1 + sizes.filler_words, draw)
    topics = [[next(words) for _ in range(sizes.topic_words)] for _ in range(sizes.topics)]
    keys = [next(words) for _ in range(sizes.keys + 1)]
    fillers = [next(words) for _ in range(sizes.filler_words)]

    def text(topic: int, key: int, topical: int, filling: int) -> str:
        chosen = [keys[key], *draw.choice(topics[topic], topical, replace=False)]
        chosen += list(draw.choice(fillers, filling, replace=False))
        return " ".join(draw.permutation(chosen))

    pairs = list(product(range(sizes.topics), range(sizes.keys)))
    meanings: dict[str, tuple[int, int]] = {}
    passages = []
    meant = [pair for pair in pairs for _ in range(sizes.copies)]
    meant += [(topic, sizes.keys) for topic in range(sizes.topics) for _ in range(sizes.unasked)]
    for number, at in enumerate(draw.permutation(len(meant))):
        topic, key = meant[at]
        meanings[f"p{number}"] = (topic, key)
        # Titles say nothing; some are missing, as in real collections.
        title = "" if number % 4 == 0 else f"{fillers[number % len(fillers)]}"
        body = text(topic, key, int(draw.integers(4, sizes.topic_words)), int(draw.integers(1, 3)))
        passages.append({"_id": f"p{number}", "title": title, "text": body})
    of_pair = {pair: [p for p, meaning in meanings.items() if meaning == pair] for pair in pairs}
    labelled, splits, queries = {}, {}, []
    for split in (TRAIN, VALIDATION, DEV, UNLABELLED):
        for pair, turn in product(pairs, range(getattr(sizes, split))):
            name = f"{split[0]}{len(queries)}"
            meanings[name], splits[name] = pair, split
            queries.append({"_id": name, "text": text(*pair, 3, 0)})
            if split != UNLABELLED:
                unlucky = of_pair[pair][turn % sizes.copies]
                labelled[name] = [p for p in of_pair[pair] if p != unlucky]
    (folder / "qrels").mkdir(parents=True)
    _write(folder / "corpus.jsonl", passages)
    _write(folder / "queries.jsonl", (q for q in queries if splits[q["_id"]] != UNLABELLED))
    _write(folder / "unlabelled.jsonl", (q for q in queries if splits[q["_id"]] == UNLABELLED))
    for split in (TRAIN, VALIDATION, DEV):
        named = [(q, p) for q, own in labelled.items() if splits[q] == split for p in own]
        rows = [f"{q}\t{p}\t1\n" for q, p in named]
        header = "query-id\tcorpus-id\tscore\n"
        (folder / f"qrels/{split}.tsv").write_text(header + "".join(rows))
    return GeneratedWorld(folder, meanings, labelled, splits)


def _words(count: int, draw: np.random.Generator) -> Iterator[str]:
    """Made-up words of one syllable, so that sentencepiece keeps each as one piece."""
    syllables = ["".join(letters) for letters in product("bdfgklmnprstvz", "aeiou", "lmnrst")]
    return iter(draw.permutation(syllables)[:count].tolist())


def _write(path: Path, rows: Iterable[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
