"""Ids to row numbers in a few bytes per id, where strings in a dict would take gigabytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

Keys: TypeAlias = npt.NDArray[np.uint64]
Rows: TypeAlias = npt.NDArray[np.int32]
UNKNOWN = -1
Value = TypeVar("Value")


def keys_of(ids: Iterable[str] | Iterable[bytes]) -> Keys:
    """64-bit hashes of ids: [n] uint64.

    Two among n different ids share a hash with probability n² / 2⁶⁵: 1 in 90,000 for 20 million.
    """
    digests = b"".join(hashlib.blake2b(_bytes(one), digest_size=8).digest() for one in ids)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64, copy=False)


def _bytes(one: str | bytes) -> bytes:
    return one.encode("utf-8", "surrogatepass") if isinstance(one, str) else one


class IdIndex:
    """Numbers distinct ids 0, 1, 2, ... in the order they come, and finds them again.

    Holds 12 bytes per id as sorted runs that grow by merging neighbours of similar length, so that
    n ids added in blocks cost O(n log n) altogether; while the largest runs merge, up to three
    times as much.
    """

    def __init__(self) -> None:
        self._runs: list[tuple[Keys, Rows]] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, ids: Sequence[str] | Sequence[bytes]) -> npt.NDArray[np.bool_]:
        """Number those of `ids` that are new, in order.

        Returns:
            [n] bool, False for an id that was added before or stands earlier in `ids`.
        """
        keys = keys_of(ids)
        new = np.zeros(len(keys), dtype=np.bool_)
        new[np.unique(keys, return_index=True)[1]] = True
        new &= self._find(keys) == UNKNOWN
        fresh = keys[new]
        if len(fresh):
            rows = np.arange(self._count, self._count + len(fresh), dtype=np.int32)
            order = np.argsort(fresh)
            self._runs.append((fresh[order], rows[order]))
            self._count += len(fresh)
            self._merge()
        return new

    def find(self, ids: Sequence[str] | Sequence[bytes]) -> Rows:
        """Row numbers of ids: [n] int32, `UNKNOWN` where an id was never added."""
        return self._find(keys_of(ids))

    def _find(self, keys: Keys) -> Rows:
        found = np.full(len(keys), UNKNOWN, dtype=np.int32)
        for run_keys, run_rows in self._runs:
            at = np.minimum(np.searchsorted(run_keys, keys), len(run_keys) - 1)
            hit = run_keys[at] == keys
            found[hit] = run_rows[at[hit]]
        return found

    def _merge(self) -> None:
        while len(self._runs) > 1 and len(self._runs[-2][0]) <= 2 * len(self._runs[-1][0]):
            right, left = self._runs.pop(), self._runs.pop()
            keys = np.concatenate([left[0], right[0]])
            rows = np.concatenate([left[1], right[1]])
            # A stable sort finds the two sorted halves and merges them in linear time.
            order = np.argsort(keys, kind="stable")
            self._runs.append((keys[order], rows[order]))


class SeenIds:
    """Lets each id pass once."""

    BLOCK = 8192

    def __init__(self) -> None:
        self._index = IdIndex()

    def first_times(self, pairs: Iterable[tuple[str, Value]]) -> Iterator[Value]:
        """The values of (id, value) pairs whose id comes for the first time."""
        pairs = iter(pairs)
        while block := list(islice(pairs, self.BLOCK)):
            new = self._index.add([one for one, _ in block])
            yield from (value for (_, value), fresh in zip(block, new, strict=True) if fresh)
