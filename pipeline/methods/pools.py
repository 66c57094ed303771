"""Pools: what the negatives of a query are drawn from, anew in every epoch.

A pool belongs to one query and one of its positives, since weights compare a candidate with the
positive. Shapes: P pools, N candidates in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pipeline.methods import samplers
from pipeline.methods.filters import KnownPairs
from pipeline.methods.lists import Floats, Integers, Mask, PassageLists


@dataclass(frozen=True, eq=False)
class Pools:
    """Weighted candidates of (query, positive) pairs.

    Attributes:
        lists: the candidates of each pool in rank order; a query with several positives has
            several rows.
        positives: passage indices, int [P].
        log_weights: float [N], finite; what they are relative to does not matter.
    """

    lists: PassageLists
    positives: npt.NDArray[np.int32]
    log_weights: Floats

    def __len__(self) -> int:
        return len(self.positives)

    def take(self, rows: Integers | Mask) -> Pools:
        """The given pools (numbers, or a mask [P])."""
        chosen = np.arange(len(self))[rows]
        return Pools(
            self.lists.take(chosen),
            self.positives[chosen],
            self.log_weights[self.lists.entries_of(chosen)],
        )

    def keep(self, mask: Mask) -> Pools:
        """The same pools with only the candidates set in `mask` [N]."""
        return Pools(self.lists.keep(mask), self.positives, self.log_weights[mask])

    def draw(self, n: int, seed: int, epoch: int) -> Mask:
        """Draw n candidates of each pool without replacement, by weight: bool [N].

        A function of (seed, epoch, query, positive, passage) alone: whichever pools are drawn from
        together, and in whatever order, each gets the same. A pool of fewer gives all.
        """
        every = np.ones(len(self.log_weights), dtype=np.bool_)
        return samplers.weighted(
            self.lists,
            every,
            n,
            samplers.epoch_seed(seed, epoch),
            self.log_weights,
            streams=self.positives,
        )

    def probabilities(self) -> Floats:
        """The probability of each candidate where one of its pool is drawn, p_i: [N]."""
        rows, size = self.lists.rows, len(self)
        highest = np.full(size, -np.inf)
        np.maximum.at(highest, rows, self.log_weights)
        # Against the highest of its pool, a weight is at most 1 and one of them is 1.
        weights = np.exp(self.log_weights - highest[rows])
        found: Floats = weights / np.bincount(rows, weights, size)[rows]
        return found

    def effective_sizes(self) -> Floats:
        """1 / sum p_i^2 of each pool, how many candidates share the weight: [P]; 0 where empty."""
        size = len(self)
        squares = np.bincount(self.lists.rows, self.probabilities() ** 2, size)
        return np.divide(1, squares, out=np.zeros(size), where=squares > 0)

    def overlap_with_top(self, candidates: PassageLists, n: int, seed: int) -> Floats:
        """The share of one draw that stands among the first n candidates of each pool: [P].

        Args:
            candidates: in rank order, row by row what the pools were made from.
            n: how many are drawn.
            seed: of the draw.
        """
        drawn = self.lists.keep(self.draw(n, seed, epoch=0))
        first = candidates.keep(candidates.ranks <= n)
        top, own = (lists.rows << 32 | lists.passage_indices for lists in (first, drawn))
        shared = drawn.count(np.isin(own, top))
        total = drawn.lengths
        return np.divide(shared, total, out=np.zeros(len(self)), where=total > 0)

    def overlap_with(self, other: Pools) -> float:
        """The share of these candidates that the same queries have in `other`; 0 without any."""
        own, theirs = (
            np.unique(pools.lists.queries.astype(np.int64) << 32 | pools.lists.passage_indices)
            for pools in (self, other)
        )
        return float(np.isin(own, theirs).mean()) if len(own) else 0.0


@dataclass(frozen=True, eq=False)
class Completed:
    """Pools that are large enough, and what was done about the others.

    Attributes:
        pools: the ones that remain.
        kept: which of the given pools they are, bool [given].
        dropped: pools without enough candidates, by reason. len(kept) = len(pools) + sum of these.
        counts: `pools_short`, of fewer candidates than wanted; `negatives_filled`.
    """

    pools: Pools
    kept: Mask
    dropped: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


def complete(
    pools: Pools, n: int, starved: str, passages: int, known: KnownPairs, seed: int
) -> Completed:
    """Decide about pools with fewer than n candidates.

    Args:
        pools: what filters have left.
        n: negatives that will be drawn.
        starved: `drop` leaves such pools out; `fill` adds random passages of the corpus until there
            are n; `fewer` keeps them as they are, and leaves out those that are empty.
        passages: size of the corpus.
        known: pairs that are never negatives.
        seed: of the fill.

    Raises:
        ValueError: `starved` is none of the three.
    """
    lengths = pools.lists.lengths
    short = lengths < n
    counts = {"pools_short": int(short.sum()), "negatives_filled": 0}
    if starved == "fill":
        filled = _filled(pools, n, passages, known, seed)
        counts["negatives_filled"] = len(filled.log_weights) - len(pools.log_weights)
        pools, lengths, short = filled, filled.lists.lengths, filled.lists.lengths < n
    elif starved not in ("drop", "fewer"):
        raise ValueError(f"starved pools are dropped, filled or kept with fewer, not '{starved}'")
    kept = lengths > 0 if starved == "fewer" else ~short
    reason = "no candidate left" if starved == "fewer" else f"fewer than {n} candidates left"
    dropped = {reason: int((~kept).sum())} if not kept.all() else {}
    return Completed(pools.take(kept), kept, dropped, counts)


def _filled(pools: Pools, n: int, passages: int, known: KnownPairs, seed: int) -> Pools:
    """Pools with random passages at their ends, as many as they lack of n."""
    short = np.flatnonzero(pools.lists.lengths < n)
    lacking = pools.take(short)
    queries = np.unique(lacking.lists.query_indices)
    own = (lacking.lists.queries, lacking.lists.passage_indices)
    random = samplers.corpus(queries, n, passages, known | KnownPairs.of(own), seed)
    random = random.of(lacking.lists.query_indices)
    every = np.ones(len(random.passage_indices), dtype=np.bool_)
    random = random.keep(samplers.top(random, every, n - lacking.lists.lengths))
    rows = np.concatenate([pools.lists.rows, short[random.rows]])
    places = np.concatenate([pools.lists.ranks, pools.lists.lengths[short][random.rows] + 1])
    order = np.lexsort((places, rows))
    lengths = pools.lists.lengths.copy()
    lengths[short] += random.lengths
    return Pools(
        PassageLists.from_lengths(
            pools.lists.query_indices,
            lengths,
            np.concatenate([pools.lists.passage_indices, random.passage_indices])[order],
        ),
        pools.positives,
        # All n of them are drawn, whatever their weights.
        np.concatenate([pools.log_weights, np.zeros(len(random.passage_indices))])[order],
    )
