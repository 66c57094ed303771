"""Validation queries, taken from the training queries of a source that has none."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from pipeline.sources.id_index import Keys
from pipeline.sources.known_texts import KnownTexts
from pipeline.sources.pairs import Ints, Pairs, group_by_query
from pipeline.sources.query_table import TRAIN, VALIDATION, QueryTable
from pipeline.sources.split import carve_validation, group_by_shared


def carve(
    queries: QueryTable,
    positives: Pairs,
    passages: KnownTexts,
    titles: Keys,
    *,
    share: float,
    seed: int,
) -> int:
    """Move about `share` of the training queries to validation; how many were moved.

    Args:
        queries: all queries; their splits change.
        positives: their relevant passages.
        passages: the passages, with a hash of each text.
        titles: hash of each passage's title, 0 where it has none.
        share: part of the training queries; 0 moves none.
        seed: of the draw.
    """
    if (queries.kept & (queries.split == VALIDATION)).any() or not share:
        return 0
    training = np.flatnonzero(queries.kept & (queries.split == TRAIN))
    own = list(group_by_query(positives, len(queries.split)))
    keys = [
        [("text", int(queries.keys[row])), *_passage_keys(own[row], passages, titles)]
        for row in training
    ]
    chosen = carve_validation(group_by_shared(len(training), keys), share, seed)
    queries.split[training[chosen]] = VALIDATION
    return int(chosen.sum())


def _passage_keys(rows: Ints, passages: KnownTexts, titles: Keys) -> list[Hashable]:
    """What of relevant passages must not lie on both sides.

    A passage and its title, and its text, as a collection may hold a passage twice under two ids.
    Other texts that share the 32 bits of its hash by chance only make a group larger.
    """
    keys: list[Hashable] = []
    for row in rows.tolist():
        keys += [("passage", row), ("copy", passages.text_key(row))]
        if titles[row]:
            keys.append(("title", int(titles[row])))
    return keys
