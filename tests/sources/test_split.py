from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.sources.split import carve_validation, deal_blocks, deal_folds, group_by_shared

KEYS = st.lists(st.lists(st.integers(0, 15), max_size=3), max_size=20)
ITEMS = st.lists(st.tuples(st.integers(0, 12), st.sampled_from("abcdefghij")), max_size=40)
SHARES = {"dev": 0.3, "validation": 0.2}


@settings(max_examples=50, deadline=None)
@given(KEYS)
def test_groups_are_the_connected_components(keys: list[list[int]]) -> None:
    count = len(keys)
    edges = [(item, count + key) for item, own in enumerate(keys) for key in own]
    rows, columns = zip(*edges, strict=True) if edges else ((), ())
    nodes = count + 16
    graph = coo_array((np.ones(len(edges)), (rows, columns)), shape=(nodes, nodes))
    _, component = connected_components(graph, directed=False)
    groups = group_by_shared(count, keys)
    assert groups.dtype == np.int64
    for item in range(count):
        members = np.flatnonzero(component[:count] == component[item])
        assert groups[item] == members[0]


def test_group_by_shared_wants_keys_for_every_item() -> None:
    with pytest.raises(ValueError, match="3 items, but keys for 1"):
        group_by_shared(3, [["a"]])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=1, max_size=200), st.floats(0, 0.9), st.integers(0, 5))
def test_carved_groups_are_whole_and_no_more_than_asked(
    groups: list[int], share: float, seed: int
) -> None:
    names = np.array(groups, dtype=np.int64)
    chosen = carve_validation(names, share, seed)
    assert not set(names[chosen]) & set(names[~chosen])
    smallest = np.unique(names, return_counts=True)[1].min()
    assert chosen.sum() <= max(share * len(names), smallest)
    assert not chosen.all()


def test_carves_the_asked_share_by_seed() -> None:
    groups = np.repeat(np.arange(500), 2)
    first = carve_validation(groups, 0.1, seed=1)
    assert first.sum() == 100
    assert np.array_equal(first, carve_validation(groups, 0.1, seed=1))
    assert not np.array_equal(first, carve_validation(groups, 0.1, seed=2))


def test_carving_leaves_a_single_group_whole_but_never_comes_back_empty_otherwise() -> None:
    assert not carve_validation(np.zeros(10, dtype=np.int64), 0.1, seed=0).any()
    assert carve_validation(np.array([0, 0, 0, 1, 1]), 0.1, seed=0).tolist() == [
        False,
        False,
        False,
        True,
        True,
    ]
    assert not carve_validation(np.arange(10), 0.0, seed=0).any()


@settings(max_examples=50, deadline=None)
@given(ITEMS, st.integers(0, 5))
def test_no_block_and_no_group_is_dealt_to_two_sides(
    items: list[tuple[int, str]], seed: int
) -> None:
    groups = np.array([group for group, _ in items], dtype=np.int64)
    blocks = [block for _, block in items]
    sides = deal_blocks(groups, blocks, SHARES, seed, rest="train")
    kept = [(group, block, side) for (group, block), side in zip(items, sides, strict=True) if side]
    assert len({(group, side) for group, _, side in kept}) == len({group for group, _, _ in kept})
    assert len({(block, side) for _, block, side in kept}) == len({block for _, block, _ in kept})
    for side, share in SHARES.items():
        assert sides.count(side) <= share * len(items)


def test_a_cut_group_stays_with_the_rest() -> None:
    # Blocks a and b share group 0; one of them makes up the dev side.
    sides = deal_blocks(np.array([0, 1, 1, 0, 2, 2]), list("aaabbb"), {"dev": 0.5}, 0, "train")
    assert sides.count("dev") == 2
    assert sides.count("train") == 3
    dealt = sides.index("dev") // 3
    assert sides[3 * dealt : 3 * dealt + 3].count(None) == 1


def test_dealing_does_not_depend_on_the_order_of_the_items() -> None:
    generator = np.random.default_rng(0)
    groups = generator.integers(0, 100, 300)
    blocks = [f"block {number}" for number in generator.integers(0, 40, 300)]
    sides = deal_blocks(groups, blocks, SHARES, 0, rest="train")
    order = generator.permutation(300)
    again = deal_blocks(groups[order], [blocks[at] for at in order], SHARES, 0, rest="train")
    assert again == [sides[at] for at in order]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=200), st.integers(1, 6))
def test_folds_hold_whole_groups_and_are_nearly_equal(groups: list[int], of: int) -> None:
    names, sizes = np.unique(groups, return_counts=True)
    if len(names) < of:
        with pytest.raises(ValueError, match=f"cannot fill {of} folds"):
            deal_folds(np.array(groups), of)
        return
    folds = deal_folds(np.array(groups), of)
    assert all(len(set(folds[np.array(groups) == name])) == 1 for name in names)
    held = np.bincount(folds, minlength=of + 1)[1:]
    assert held.sum() == len(groups) and held.min() > 0
    assert held.max() - held.min() <= sizes.max()


def test_items_alone_are_dealt_in_turn() -> None:
    assert deal_folds(np.array([3, 5, 8, 9, 11]), 2).tolist() == [1, 2, 1, 2, 1]
    assert deal_folds(np.array([0, 1, 2, 2, 2, 1]), 2).tolist() == [2, 2, 1, 1, 1, 2]
