"""What the `pool` stage tells: scores, ranks of the positives, and how sharp the draw is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.methods.lists import Floats
from pipeline.methods.pools import Pools

# A draw that shares more than this with the top candidates hardly differs from taking them.
TOO_MUCH_OVERLAP = 0.9

_BANDS = ((1, 1), (2, 5), (6, 10), (11, 20), (21, 50), (51, 100), (101, None))
_POINTS = np.linspace(0, 1, 41)
_SHOWN = (0.05, 0.25, 0.5, 0.75, 0.95)


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
    ranks = positive_ranks[positive_ranks > 0]
    against = np.repeat(positive_scores, pools.lists.lengths)
    return {
        "pools": len(pools),
        "ranked": len(ranks),
        "bands": [_within(ranks, *band) for band in _BANDS],
        "effective_size": float(pools.effective_sizes().sum()),
        "overlap": float(overlap_with_top.sum()),
        "scores": {
            "positive": _points(positive_scores),
            "negative": _points(scores),
            "difference": _points(scores - against),
        },
    }


def merged(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The metrics of all shards together; quantiles of several shards are interpolated."""
    pools = sum(each["pools"] for each in measured)
    if pools == 0:
        return {}
    found: dict[str, Any] = {
        "effective_size": sum(each["effective_size"] for each in measured) / pools,
        "overlap_with_top": sum(each["overlap"] for each in measured) / pools,
    }
    ranked = sum(each["ranked"] for each in measured)
    if ranked:
        found["positives_by_rank"] = {
            _name(*band): sum(each["bands"][number] for each in measured) / ranked
            for number, band in enumerate(_BANDS)
        }
    for what in ("positive", "negative", "difference"):
        parts = [each["scores"][what] for each in measured if each["scores"][what]["count"]]
        if parts:
            found[f"{what}_score"] = _quantiles(parts)
    return found


def cautions(metrics: Mapping[str, Any], sampler: str) -> list[str]:
    """A warning where the draw is almost that of the top candidates, and was not meant to be."""
    overlap = metrics.get("overlap_with_top", 0.0)
    if sampler == "top" or overlap <= TOO_MUCH_OVERLAP:
        return []
    return [
        f"{overlap:.0%} of the negatives drawn stand among the top candidates anyway: sampler "
        f"'{sampler}' hardly differs from `top`; look at the quantiles of difference_score, and "
        "move `b`, lower `a`, or give the pool more depth"
    ]


def _within(ranks: npt.NDArray[np.integer], first: int, last: int | None) -> int:
    return int(((ranks >= first) & (ranks <= (last or np.inf))).sum())


def _name(first: int, last: int | None) -> str:
    if last is None:
        return f"{first}+"
    return str(first) if first == last else f"{first}-{last}"


def _points(values: Floats) -> dict[str, Any]:
    known = values[~np.isnan(values)]
    points = np.quantile(known, _POINTS).tolist() if len(known) else []
    return {"count": len(known), "points": points}


def _quantiles(parts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Quantiles of the union of parts of which only `_POINTS` are known."""
    values = np.concatenate([part["points"] for part in parts])
    weights = np.concatenate([np.full(len(_POINTS), part["count"]) for part in parts])
    if len(parts) == 1:
        found = np.interp(_SHOWN, _POINTS, values)
    else:
        found = np.quantile(values, _SHOWN, weights=weights, method="inverted_cdf")
    return {f"{share:.0%}": float(value) for share, value in zip(_SHOWN, found, strict=True)}
