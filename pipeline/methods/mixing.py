"""Mixing the retriever's and the ranker's score: for the re-ranked run, never for denoising."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.methods.lists import Floats, PassageLists

Normalisation = Literal["min_max", "z_score"]
WEIGHTS = tuple(round(step / 20, 2) for step in range(21))


@dataclass(frozen=True)
class Choice:
    """The weight that did best, and what each one reached."""

    weight: float
    values: Mapping[float, float]


def normalised(lists: PassageLists, scores: Floats, how: Normalisation) -> npt.NDArray[np.float64]:
    """Scores [N] brought to one scale within each list: to [0, 1], or to mean 0 and deviation 1.

    A list whose scores are all equal becomes 0 throughout: it says nothing about order.
    """
    lists.entries(scores, "scores")
    values = np.asarray(scores, dtype=np.float64)
    if how == "min_max":
        shift, scale = _reduce(np.minimum, lists, values), _reduce(np.maximum, lists, values)
        scale = scale - shift
    elif how == "z_score":
        sizes = np.maximum(lists.lengths, 1)
        shift = _reduce(np.add, lists, values) / sizes
        spread = values - np.repeat(shift, lists.lengths)
        scale = np.sqrt(_reduce(np.add, lists, spread * spread) / sizes)
    else:
        raise ValueError(f"unknown normalisation {how!r}; one of min_max, z_score")
    divisor = np.where(scale > 0, scale, 1.0)
    centred = values - np.repeat(shift, lists.lengths)
    return np.asarray(centred / np.repeat(divisor, lists.lengths), dtype=np.float64)


def mixed(
    lists: PassageLists,
    retriever: Floats,
    ranker: Floats,
    weight: float,
    how: Normalisation = "min_max",
) -> npt.NDArray[np.float64]:
    """(1 - weight) * retriever + weight * ranker, both normalised per list: float64 [N].

    Weight 0 keeps the retriever's order, weight 1 the ranker's.
    """
    return (1.0 - weight) * normalised(lists, retriever, how) + weight * normalised(
        lists, ranker, how
    )


def choose_weight(
    lists: PassageLists,
    retriever: Floats,
    ranker: Floats,
    value: Callable[[PassageLists], float],
    how: Normalisation = "min_max",
    weights: Sequence[float] = WEIGHTS,
) -> Choice:
    """The weight whose mixed ranking of validation candidates does best; of equals the first.

    Args:
        lists: validation candidates; queries that are reported on must not be among them.
        retriever: float [N], the retriever's scores.
        ranker: float [N], the ranker's scores or logits.
        value: quality of a ranking, for example its mean RR@10.
        how: normalisation within each list.
        weights: the grid, shares of the ranker.
    """
    values = {
        float(weight): value(lists.ranked(mixed(lists, retriever, ranker, weight, how)))
        for weight in weights
    }
    return Choice(max(values, key=lambda weight: values[weight]), values)


def _reduce(
    operation: np.ufunc, lists: PassageLists, values: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """One value per list [Q]; 0 for empty lists, which have no start that `reduceat` could use."""
    reduced = np.zeros(len(lists))
    full = lists.lengths > 0
    if full.any():
        reduced[full] = operation.reduceat(values, lists.offsets[:-1][full])
    return reduced
