"""What a stage that chooses negatives once tells of them: scores, ranks, and how near the top."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.methods.filters import KnownPairs, window
from pipeline.methods.lists import PassageLists
from pipeline.stages.pool_report import TOO_MUCH_OVERLAP
from pipeline.stages.score_report import in_bands, points, quantiles, shares_by_band

if TYPE_CHECKING:
    from pipeline.stages.tables import Candidates


def measure(
    found: Candidates, known: KnownPairs, chosen: PassageLists, depth: int
) -> dict[str, Any]:
    """Of negatives that were chosen among candidates; nothing where there are none.

    Args:
        found: the candidates, with the retriever's scores.
        known: pairs that are never negatives; ranks are counted without them.
        chosen: the negatives, each query at most once.
        depth: the last rank that they are from.

    Returns:
        `negative_score`: quantiles; `negatives_by_rank`: shares of bands; `overlap_with_top`: of a
        query's n negatives the share that stands among its first n candidates, mean over the
        queries that have more than n to choose from.
    """
    free = found.keep(window(found.lists, 1, depth) & ~known.among(found.lists))
    own = KnownPairs.of((chosen.queries, chosen.passage_indices)).among(free.lists)
    if not own.any():
        return {}
    told = {
        "negatives_by_rank": shares_by_band([in_bands(free.lists.ranks[own])], int(own.sum())),
        "negative_score": quantiles([points(free.scores[own])]),
    }
    each = free.lists.count(own)
    at_top = free.lists.count(own & (free.lists.ranks <= each[free.lists.rows]))
    choosing = (each > 0) & (each < free.lists.lengths)
    if not choosing.any():
        return told
    return {"overlap_with_top": float(np.mean(at_top[choosing] / each[choosing])), **told}


def cautions(metrics: Mapping[str, Any], advice: str) -> list[str]:
    """A warning where the choice is almost that of the top candidates, with what may be done."""
    overlap = metrics.get("overlap_with_top", 0.0)
    if overlap <= TOO_MUCH_OVERLAP:
        return []
    return [f"{overlap:.0%} of the negatives are the top candidates anyway: {advice}"]
