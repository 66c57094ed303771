"""Pseudo-labels for unlabelled queries, by the ranker's own judgement: RocketQA's step 4."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.methods import filters, samplers
from pipeline.methods.lists import Floats, PassageLists


@dataclass(frozen=True, eq=False)
class PseudoLabels:
    """Labelled queries, and what became of the others.

    Attributes:
        positives: int32 [Q], one passage per labelled query.
        confidence: float64 [Q], the ranker's probability of that passage.
        negatives: the labelled queries in the order they came, each with 1 to n negatives in rank
            order.
        dropped: queries without labels, by reason. Rows in = len(negatives) + sum of these.
        counts: `queries_short`, labelled queries with fewer negatives than wanted, and
            `negatives_missing`.
    """

    positives: npt.NDArray[np.int32]
    confidence: npt.NDArray[np.float64]
    negatives: PassageLists
    dropped: Mapping[str, int]
    counts: Mapping[str, int]


def pseudo_labels(
    candidates: PassageLists,
    probabilities: Floats,
    *,
    num_negatives: int = 4,
    negative_below: float = 0.1,
    positive_above: float = 0.9,
    depth: int = 50,
) -> PseudoLabels:
    """Label a query where the ranker is sure of a positive and of a negative (RocketQA step 4).

    Positive: the most probable of the first `depth` candidates (of equals, the better ranked), if
        above
    `positive_above`. Negatives: the first candidates in rank order below `negative_below`, up to
    `num_negatives`.

    Args:
        candidates: the retriever's candidates in rank order.
        probabilities: float [N], the ranker's P(1).
        num_negatives: how many negatives a query gets at most.
        negative_below: probability below which the ranker is sure of a negative.
        positive_above: probability above which it is sure of a positive.
        depth: last rank that is looked at.

    Raises:
        ValueError: a candidate within the depth has no probability, or the thresholds overlap.
    """
    if negative_below > positive_above:
        raise ValueError(
            f"negative_below {negative_below} lies above positive_above {positive_above}"
        )
    candidates.entries(probabilities, "probabilities")
    inside = filters.window(candidates, 1, depth)
    if np.isnan(probabilities[inside]).any():
        raise ValueError(
            f"candidates without ranker score within depth {depth}; score to that depth or more"
        )
    best = samplers.smallest(candidates, inside, 1, -probabilities)
    positive = best & filters.above(probabilities, positive_above)
    sure = inside & filters.below(probabilities, negative_below)
    negative = samplers.top(candidates, sure, num_negatives)

    has_positive, found = candidates.count(positive) > 0, candidates.count(negative)
    labelled = has_positive & (found > 0)
    missing = num_negatives - found[labelled]
    in_labelled = positive & labelled[candidates.rows]
    reasons = {
        "no candidates": candidates.lengths == 0,
        "no sure positive": (candidates.lengths > 0) & ~has_positive,
        "no sure negative": has_positive & (found == 0),
    }
    return PseudoLabels(
        positives=candidates.passage_indices[in_labelled],
        confidence=probabilities[in_labelled].astype(np.float64),
        negatives=candidates.keep(negative).take(labelled),
        dropped={reason: int(rows.sum()) for reason, rows in reasons.items() if rows.any()},
        counts={"queries_short": int((missing > 0).sum()), "negatives_missing": int(missing.sum())},
    )
