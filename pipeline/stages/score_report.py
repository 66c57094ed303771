"""How scores and ranks are told: quantiles, and shares of bands of ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.methods.lists import Floats

BANDS = ((1, 1), (2, 5), (6, 10), (11, 20), (21, 50), (51, 100), (101, None))
_POINTS = np.linspace(0, 1, 41)
_SHOWN = (0.05, 0.25, 0.5, 0.75, 0.95)


def in_bands(ranks: npt.NDArray[np.integer]) -> list[int]:
    """How many 1-based ranks lie in each of `BANDS`."""
    return [int(((ranks >= low) & (ranks <= (high or np.inf))).sum()) for low, high in BANDS]


def shares_by_band(counted: Sequence[Sequence[int]], total: int) -> dict[str, float]:
    """Band -> its share of `total`, over several shards of what `in_bands` gave."""
    sums = np.sum(counted, axis=0) / total
    return {_name(*band): float(share) for band, share in zip(BANDS, sums, strict=True)}


def points(values: Floats) -> dict[str, Any]:
    """What `quantiles` needs of a shard's values; NaN are left out. Plain JSON."""
    known = values[~np.isnan(values)]
    found = np.quantile(known, _POINTS).tolist() if len(known) else []
    return {"count": len(known), "points": found}


def quantiles(parts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Quantiles of all shards' values together; those of several shards are interpolated.

    Returns:
        Share -> value; empty where no shard has a value.
    """
    known = [part for part in parts if part["count"]]
    if not known:
        return {}
    values = np.concatenate([part["points"] for part in known])
    weights = np.concatenate([np.full(len(_POINTS), part["count"]) for part in known])
    if len(known) == 1:
        found = np.interp(_SHOWN, _POINTS, values)
    else:
        found = np.quantile(values, _SHOWN, weights=weights, method="inverted_cdf")
    return {f"{share:.0%}": float(value) for share, value in zip(_SHOWN, found, strict=True)}


def compared(
    positive_scores: Floats,
    positive_ranks: npt.NDArray[np.integer],
    scores: Floats,
    against: Floats,
) -> dict[str, Any]:
    """What `comparisons` needs of a shard's positives and negatives; plain JSON.

    Args:
        positive_scores: [P], NaN where they are not known.
        positive_ranks: [P], 0 where they are not known.
        scores: of negatives, [N].
        against: the score of each negative's positive, [N].
    """
    ranks = positive_ranks[positive_ranks > 0]
    return {
        "ranked": len(ranks),
        "bands": in_bands(ranks),
        "scores": {
            "positive": points(positive_scores),
            "negative": points(scores),
            "difference": points(scores - against),
        },
    }


def comparisons(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The metrics of all shards together; what no shard knows is left out.

    Returns:
        `positives_by_rank`: shares of the ranked ones; `positive_score`, `negative_score` and
        `difference_score`: quantiles.
    """
    found: dict[str, Any] = {}
    ranked = sum(each["ranked"] for each in measured)
    if ranked:
        found["positives_by_rank"] = shares_by_band([each["bands"] for each in measured], ranked)
    for what in ("positive", "negative", "difference"):
        told = quantiles([each["scores"][what] for each in measured])
        if told:
            found[f"{what}_score"] = told
    return found


def _name(first: int, last: int | None) -> str:
    if last is None:
        return f"{first}+"
    return str(first) if first == last else f"{first}-{last}"
