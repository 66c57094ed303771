"""Lists of one positive and many negatives, undenoised and denoised (RocketQAv2, section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.methods import filters, samplers
from pipeline.methods.filters import KnownPairs
from pipeline.methods.lists import Floats, Mask, PassageLists
from pipeline.methods.negatives import refuse_unscored


@dataclass(frozen=True, eq=False)
class WholeLists:
    """Lists that all have the wanted length, and what became of the other queries.

    Attributes:
        positives: one passage per list.
        negatives: equally many for each, in rank order, for the same queries.
        dropped: queries without a list, by reason. Rows in = len(negatives) + sum of these.
        counts: `positives_by_the_ranker`, lists whose positive is not a labelled one.
    """

    positives: PassageLists
    negatives: PassageLists
    dropped: Mapping[str, int]
    counts: Mapping[str, int]


def undenoised_lists(
    candidates: PassageLists,
    positives: PassageLists,
    known: KnownPairs,
    *,
    num_negatives: int,
    depth: int,
    seed: int,
) -> WholeLists:
    """A labelled positive and uniform draws from the first `depth` candidates, unasked.

    Args:
        candidates: the retriever's candidates in rank order.
        positives: labelled passages of each query; one is drawn.
        known: pairs that are never negatives.
        num_negatives: m - 1. A query with fewer to be had gets no list.
        depth: n, the ranks that are drawn from.
        seed: of the draws.
    """
    allowed = filters.window(candidates, 1, depth) & ~known.among(candidates)
    options = positives.of(candidates.query_indices)
    return _whole(candidates, allowed, options, num_negatives, seed, "negatives")


def denoised_lists(
    candidates: PassageLists,
    probabilities: Floats,
    positives: PassageLists,
    known: KnownPairs,
    *,
    num_negatives: int,
    depth: int,
    negative_below: float = 0.1,
    positive_above: float = 0.9,
    seed: int,
) -> WholeLists:
    """As `undenoised_lists`, but with negatives that the ranker is sure of.

    A candidate that it is sure to be relevant may stand for the labelled positive: one is drawn of
    both together. A query without a label gets a list only by such a candidate.

    Args:
        candidates: the retriever's candidates in rank order.
        probabilities: float [N], the ranker's P(1).
        positives: labelled passages of each query.
        known: pairs that are never negatives, nor new positives.
        num_negatives: m - 1. A query with fewer to be had gets no list.
        depth: n, the ranks that are drawn from.
        negative_below: probability below which the ranker is sure of a negative.
        positive_above: probability above which it is sure of a positive.
        seed: of the draws.

    Raises:
        ValueError: a candidate within the depth has no probability.
    """
    inside = filters.window(candidates, 1, depth)
    refuse_unscored(candidates, probabilities, inside, depth)
    confident = inside & filters.above(probabilities, positive_above) & ~known.among(candidates)
    sure = inside & filters.below(probabilities, negative_below) & ~known.among(candidates)
    labelled = positives.of(candidates.query_indices)
    options = _joined(labelled, candidates.keep(confident))
    found = _whole(candidates, sure, options, num_negatives, seed, "sure negatives")
    own = KnownPairs.of((labelled.queries, labelled.passage_indices)).among(found.positives)
    return WholeLists(
        found.positives,
        found.negatives,
        found.dropped,
        {"positives_by_the_ranker": int((~own).sum())},
    )


def _whole(
    candidates: PassageLists,
    allowed: Mask,
    options: PassageLists,
    num_negatives: int,
    seed: int,
    what: str,
) -> WholeLists:
    taken = samplers.uniform(candidates, allowed, num_negatives, seed)
    enough = candidates.count(taken) == num_negatives
    labelled = options.lengths > 0
    every: npt.NDArray[np.bool_] = np.ones(len(options.passage_indices), dtype=np.bool_)
    # Another stream than the negatives', so that the draws are independent.
    one = options.keep(samplers.uniform(options, every, 1, seed + 1))
    reasons = {
        "no positive": int((~labelled).sum()),
        f"fewer than {num_negatives} {what}": int((labelled & ~enough).sum()),
    }
    kept = labelled & enough
    return WholeLists(
        one.take(kept),
        candidates.keep(taken).take(kept),
        {reason: count for reason, count in reasons.items() if count},
        {"positives_by_the_ranker": 0},
    )


def _joined(left: PassageLists, right: PassageLists) -> PassageLists:
    """Both lists of each query, end to end; the queries are the same in the same order."""
    rows = np.concatenate([left.rows, right.rows])
    passages = np.concatenate([left.passage_indices, right.passage_indices])
    order = np.argsort(rows, kind="stable")
    return PassageLists.from_lengths(
        left.query_indices, left.lengths + right.lengths, passages[order]
    )
