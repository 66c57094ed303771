"""What a stage that chooses negatives once tells of them: scores, ranks, and how near the top."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.methods.filters import KnownPairs, window
from pipeline.methods.lists import Floats, Mask, PassageLists
from pipeline.stages.embedding_scores import Scoring
from pipeline.stages.pool_block import Block
from pipeline.stages.score_report import (
    compared,
    comparisons,
    in_bands,
    points,
    quantiles,
    shares_by_band,
)

if TYPE_CHECKING:
    from pipeline.artifacts.reader import Artifact
    from pipeline.stages.tables import Candidates

# A thousand candidates each, and the copies that are made of them, stay far below a gigabyte.
_QUERIES_AT_ONCE = 4096


def measure(
    found: Candidates, known: KnownPairs, draws: Sequence[PassageLists], depth: int
) -> dict[str, Any]:
    """Of negatives that were chosen among candidates; nothing where there are none.

    Args:
        found: the candidates, with the retriever's scores.
        known: pairs that are never negatives; ranks are counted without them.
        draws: the negatives, in each draw a query at most once.
        depth: the last rank that they are from.

    Returns:
        `negative_score`: quantiles; `negatives_by_rank`: shares of bands; `overlap_with_top`: of a
        query's n negatives the share that stands among its first n candidates, mean over the
        queries that have more than n to choose from.
    """
    free = found.keep(window(found.lists, 1, depth) & ~known.among(found.lists))
    own = [KnownPairs.of((each.queries, each.passage_indices)).among(free.lists) for each in draws]
    chosen = sum(int(each.sum()) for each in own)
    if not chosen:
        return {}
    bands = [in_bands(free.lists.ranks[each]) for each in own]
    overlaps = np.concatenate([_overlap_with_top(free.lists, each) for each in own])
    return {
        **({"overlap_with_top": float(overlaps.mean())} if len(overlaps) else {}),
        "negatives_by_rank": shares_by_band(bands, chosen),
        "negative_score": quantiles([points(free.scores[each]) for each in own]),
    }


def against_positives(
    found: Candidates,
    known: KnownPairs,
    draws: Sequence[PassageLists],
    positives: PassageLists,
    embeddings: Artifact | None,
) -> dict[str, Any]:
    """Of the same negatives, how they score beside their query's positives.

    Args:
        found: the candidates.
        known: pairs that are never negatives; ranks are counted without them.
        draws: the negatives, all of them among the candidates.
        positives: of the queries.
        embeddings: whose retriever all scores are of; None tells nothing.

    Returns:
        As `score_report.comparisons`, over all pairs of a positive and a negative of one query.

    Raises:
        Mismatch: some of the queries were not encoded.
    """
    if embeddings is None:
        return {}
    chosen = [KnownPairs.of((each.queries, each.passage_indices)) for each in draws]
    measured = []
    for first in range(0, len(found.lists), _QUERIES_AT_ONCE):
        rows = np.arange(first, min(first + _QUERIES_AT_ONCE, len(found.lists)))
        lists, entries = found.lists.take(rows), found.lists.entries_of(rows)
        part = replace(found, lists=lists, scores=found.scores[entries], ranker_scores=None)
        queries = lists.query_indices
        scoring = Scoring.of(embeddings, queries)
        block = Block.of(part, None, positives.of(queries), scoring, mean=False)
        block = block.keep(~known.among(block.lists))
        own = [each.among(block.lists) for each in chosen]
        against = np.repeat(block.positive_scores, block.lists.lengths)
        measured.append(
            compared(
                block.positive_scores,
                block.positive_ranks,
                np.concatenate([block.scores[each] for each in own]),
                np.concatenate([against[each] for each in own]),
            )
        )
    return comparisons(measured)


def _overlap_with_top(free: PassageLists, own: Mask) -> Floats:
    """Of each query that has more candidates than negatives, the share of these at the top."""
    each = free.count(own)
    at_top = free.count(own & (free.ranks <= each[free.rows]))
    choosing = (each > 0) & (each < free.lengths)
    shares: Floats = at_top[choosing] / each[choosing]
    return shares
