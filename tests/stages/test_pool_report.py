"""What the stage `pool` measures, against numpy over all pools at once."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pipeline.methods.lists import PassageLists
from pipeline.methods.pools import Pools
from pipeline.stages import pool_report

# Pools of three candidates with weights 1, 1, 2: an effective size of 1 / (2/16 + 4/16).
EFFECTIVE = 8 / 3


class Measured:
    """Random pools, and what is known of them."""

    def __init__(self, count: int) -> None:
        draw = np.random.default_rng(6)
        self.ranks = draw.integers(0, 130, count)
        self.ranks[:40] = np.tile([1, 2, 5, 6, 10, 11, 100, 101], 5)
        self.positive = draw.normal(3, 2, count)
        self.positive[::7] = np.nan
        self.scores = draw.normal(0, 1, 3 * count)
        self.scores[::5] = np.nan
        self.overlap = draw.uniform(0, 1, count)
        self.count = count

    @property
    def differences(self) -> np.ndarray:
        return self.scores - np.repeat(self.positive, 3)

    def part(self, first: int, last: int) -> dict:
        rows, entries = slice(first, last), slice(3 * first, 3 * last)
        size = last - first
        lists = PassageLists.from_lengths(np.arange(size), np.full(size, 3), np.arange(3 * size))
        pools = Pools(lists, np.zeros(size, np.int32), np.tile(np.log([1.0, 1.0, 2.0]), size))
        of = self.positive[rows], self.scores[entries], self.ranks[rows], self.overlap[rows]
        return pool_report.measure(pools, *of)


POINTS = [0.05, 0.25, 0.5, 0.75, 0.95]


def test_one_shard_is_told_exactly() -> None:
    world = Measured(400)
    found = pool_report.merged([world.part(0, 400)])
    for name, values in (
        ("positive", world.positive),
        ("negative", world.scores),
        ("difference", world.differences),
    ):
        expected = dict(
            zip(["5%", "25%", "50%", "75%", "95%"], np.nanquantile(values, POINTS), strict=True)
        )
        assert found[f"{name}_score"] == pytest.approx(expected)
    assert found["effective_size"] == pytest.approx(EFFECTIVE)
    scored = np.isfinite(world.scores).sum()
    assert found["effective_share"] == pytest.approx(400 * EFFECTIVE / scored)
    assert found["overlap_with_top"] == pytest.approx(world.overlap.mean())


@pytest.mark.parametrize("cuts", [[0, 400], [0, 30, 390, 400]])
def test_ranks_of_positives_are_counted_once_each(cuts: list[int]) -> None:
    world = Measured(400)
    parts = [world.part(first, last) for first, last in itertools.pairwise(cuts)]
    found = pool_report.merged(parts)["positives_by_rank"]
    known = world.ranks[world.ranks > 0]
    bands = {
        "1": (1, 1),
        "2-5": (2, 5),
        "6-10": (6, 10),
        "11-20": (11, 20),
        "21-50": (21, 50),
        "51-100": (51, 100),
        "101+": (101, 10**9),
    }
    expected = {
        name: np.mean([low <= rank <= high for rank in known.tolist()])
        for name, (low, high) in bands.items()
    }
    assert found == pytest.approx(expected)
    assert sum(found.values()) == pytest.approx(1)


def test_several_shards_are_told_nearly_as_one() -> None:
    """Shards of unlike size: a quantile of the union lies within two points of its share."""
    world = Measured(900)
    world.positive[700:] += 10
    cuts = (0, 20, 700, 900)
    parts = [world.part(first, last) for first, last in itertools.pairwise(cuts)]
    found = pool_report.merged(parts)
    assert found["overlap_with_top"] == pytest.approx(world.overlap.mean())
    for name, values in (("positive", world.positive), ("difference", world.differences)):
        known = values[~np.isnan(values)]
        below = [np.mean(known <= value) for value in found[f"{name}_score"].values()]
        assert below == pytest.approx(POINTS, abs=0.02)


def test_shards_without_pools_count_for_nothing() -> None:
    world = Measured(50)
    whole = world.part(0, 50)
    assert pool_report.merged([world.part(0, 0), whole]) == pool_report.merged([whole])
    assert pool_report.merged([world.part(0, 0)]) == {} == pool_report.merged([])


def test_what_is_not_known_is_not_told() -> None:
    world = Measured(50)
    world.ranks[:], world.positive[:] = 0, np.nan
    found = pool_report.merged([world.part(0, 50)])
    told = {"effective_size", "effective_share", "overlap_with_top", "negative_score"}
    assert set(found) == told
