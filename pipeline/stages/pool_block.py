"""One block of queries on its way to becoming negative pools: scores, filters, weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.methods import filters, samplers, weights
from pipeline.methods.draws import ranks_of_positives
from pipeline.methods.lists import Floats, Mask, PassageLists
from pipeline.methods.pools import Pools
from pipeline.stages.embedding_scores import Indices, Scoring

if TYPE_CHECKING:
    from pipeline.stages.pool_params import FilterParams, SamplerParams
    from pipeline.stages.tables import Candidates


@dataclass(frozen=True, eq=False)
class Block:
    """Candidates of (query, positive) pairs; P pairs, N candidates.

    Attributes:
        lists: the candidates of each pair.
        scores: the retriever's, [N].
        probabilities: the ranker's P(1), [N]; None where none is asked.
        positives: passage indices, [P].
        positive_scores: of the same retriever, [P]; NaN where they are not known.
        compared: the score that candidates are compared with, [P].
    """

    lists: PassageLists
    scores: Floats
    probabilities: Floats | None
    positives: Indices
    positive_scores: Floats
    compared: Floats

    @classmethod
    def of(
        cls,
        found: Candidates,
        probabilities: Floats | None,
        positives: PassageLists,
        scoring: Scoring | None,
        mean: bool,
    ) -> Block:
        """A row for each positive of each query of `found`; positives are row by row the same.

        With a `scoring` all scores come from it, so that those of positives and of candidates can
        be compared.
        """
        rows = positives.rows
        entries = found.lists.entries_of(rows)
        scores = found.scores
        own: Floats = np.full(len(rows), np.nan, np.float32)
        if scoring is not None:
            scores = scoring.of_queries(found.lists.queries, found.lists.passage_indices)
            own = scoring.of_queries(positives.queries, positives.passage_indices)
        compared = own
        if mean:
            sums = np.bincount(rows, own, len(positives)) / np.maximum(positives.lengths, 1)
            compared = sums[rows]
        return cls(
            found.lists.take(rows),
            scores[entries],
            None if probabilities is None else probabilities[entries],
            positives.passage_indices,
            own,
            compared,
        )

    def __len__(self) -> int:
        return len(self.positives)

    def keep(self, mask: Mask) -> Block:
        """The same pairs with only the candidates set in `mask` [N]."""
        asked = None if self.probabilities is None else self.probabilities[mask]
        return replace(
            self, lists=self.lists.keep(mask), scores=self.scores[mask], probabilities=asked
        )

    @property
    def positive_ranks(self) -> npt.NDArray[np.int32]:
        """1-based place of each positive among its query's candidates; 0 where not known: [P]."""
        return ranks_of_positives(self.lists, self.scores, self.positive_scores)

    def masks(
        self, params: FilterParams, texts: Callable[[PassageLists], Mapping[str, Mask]]
    ) -> dict[str, Mask]:
        """What each of the chosen filters lets pass, in their order.

        Args:
            params: the choice.
            texts: the filters that read texts, for these lists.
        """
        compared = np.repeat(self.compared, self.lists.lengths)
        found: dict[str, Mask] = {}
        if params.first_rank > 1:
            found["first_rank"] = filters.window(self.lists, params.first_rank, None)
        if params.below is not None:
            found["below"] = filters.below(self.scores, params.below)
        if params.margin is not None:
            found["margin"] = filters.below_positive(self.scores, compared, params.margin)
        if params.share_of_positive is not None:
            found["share_of_positive"] = filters.below_share_of_positive(
                self.scores, compared, params.share_of_positive
            )
        if params.angle is not None:
            found["angle"] = filters.within_angle(self.scores, compared, params.angle)
        if params.ranker_below is not None and self.probabilities is not None:
            found["ranker_below"] = filters.below(self.probabilities, params.ranker_below)
        return {**found, **texts(self.lists)}

    def pools(self, sampler: SamplerParams, n: int, scoring: Scoring | None) -> tuple[Pools, Mask]:
        """The candidates with their log-weights; a deterministic sampler leaves its n alone.

        And which candidates [N] have weight 0, so that they must not be drawn.
        """
        log_weights = self._log_weights(sampler, scoring)
        every = np.isfinite(log_weights)
        impossible = ~every
        if sampler.name == "top":
            every = samplers.top(self.lists, every, n)
        elif sampler.name == "nearest":
            distance = np.abs(self._differences(self.scores, sampler) - sampler.b)
            every = samplers.smallest(self.lists, every, n, distance)
        pools = Pools(self.lists, self.positives.astype(np.int32), log_weights)
        return pools.keep(every), impossible

    def _log_weights(self, sampler: SamplerParams, scoring: Scoring | None) -> Floats:
        name = sampler.name
        if name in ("uniform", "top", "nearest"):
            return np.zeros(len(self.scores))
        if name == "softmax":
            return weights.softmax(self.scores, sampler.temperature)
        difference = self._differences(self.scores, sampler)
        if name == "simans":
            return weights.gaussian(difference, sampler.density, sampler.b)
        if name == "simans_laplace":
            return weights.laplace(difference, sampler.density, sampler.b)
        if scoring is None:
            raise ValueError(f"sampler '{name}' compares passages: it needs their embeddings")
        repeated = np.repeat(self.positives, self.lists.lengths)
        similarities = scoring.of_passages(repeated, self.lists.passage_indices)
        if name == "doc_sim":
            return weights.gaussian(
                self._differences(similarities, sampler), sampler.density, sampler.b
            )
        of_query = weights.gaussian(difference, 0.25, 0.0)
        of_positive = weights.inside_triangle(self.scores, similarities)
        return {
            "trisampler_query": of_query,
            "trisampler_positive": of_positive,
            "trisampler": of_query + of_positive,
        }[name]

    def _differences(self, scores: Floats, sampler: SamplerParams) -> Floats:
        return weights.differences(
            self.lists, scores, self.compared, standardised=sampler.standardised
        )
