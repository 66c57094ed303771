"""Scores of given pairs by the vectors of an Embeddings artifact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.methods.lists import Floats
from pipeline.search.pair_scores import pair_scores

if TYPE_CHECKING:
    from pipeline.artifacts.reader import Artifact

Indices = npt.NDArray[np.integer]
# (left, right) -> one score a pair; left are query or passage indices, right passage indices.
Scorer = Callable[[Indices, Indices], Floats]


@dataclass(frozen=True, eq=False)
class Scoring:
    """One retriever, by which scores can be compared.

    Attributes:
        of_queries: scores of queries with passages.
        of_passages: scores of passages with passages.
    """

    of_queries: Scorer
    of_passages: Scorer

    @classmethod
    def of(cls, embeddings: Artifact, queries: Indices) -> Scoring:
        """By the vectors of an Embeddings artifact, for the given queries.

        Raises:
            Mismatch: some of the queries were not encoded.
        """
        from pipeline.stages import tables

        passages = tables.open_passage_vectors(embeddings)
        order = np.sort(queries)
        vectors = tables.query_vectors(embeddings, order)
        return cls(
            lambda left, right: pair_scores(vectors, np.searchsorted(order, left), passages, right),
            lambda left, right: pair_scores(passages, left, passages, right),
        )
