"""Dividing labelled data into sides that share nothing: what stays together, and how it is dealt.

All draws sort by a hash of the seed and a name. Blocks have names of their own, so dealing them
does not depend on the order of the data. A group of queries to validate on is called by the
position of its first item, so other orders of the training queries give other validation queries.
Folds are not drawn.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Side = TypeVar("Side", bound=str)


def group_by_shared(count: int, keys: Sequence[Iterable[Hashable]]) -> NDArray[np.int64]:
    """Group items that share a key, directly or through other items (union-find).

    Args:
        count: number of items.
        keys: the keys of each item; keys of different relations must differ, so tag them.

    Returns:
        int64 [count]: for each item the lowest position in its group.

    Raises:
        ValueError: there are not as many lists of keys as items.
    """
    if len(keys) != count:
        raise ValueError(f"{count} items, but keys for {len(keys)}")
    parent = list(range(count))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    first_with: dict[Hashable, int] = {}
    for item in range(count):
        for key in keys[item]:
            low, high = sorted((root(item), root(first_with.setdefault(key, item))))
            parent[high] = low
    return np.array([root(item) for item in range(count)], dtype=np.int64)


def draw_order(name: str, seed: int) -> bytes:
    """A sort key that shuffles names: each name's place is fixed by the seed and the name alone."""
    return hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=16).digest()


def carve_validation(groups: NDArray[np.int64], share: float, seed: int) -> NDArray[np.bool_]:
    """Choose whole groups that hold about `share` of the items, and no more than that.

    Where even the smallest group is more than that, it alone is chosen, unless it is the only one.

    Args:
        groups: int64 [items], the group of each item, as `group_by_shared` gives it: its number is
            the name that is drawn, so the choice depends on the order of the items.
        share: part of the items to choose, in [0, 1).
        seed: of the draw.

    Returns:
        bool [items]: whether the item was chosen.
    """
    if not 0 <= share < 1:
        raise ValueError(f"share must be in [0, 1), not {share}")
    names, sizes = np.unique(groups, return_counts=True)
    drawn = sorted(range(len(names)), key=lambda at: draw_order(str(names[at]), seed))
    chosen: list[int] = []
    room = share * len(groups)
    for at in drawn:
        if sizes[at] <= room:
            chosen.append(at)
            room -= int(sizes[at])
    if not chosen and share > 0 and len(names) > 1:
        chosen.append(min(drawn, key=lambda at: int(sizes[at])))
    return np.isin(groups, names[chosen])


def deal_blocks(
    groups: NDArray[np.int64],
    blocks: Sequence[str],
    shares: Mapping[Side, float],
    seed: int,
    rest: Side,
) -> list[Side | None]:
    """Deal items to sides so that neither a block nor a group lies on two of them.

    Whole blocks are dealt, in the order of their draw, to the first side of `shares` until the
    groups that lie wholly on it make up its share of the items, then to the next; a block that
    would bring too many is passed over. `rest` has the other blocks, and gets back those of which
    no group lies wholly on their side. A group on several sides keeps only its items on `rest`.

    Args:
        groups: int64 [items], the group of each item.
        blocks: the block of each item.
        shares: side -> its part of the items.
        seed: of the draw.
        rest: the side that takes what is left.

    Returns:
        The side of each item, None where it was cut off.
    """
    sizes = Counter(groups.tolist())
    members: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for group, block in zip(groups.tolist(), blocks, strict=True):
        members[block][group] += 1
    drawn = sorted(members, key=lambda block: draw_order(block, seed))
    side_of_block: dict[str, Side] = {}
    kept: set[int] = set()
    for side, share in shares.items():
        lacking = share * len(blocks)
        outside = Counter(sizes)
        for block in drawn:
            completed = [group for group, held in members[block].items() if outside[group] == held]
            gain = sum(sizes[group] for group in completed)
            if block in side_of_block or max(gain, members[block].total()) > lacking:
                continue
            side_of_block[block] = side
            outside.subtract(members[block])
            lacking -= gain
            kept.update(completed)
    for block in list(side_of_block):
        if kept.isdisjoint(members[block]):
            del side_of_block[block]
    sides = [side_of_block.get(block, rest) for block in blocks]
    return [
        side if side == rest or group in kept else None
        for group, side in zip(groups.tolist(), sides, strict=True)
    ]


def deal_folds(groups: NDArray[np.int64], of: int) -> NDArray[np.int64]:
    """Deal whole groups to folds of nearly equal size: the largest first, each to the smallest.

    No two folds differ by more items than the largest group has. Nothing is drawn: equal groups
    are dealt in turn.

    Args:
        groups: int64 [items], the group of each item, as `group_by_shared` gives it.
        of: how many folds.

    Returns:
        int64 [items]: the fold of each item, from 1.

    Raises:
        ValueError: there are fewer groups than folds.
    """
    names, place, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < of:
        raise ValueError(
            f"{len(names)} groups of items that stay together cannot fill {of} folds: take fewer"
        )
    loads = [(0, fold) for fold in range(1, of + 1)]
    dealt = np.zeros(len(names), dtype=np.int64)
    for group in np.argsort(-sizes, kind="stable").tolist():
        load, fold = loads[0]
        dealt[group] = fold
        heapq.heapreplace(loads, (load + int(sizes[group]), fold))
    return dealt[place]
