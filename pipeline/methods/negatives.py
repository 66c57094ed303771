"""Hard negatives from a retriever's candidates: RocketQA's step 2 and step 3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.methods import filters, samplers
from pipeline.methods.filters import KnownPairs
from pipeline.methods.lists import Floats, Integers, Mask, PassageLists


@dataclass(frozen=True, eq=False)
class Negatives:
    """Chosen negatives, and what became of the queries.

    Attributes:
        lists: the queries that got at least one negative, in the order they came; negatives in rank
            order, so that with n wanted per positive, entries `i * n` to `(i + 1) * n` go to the
            query's i-th positive.
        filled: int64 [Q], how many of each list (its last ones) are an unchecked fill from deeper
            ranks.
        dropped: queries without a list, by reason. Rows in = len(lists) + sum of these.
        counts: totals over all queries:
            candidates_known: left out because they are known positives;
            candidates_lost: within the depth, refused by the ranker; queries_losing_candidates:
                queries with such;
            negatives_filled, queries_filled: taken from deeper ranks;
            negatives_missing, queries_short: wanted, but not to be had, among the queries that are
                kept.
    """

    lists: PassageLists
    filled: npt.NDArray[np.int64]
    dropped: Mapping[str, int]
    counts: Mapping[str, int]


def ranker_negatives(
    candidates: PassageLists,
    known: KnownPairs,
    wanted: int | Integers,
    *,
    depth: int = 1000,
    seed: int,
) -> Negatives:
    """Uniform draws from the first `depth` candidates (RocketQA step 2: 4 of the top 1000).

    Args:
        candidates: the retriever's candidates in rank order.
        known: pairs never taken (qrels, suspected positives, copies of positives).
        wanted: negatives per query, one number or int [Q].
        depth: how many ranks to draw from.
        seed: of the draw.
    """
    inside = filters.window(candidates, 1, depth)
    known_mask = inside & known.among(candidates)
    taken = samplers.uniform(candidates, inside & ~known_mask, wanted, seed)
    nothing = np.zeros_like(taken)
    return _negatives(candidates, taken, nothing, nothing, known_mask, wanted)


def denoised_negatives(
    candidates: PassageLists,
    probabilities: Floats | None,
    known: KnownPairs,
    wanted: int | Integers,
    *,
    threshold: float = 0.1,
    depth: int = 50,
    fill_depth: int = 1000,
    seed: int,
) -> Negatives:
    """The highest-ranked candidates that the ranker is sure about (RocketQA step 3).

    Walks ranks 1 to `depth` in order and takes candidates with probability below `threshold` that
    are not known positives. Where these do not suffice, the rest is drawn uniformly from ranks
    `depth + 1` to `fill_depth` without asking the ranker, as the released scripts do.

    Args:
        candidates: the retriever's candidates in rank order, each passage once per list.
        probabilities: float [N], the ranker's P(1); only ranks up to `depth` are looked at. None
            takes the top candidates as they are (the paper's ablation without denoising).
        known: pairs never taken.
        wanted: negatives per query, one number or int [Q]; RocketQA wants 4 per positive. A query
            that wants none has no positive and is dropped.
        threshold: probability below which the ranker is sure.
        depth: last rank of the walk.
        fill_depth: last rank of the fill; equal to `depth` there is none.
        seed: of the fill's draw.

    Raises:
        ValueError: a candidate within the depth has no probability.
    """
    inside = filters.window(candidates, 1, depth)
    deeper = filters.window(candidates, depth + 1, fill_depth)
    known_mask = known.among(candidates) & (inside | deeper)
    if probabilities is None:
        sure = inside
    else:
        refuse_unscored(candidates, probabilities, inside, depth)
        sure = inside & filters.below(probabilities, threshold)
    taken = samplers.top(candidates, sure & ~known_mask, wanted)
    missing = np.asarray(wanted) - candidates.count(taken)
    fill = samplers.uniform(candidates, deeper & ~known_mask, missing, seed)
    return _negatives(candidates, taken, fill, inside & ~sure & ~known_mask, known_mask, wanted)


def refuse_unscored(
    candidates: PassageLists, probabilities: Floats, inside: Mask, depth: int
) -> None:
    """Refuse candidates within the depth (`inside`, [N]) that no ranker has scored."""
    candidates.entries(probabilities, "probabilities")
    unscored = np.flatnonzero(inside & np.isnan(probabilities))
    if len(unscored):
        raise ValueError(
            f"{len(unscored)} candidates within depth {depth} have no ranker score, first that of "
            f"query_index {candidates.queries[unscored[0]]} at rank "
            f"{candidates.ranks[unscored[0]]}; score at least to that depth"
        )


def _negatives(
    candidates: PassageLists,
    taken: Mask,
    fill: Mask,
    lost: Mask,
    known: Mask,
    wanted: int | Integers,
) -> Negatives:
    filled, lost_per_query = candidates.count(fill), candidates.count(lost)
    got = candidates.count(taken) + filled
    goal = np.broadcast_to(np.asarray(wanted), len(candidates))
    kept = got > 0
    missing = np.where(kept, goal - got, 0)
    reasons = {
        "no positive": goal == 0,
        "no candidates": (goal > 0) & (candidates.lengths == 0),
        "no negative left": (goal > 0) & (candidates.lengths > 0) & ~kept,
    }
    return Negatives(
        lists=candidates.keep(taken | fill).take(kept),
        filled=filled[kept],
        dropped={reason: int(rows.sum()) for reason, rows in reasons.items() if rows.any()},
        counts={
            "candidates_known": int(known.sum()),
            "candidates_lost": int(lost.sum()),
            "queries_losing_candidates": int((lost_per_query > 0).sum()),
            "negatives_filled": int(filled.sum()),
            "queries_filled": int((filled > 0).sum()),
            "negatives_missing": int(missing.sum()),
            "queries_short": int((missing > 0).sum()),
        },
    )
