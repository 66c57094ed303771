"""Exact top-k by inner product over a corpus that streams by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.search.backends import SCORE_BYTES, BackendName, open_backend
from pipeline.search.ranking import (
    EMPTY,
    Excluded,
    Keys,
    TopK,
    best_keys,
    keys_of,
    scores_of,
    top_k,
)

# Vectors searched at once. Large enough that picking the best costs little beside the products.
PIECE_BYTES = 2**29

# So many more passages are searched for where some are excluded; a query with more of them in one
# piece is compared with the whole piece if need be.
EXTRA_FOR_EXCLUDED = 16

_UPPER_HALF = np.uint64(32)

# Passages asked for beyond those that got in from the piece before, once the search is under way.
HEADROOM = 16

# Where more of the queries than this are left open, they are searched deeper together.
OPEN_SHARE = 0.05


class ExactSearch:
    """Keeps the best passages of each query while blocks of the corpus are added.

    The result is that of scoring every passage and sorting by (score falling, passage index
    rising): equal scores at the last rank are resolved by index, not by the order of work. Blocks
    are joined or cut to pieces of a fixed size, so that their layout does not reach the arithmetic.

    A backend finds for each query some passages of a piece. What it did not find scores no better
    than its last one; where the query's last rank scores no better than that either, an unseen
    passage might belong there: the query is open, and is searched deeper or compared with the whole
    piece. Only this test makes results exact, so a late piece can be searched less deep.
    """

    def __init__(
        self,
        queries: NDArray[Any],
        depth: int,
        *,
        backend: BackendName = "faiss_cpu",
        device: str = "cpu",
        excluded: Excluded | None = None,
        piece_rows: int | None = None,
    ):
        """Begin a search.

        Args:
            queries: [queries, dimension] float16 or float32.
            depth: passages to find per query.
            backend: what computes the products.
            device: torch device, for the backend `torch`.
            excluded: passages left out per query, before the ranking is cut.
            piece_rows: passages searched at once, if not chosen by size.
        """
        if depth < 1:
            raise ValueError(f"depth must be at least 1, not {depth}")
        self._vectors = np.ascontiguousarray(queries, dtype=np.float32)
        check_finite(self._vectors, "query vectors")
        self._depth = depth
        self._excluded = excluded or Excluded.none()
        self._backend = open_backend(backend, self._vectors, device)
        dimension = self._vectors.shape[1]
        rows = piece_rows or rows_of_a_piece(dimension)
        self._piece = np.empty((rows, dimension), dtype=np.float32)
        self._piece_index = np.empty(rows, dtype=np.int64)
        self._filled = 0
        self._expected = depth
        self._keys: Keys = np.full((len(self._vectors), depth), EMPTY)

    def add(self, first_passage_index: int, block: NDArray[Any]) -> None:
        """Search a block of consecutive passages too.

        Args:
            first_passage_index: index of the block's first passage; blocks come in any order, each
                passage once.
            block: [passages, dimension] float16 or float32.

        Raises:
            ValueError: the block's shape does not fit, or it holds NaN or infinity.
        """
        if block.ndim != 2 or block.shape[1] != self._piece.shape[1]:
            raise ValueError(
                f"passage vectors have shape {block.shape}, query vectors have "
                f"{self._piece.shape[1]} dimensions"
            )
        taken = 0
        while taken < len(block):
            rows = min(len(block) - taken, len(self._piece) - self._filled)
            place = slice(self._filled, self._filled + rows)
            self._piece[place] = block[taken : taken + rows]
            first = first_passage_index + taken
            self._piece_index[place] = np.arange(first, first + rows)
            self._filled += rows
            taken += rows
            if self._filled == len(self._piece):
                self._search_filled()

    def add_piece(self, first_passage_index: int, piece: Any) -> None:
        """Search consecutive passages where they lie, as one piece.

        Args:
            first_passage_index: index of the piece's first passage.
            piece: [passages, dimension], finite, in any format that the backend loads.
        """
        index = np.arange(first_passage_index, first_passage_index + len(piece))
        self._search_piece(piece, index)

    def search(self, blocks: Iterable[tuple[int, NDArray[Any]]]) -> TopK:
        """Add all blocks and give the result."""
        for first_passage_index, block in blocks:
            self.add(first_passage_index, block)
        return self.result()

    def result(self) -> TopK:
        """The rankings over all that was added so far."""
        self._search_filled()
        return top_k(self._keys)

    def _search_filled(self) -> None:
        count = self._filled
        if not count:
            return
        self._filled = 0
        piece, index = self._piece[:count], self._piece_index[:count]
        check_finite(piece, f"vectors of the passages {index.min()} to {index.max()}")
        self._search_piece(piece, index)

    def _search_piece(self, piece: Any, index: NDArray[np.int64]) -> None:
        excluded = self._excluded.among(index)
        self._backend.load(piece)
        step = self._backend.query_rows(len(index))
        let_in = 0
        for start in range(0, len(self._vectors), step):
            stop = min(start + step, len(self._vectors))
            useful = self._search_queries(start, stop, index, excluded.of_rows(start, stop))
            let_in = max(let_in, useful)
        self._expected = let_in

    def _search_queries(
        self, start: int, stop: int, index: NDArray[np.int64], excluded: Excluded
    ) -> int:
        """Search the piece for some queries; the most passages that one of them might let in."""
        most_excluded = int(np.bincount(excluded.query_row).max(initial=0))
        limit = min(len(index), self._backend.widest)
        deepest = min(self._depth + 1 + min(most_excluded, EXTRA_FOR_EXCLUDED), limit)
        before = self._keys[start:stop]
        count = min(deepest, self._expected + HEADROOM)
        while True:
            scores, positions = self._backend.best(start, stop, count)
            # No score is below the NaN of a last rank that is still empty.
            useful = int((~(scores < scores_of(before[:, -1:]))).sum(axis=1).max(initial=0))
            found = keys_of(scores[:, :useful], index[positions[:, :useful]])
            excluded.drop(found, np.arange(stop - start))
            after = best_keys(np.concatenate([before, found], axis=1), self._depth)
            last_found = keys_of(scores[:, -1], 0) >> _UPPER_HALF
            open_rows = np.flatnonzero((after[:, -1] >> _UPPER_HALF) >= last_found)
            if count == deepest or len(open_rows) <= OPEN_SHARE * (stop - start):
                break
            count = deepest
        if count < len(index):
            self._search_fully(start, open_rows, index, excluded, before, after)
        self._keys[start:stop] = after
        return useful

    def _search_fully(
        self,
        start: int,
        rows: NDArray[np.int64],
        index: NDArray[np.int64],
        excluded: Excluded,
        before: Keys,
        after: Keys,
    ) -> None:
        """Replace rows of `after` by the best of `before` and of every passage of the piece."""
        step = max(1, SCORE_BYTES // (16 * len(index)))
        for first in range(0, len(rows), step):
            chosen = rows[first : first + step]
            keys = keys_of(self._backend.scores(start + chosen), index)
            excluded.drop(keys, chosen)
            best = best_keys(keys, self._depth)
            after[chosen] = best_keys(np.concatenate([before[chosen], best], axis=1), self._depth)


def rows_of_a_piece(dimension: int) -> int:
    """Vectors of this size that are searched at once."""
    return max(1024, PIECE_BYTES // (4 * dimension) // 1024 * 1024)


def check_finite(vectors: NDArray[Any], what: str) -> None:
    """Raise ValueError where `what`, [rows, dimension], hold NaN or infinity."""
    for start in range(0, len(vectors), 8192):
        if not np.isfinite(vectors[start : start + 8192]).all():
            raise ValueError(f"{what} hold NaN or infinity: the encoder diverged or overflowed")
