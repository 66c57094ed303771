"""What the `pool` stage tells: scores, ranks of the positives, and how sharp the draw is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.methods.lists import Floats
from pipeline.methods.pools import Pools
from pipeline.stages.score_report import compared, comparisons


def measure(
    pools: Pools,
    positive_scores: Floats,
    scores: Floats,
    positive_ranks: npt.NDArray[np.integer],
    overlap_with_top: Floats,
) -> dict[str, Any]:
    """The measurements of one shard, which `merged` can put together; plain JSON.

    Args:
        pools: P pools, N candidates.
        positive_scores: [P], NaN where they are not known.
        scores: [N].
        positive_ranks: [P], 0 where they are not known.
        overlap_with_top: the share of a draw that stands among the best candidates, [P].
    """
    against = np.repeat(positive_scores, pools.lists.lengths)
    return {
        "pools": len(pools),
        "effective_size": float(pools.effective_sizes().sum()),
        "overlap": float(overlap_with_top.sum()),
        **compared(positive_scores, positive_ranks, scores, against),
    }


def merged(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The metrics of all shards together; quantiles of several shards are interpolated.

    Returns:
        Means over pools: `effective_size`, and `overlap_with_top`; `effective_share`, the effective
        size per candidate with a score; and those of `score_report.comparisons`.
    """
    pools = sum(each["pools"] for each in measured)
    if pools == 0:
        return {}
    scored = sum(each["scores"]["negative"]["count"] for each in measured)
    effective = sum(each["effective_size"] for each in measured)
    found: dict[str, Any] = {
        "effective_size": effective / pools,
        "overlap_with_top": sum(each["overlap"] for each in measured) / pools,
    }
    if scored:
        found["effective_share"] = effective / scored
    return found | comparisons(measured)
