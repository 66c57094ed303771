"""What a search tells of positives that it leaves out: scores, and the ranks they would have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.methods.draws import ranks_of_positives
from pipeline.methods.lists import Floats, PassageLists
from pipeline.search.pair_scores import pair_scores
from pipeline.stages.score_report import in_bands, points, quantiles, shares_by_band

if TYPE_CHECKING:
    from pipeline.stages.tables import Candidates


class MinedPositives:
    """Scores positives while the corpus passes by in blocks.

    Args:
        queries: vectors [Q, d].
        positives: of each of these queries, row by row.
    """

    def __init__(self, queries: npt.NDArray[np.floating], positives: PassageLists) -> None:
        self._queries, self._positives = queries, positives
        self._scores: Floats = np.full(len(positives.passage_indices), np.nan, np.float32)

    def add(self, first_passage_index: int, block: npt.NDArray[np.floating]) -> None:
        """Score the positives among consecutive passages, vectors [n, d]."""
        places = self._positives.passage_indices - first_passage_index
        inside = np.flatnonzero((places >= 0) & (places < len(block)))
        rows = self._positives.rows[inside]
        self._scores[inside] = pair_scores(self._queries, rows, block, places[inside])

    def measure(self, found: Candidates, depth: int) -> dict[str, Any]:
        """Plain JSON for `merged`.

        Args:
            found: what the search found for the queries, row by row, without any positive.
            depth: candidates that were asked for.
        """
        lists, rows = found.lists, self._positives.rows
        ranks = ranks_of_positives(
            lists.take(rows), found.scores[lists.entries_of(rows)], self._scores
        )
        return {
            "positives": len(rows),
            "bands": in_bands(ranks[ranks <= depth]),
            "scores": points(self._scores),
        }


def merged(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The metrics of all shards; nothing without positives.

    Returns:
        `positive_score`: quantiles; `positives_by_rank`: shares of all positives, which sum to less
        than 1 where some lie deeper than was searched.
    """
    total = sum(each["positives"] for each in measured)
    if not total:
        return {}
    return {
        "positives_by_rank": shares_by_band([each["bands"] for each in measured], total),
        "positive_score": quantiles([each["scores"] for each in measured]),
    }
