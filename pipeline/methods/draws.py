"""What samplers draw: how often each candidate, at which ranks, and how many false negatives.

Shapes: P pools, N candidates in all of them, Q queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pipeline.methods.filters import KnownPairs
from pipeline.methods.lists import Floats, Integers, PassageLists
from pipeline.methods.pools import Pools
from pipeline.methods.samplers import random_units
from pipeline.methods.statistics import bootstrap_interval


def times_drawn(pools: Pools, n: int, seed: int, epochs: int) -> npt.NDArray[np.int64]:
    """How often each candidate is drawn in the given number of epochs: [N].

    n of each pool in every epoch, by the very draws that training makes with this seed. Divided by
    `epochs` it estimates the probability of being among n that are drawn without replacement.
    """
    times = np.zeros(len(pools.log_weights), dtype=np.int64)
    for epoch in range(epochs):
        times += pools.draw(n, seed, epoch)
    return times


def ranks_by_score(lists: PassageLists, scores: Floats) -> npt.NDArray[np.int64]:
    """The 1-based place of each entry in its list by score: [N].

    Equal scores are in list order, and so are entries without a score (NaN), behind all others.
    """
    lists.entries(scores, "scores")
    order = np.lexsort((-np.where(np.isnan(scores), -np.inf, scores), lists.rows))
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = lists.ranks
    return ranks


def ranks_of_positives(
    lists: PassageLists, scores: Floats, positive_scores: Floats
) -> npt.NDArray[np.int32]:
    """How many entries of each list score above its positive, and one: [P]; 0 where not known.

    Args:
        lists: P lists of N entries.
        scores: [N].
        positive_scores: [P], NaN where they are not known.
    """
    above = lists.count(scores > np.repeat(positive_scores, lists.lengths))
    return np.where(np.isnan(positive_scores), 0, 1 + above).astype(np.int32)


@dataclass(frozen=True, eq=False)
class Drawn:
    """What one system drew for the queries that are compared.

    Attributes:
        queries: int [Q], ascending; every pool is of one of them, each has a pool.
        pools: what was drawn from.
        times: how often each candidate was drawn, [N].
        false: the pairs that are false negatives.
    """

    queries: Integers
    pools: Pools
    times: npt.NDArray[np.int64]
    false: KnownPairs

    @cached_property
    def drawn(self) -> npt.NDArray[np.int64]:
        """How many passages each query was given, [Q]."""
        return self._by_query(self.times)

    @cached_property
    def false_negatives(self) -> npt.NDArray[np.int64]:
        """How many of them are false negatives, [Q]."""
        return self._by_query(self.times * self.false.among(self.pools.lists))

    @property
    def in_reach(self) -> npt.NDArray[np.bool_]:
        """Whether a pool of the query holds a false negative, [Q]."""
        return self._by_query(self.false.among(self.pools.lists)) > 0

    def share(self) -> tuple[float, float, float]:
        """The share of false negatives among the drawn, and its 95 % interval over queries.

        The mean of the queries' own shares, so that each query counts the same.
        """
        shares = self.false_negatives / self.drawn
        return float(shares.mean()), *bootstrap_interval(shares)

    def mean_rank(self, ranks: Integers) -> float:
        """The mean over all that was drawn of the candidates' ranks [N]."""
        return float(np.average(ranks, weights=self.times))

    def _by_query(self, values: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
        places = np.searchsorted(self.queries, self.pools.lists.queries)
        return np.bincount(places, values, minlength=len(self.queries)).astype(np.int64)


def sampled_pairs(pairs: KnownPairs, count: int, seed: int) -> KnownPairs:
    """Draw some queries, each with the first of its positives; all where there are no more."""
    positives = pairs.lists()
    drawn = np.argsort(random_units(seed, positives.query_indices), kind="stable")[:count]
    firsts = positives.passage_indices[positives.offsets[drawn]]
    return KnownPairs.of((positives.query_indices[drawn], firsts))
