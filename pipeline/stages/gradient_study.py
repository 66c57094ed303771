"""What the stage `gradients` looks at: queries, their negatives by rank, and what each weighs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.dag.contract import Inputs, Mismatch
from pipeline.methods import samplers
from pipeline.methods.filters import KnownPairs
from pipeline.methods.gradient_statistics import coefficients
from pipeline.methods.lists import Floats, PassageLists
from pipeline.models.dual_encoder import Retriever
from pipeline.search.pair_scores import pair_scores
from pipeline.stages import tables

if TYPE_CHECKING:
    from pipeline.stages.gradients import GradientsParams

# Why a query is dropped.
TOO_FEW = "too few negatives"

_SHOWN = (0.05, 0.25, 0.75, 0.95)


@dataclass(frozen=True, eq=False)
class GradientStudy:
    """Q queries with E entries each: first the random passages, then the negatives in rank order.

    Attributes:
        queries: query indices [Q].
        vectors: of the queries, as they are stored, [Q, width].
        positives: passage indices [Q].
        positive_ranks: how many negatives that were found score above the positive, and one: [Q].
        beyond: how many positives score below all that were found.
        temperature: the retriever's.
        ranks: of the entries [E]; 0 for random passages.
        passages: passage indices [Q, E].
        factors: what multiplies the gradient of each entry's score, float64 [Q, E].
        dropped: queries of the split that are not looked at, by reason.
    """

    queries: npt.NDArray[np.integer]
    vectors: npt.NDArray[np.floating]
    positives: npt.NDArray[np.integer]
    positive_ranks: npt.NDArray[np.int64]
    beyond: int
    temperature: float
    ranks: npt.NDArray[np.integer]
    passages: npt.NDArray[np.integer]
    factors: Floats
    dropped: Mapping[str, int]

    @classmethod
    def read(cls, inputs: Inputs, params: GradientsParams, seed: int) -> GradientStudy:
        """From the stage's inputs; the same wherever it is read.

        Raises:
            Mismatch: hardly any query has enough negatives, or the corpus too few passages.
        """
        known = tables.never_negative(inputs["dataset"], inputs["tokens"])
        chosen = _Chosen.read(inputs, params, known, seed)
        negatives, queries = chosen.negatives, chosen.negatives.query_indices
        passages = tables.open_passage_vectors(inputs["embeddings"])
        vectors = tables.query_vectors(inputs["embeddings"], queries)

        def scores(lists: PassageLists) -> npt.NDArray[np.float32]:
            return pair_scores(vectors, lists.rows, passages, lists.passage_indices)

        # By this retriever's scores, computed alike for candidates and positives.
        found = scores(negatives)
        order = negatives.ordered_by(found)
        own = scores(chosen.positives)
        above = negatives.count(found > np.repeat(own, negatives.lengths))
        first = np.flatnonzero(negatives.ranks <= params.depth)
        ranked = negatives.passage_indices[order][first].reshape(len(queries), params.depth)
        random = _random(queries, ranked, len(passages), known, params.random_negatives, seed)
        temperature = Retriever.read(inputs["retriever"].folder("model")).config.temperature
        of_ranked, of_random = coefficients(
            own,
            found[order][first].reshape(ranked.shape),
            scores(random).reshape(len(queries), -1),
            temperature,
        )
        return cls(
            queries,
            vectors,
            chosen.positives.passage_indices,
            1 + above,
            int((above == negatives.lengths).sum()),
            temperature,
            np.repeat(np.arange(params.depth + 1), [params.random_negatives, *[1] * params.depth]),
            np.hstack([random.passage_indices.reshape(len(queries), -1), ranked]),
            np.hstack([of_random, of_ranked]),
            chosen.dropped,
        )

    def columns(self, ranks: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """The entries that stand at some ranks."""
        return np.flatnonzero(np.isin(self.ranks, ranks))

    def document(self, parameters: int) -> dict[str, Any]:
        """What the artifact says beside its table.

        Args:
            parameters: of the layer that gradients are taken for.
        """
        ranks = self.positive_ranks
        quantiles = np.quantile(ranks, _SHOWN).tolist()
        return {
            "depth": int(self.ranks.max()),
            "queries": len(self.queries),
            "temperature": self.temperature,
            "random_negatives": int((self.ranks == 0).sum()),
            "parameters": parameters,
            "positive_rank": {
                "mean": float(ranks.mean()),
                "median": float(np.median(ranks)),
                "quantiles": {f"{p:.0%}": q for p, q in zip(_SHOWN, quantiles, strict=True)},
                "beyond_candidates": self.beyond,
            },
        }


@dataclass(frozen=True, eq=False)
class _Chosen:
    """Queries with the candidates that are negatives, and one positive of each, row by row."""

    negatives: PassageLists
    positives: PassageLists
    dropped: Mapping[str, int]

    @classmethod
    def read(cls, inputs: Inputs, params: GradientsParams, known: KnownPairs, seed: int) -> _Chosen:
        queries = tables.queries_of(inputs["dataset"], [params.split])
        labels = tables.positives_of(inputs["dataset"]).lists().of(queries)
        labels = labels.take(labels.lengths > 0)
        found = tables.Candidates.read(inputs["candidates"]).lists.of(labels.query_indices)
        found = found.keep(~known.among(found))
        enough = np.flatnonzero(found.lengths >= params.depth)
        if len(enough) < 2:
            raise Mismatch(
                f"{len(enough)} of {len(queries)} queries of split '{params.split}' have a "
                f"positive and {params.depth} candidates beside their known positives: search "
                "deeper, or give `depth` less"
            )
        drawn = np.argsort(samplers.random_units(seed, found.query_indices[enough]))
        rows = np.sort(enough[drawn[: params.max_queries]])
        dropped = {
            "no positive": len(queries) - len(labels),
            TOO_FEW: len(labels) - len(enough),
            "not drawn": len(enough) - len(rows),
        }
        labels = labels.take(rows)
        every = np.ones(len(labels.passage_indices), dtype=np.bool_)
        one = (
            samplers.top(labels, every, 1)
            if params.positive == "first"
            else samplers.uniform(labels, every, 1, seed)
        )
        return cls(
            found.take(rows),
            labels.keep(one),
            {reason: count for reason, count in dropped.items() if count},
        )


def _random(
    queries: npt.NDArray[np.integer],
    ranked: npt.NDArray[np.integer],
    passages: int,
    known: KnownPairs,
    n: int,
    seed: int,
) -> PassageLists:
    """Draw n passages for each query from what is neither known nor among the ranked ones."""
    own = KnownPairs.of((np.repeat(queries, ranked.shape[1]), ranked.ravel()))
    random = samplers.corpus(queries, n, passages, known | own, seed)
    if (random.lengths < n).any():
        raise Mismatch(
            f"beside the {ranked.shape[1]} negatives of a query the corpus of {passages} passages "
            f"has no {n} others: give `depth` or `random_negatives` less"
        )
    return random
