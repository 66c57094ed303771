"""Which system is better? Paired tests over queries, and the words that may follow from them.

"A beats B" is said only of systems with the same optimiser steps and data (the caller objects where
they differ), at least three seeds each, a Holm-adjusted p-value below 0.05 and an interval of the
difference without 0. Everything else is inconclusive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

SEEDS_NEEDED = 3
SIGNIFICANCE = 0.05
_BLOCK_VALUES = 2_000_000

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SystemScores:
    """Per-query values of one measure for one system.

    Attributes:
        name: how the system is called in a table.
        values: float64 [S, Q], one row per training seed, the same queries in the same order for
            every system.
        deterministic: nothing was trained (BM25, a model as released), so one row stands for any
            number of seeds.
    """

    name: str
    values: Values
    deterministic: bool = False

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.size == 0:
            raise ValueError(
                f"{self.name}: expected values of shape [seeds, queries], got {self.values.shape}"
            )
        if not np.isfinite(self.values).all():
            raise ValueError(f"{self.name}: values must be finite; queries without results count 0")

    @property
    def mean(self) -> float:
        """Mean over queries and seeds."""
        return float(self.values.mean())

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation of the mean across seeds; None for a single seed."""
        return float(self.values.mean(axis=1).std(ddof=1)) if len(self.values) > 1 else None

    @property
    def enough_seeds(self) -> bool:
        """Whether a claim about this system may be made at all."""
        return self.deterministic or len(self.values) >= SEEDS_NEEDED


@dataclass(frozen=True)
class Comparison:
    """One line of a table of comparisons.

    Attributes:
        difference: mean over queries of first minus second, seeds averaged.
        low, high: 95 % interval of it.
        p_value, adjusted_p_value: two-sided, before and after Holm's correction over the table.
        verdict: what may be written.
        reason: why a comparison is inconclusive; empty otherwise.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p_value: float
    adjusted_p_value: float
    verdict: Literal["first beats second", "second beats first", "inconclusive"]
    reason: str


def randomisation_p_value(differences: Values, permutations: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of the paired randomisation test on per-query differences [Q].

    Under the null hypothesis each difference could as well have the other sign. The observed
    assignment counts as one of the permutations, p = (extreme + 1) / (permutations + 1), so p is
    never 0 and the test keeps its level.
    """
    observed = abs(float(differences.sum()))
    # Sums of the same numbers in another order may differ in the last bits and must still count as
    # equal.
    limit = observed - 1e-10 * float(np.abs(differences).sum())
    generator = np.random.default_rng(seed)
    extreme = 0
    for size in _blocks(permutations, len(differences)):
        flips = generator.integers(0, 2, size=(size, len(differences)), dtype=np.int8)
        sums = (2.0 * flips - 1.0) @ differences
        extreme += int((np.abs(sums) >= limit).sum())
    return (extreme + 1) / (permutations + 1)


def bootstrap_interval(
    differences: Values, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean of per-query differences [Q], by resampling queries."""
    generator = np.random.default_rng(seed)
    means = [
        differences[generator.integers(0, len(differences), size=(size, len(differences)))].mean(
            axis=1
        )
        for size in _blocks(resamples, len(differences))
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the given order (Holm 1979).

    The i-th smallest of m is multiplied by m - i + 1; then no value may fall below an earlier one,
    nor exceed 1.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]


def compare(
    pairs: Sequence[tuple[SystemScores, SystemScores]],
    objections: Sequence[str] | None = None,
    permutations: int = 10_000,
    seed: int = 0,
) -> list[Comparison]:
    """Test every pair of a table, correct over the table, and say what may be claimed.

    Seeds are averaged per query before testing: queries are the sample, seeds are not.

    Args:
        pairs: the table's lines.
        objections: for each pair what else forbids a claim; empty where nothing does.
        permutations: of the randomisation test.
        seed: of the permutations and the bootstrap.

    Raises:
        ValueError: the two systems of a pair have different numbers of queries.
    """
    differences = [_differences(first, second) for first, second in pairs]
    p_values = [randomisation_p_value(each, permutations, seed) for each in differences]
    adjusted = holm(p_values)
    intervals = [bootstrap_interval(each, seed=seed) for each in differences]
    said = objections or [""] * len(pairs)
    return [
        _judge(first, second, objection, each, p_value, p_adjusted, interval)
        for (first, second), objection, each, p_value, p_adjusted, interval in zip(
            pairs, said, differences, p_values, adjusted, intervals, strict=True
        )
    ]


def _differences(first: SystemScores, second: SystemScores) -> Values:
    if first.values.shape[1] != second.values.shape[1]:
        raise ValueError(
            f"{first.name} has {first.values.shape[1]} queries, {second.name} has "
            f"{second.values.shape[1]}; a paired test needs the same ones"
        )
    return np.asarray(first.values.mean(axis=0) - second.values.mean(axis=0), dtype=np.float64)


def _judge(
    first: SystemScores,
    second: SystemScores,
    objection: str,
    differences: Values,
    p_value: float,
    adjusted: float,
    interval: tuple[float, float],
) -> Comparison:
    low, high = interval
    reasons = [objection] if objection else []
    reasons += [
        f"{system.name} has {len(system.values)} of {SEEDS_NEEDED} seeds"
        for system in (first, second)
        if not system.enough_seeds
    ]
    if adjusted >= SIGNIFICANCE:
        reasons.append(f"adjusted p {adjusted:.3f}")
    if low <= 0.0 <= high:
        reasons.append("the interval includes 0")
    mean = float(differences.mean())
    verdict: Literal["first beats second", "second beats first", "inconclusive"]
    if reasons:
        verdict = "inconclusive"
    else:
        verdict = "first beats second" if mean > 0 else "second beats first"
    return Comparison(
        first.name, second.name, mean, low, high, p_value, adjusted, verdict, "; ".join(reasons)
    )


def _blocks(total: int, width: int) -> list[int]:
    """Sizes that add up to `total`, so that a block of rows of `width` values stays small."""
    size = max(1, _BLOCK_VALUES // width)
    return [min(size, total - start) for start in range(0, total, size)]
