"""Exact search over passages that stay the same, for queries that come again and again."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.search.ranking import Excluded, TopK
from pipeline.search.topk import ExactSearch, check_finite, rows_of_a_piece


class ResidentPassages:
    """Vectors of all passages beside the device that searches them.

    On a GPU they are kept in its memory, in the format that they come in; on a CPU they stay where
    they are, which may be a memory map that all processes of a node share. A search holds one piece
    of them (512 MiB) as float32.
    """

    def __init__(
        self, vectors: NDArray[Any], device: torch.device, piece_rows: int | None = None
    ) -> None:
        """Take the vectors.

        Args:
            vectors: [passages, dimension] float16 or float32, by passage index.
            device: where searches are computed.
            piece_rows: passages searched at once, if not chosen by size.

        Raises:
            ValueError: they hold NaN or infinity.
        """
        check_finite(vectors, "passage vectors")
        self._vectors, self._device = vectors, device
        rows = piece_rows or rows_of_a_piece(vectors.shape[1])
        self._pieces = [
            (first, _kept(vectors[first : first + rows], device))
            for first in range(0, len(vectors), rows)
        ]

    def __len__(self) -> int:
        return len(self._vectors)

    def nearest(self, queries: NDArray[np.float32], depth: int, excluded: Excluded) -> TopK:
        """The `depth` best passages of each query, [queries, dimension], without the excluded."""
        search = ExactSearch(
            queries, depth, backend="torch", device=str(self._device), excluded=excluded
        )
        for first, piece in self._pieces:
            # torch takes no array that it must not write to, such as a part of a memory map.
            search.add_piece(first, piece if torch.is_tensor(piece) else np.array(piece))
        return search.result()

    def vectors(self, passages: NDArray[np.integer]) -> NDArray[np.float32]:
        """The vectors of some passages, any shape [...]: [..., dimension]."""
        found: NDArray[np.float32] = self._vectors[passages].astype(np.float32)
        return found


def _kept(piece: NDArray[Any], device: torch.device) -> Any:
    return piece if device.type == "cpu" else torch.from_numpy(np.array(piece)).to(device)
