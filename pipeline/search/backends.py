"""Inner products of a block of queries with a piece of the corpus, by faiss or torch."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
BackendName = Literal["faiss_cpu", "faiss_gpu", "torch"]

# faiss works through queries in blocks of this size itself, so larger ones gain nothing.
FAISS_QUERIES = 4096

# faiss's selection on the GPU keeps at most this many per query.
FAISS_GPU_WIDEST = 2048

# Bound of a matrix of scores held at once.
SCORE_BYTES = 2**28


class Backend(Protocol):
    """Search in one piece of the corpus at a time."""

    widest: int
    """Most passages that `best` can find per query."""

    def load(self, piece: Vectors) -> None:
        """Take [passages, dimension] vectors as the piece to search from here on."""

    def query_rows(self, passages: int) -> int:
        """Queries to hand to one call of `best`, for a piece of so many passages."""

    def best(
        self, start: int, stop: int, count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores, falling, and positions of the best passages of the queries `start:stop`.

        Which of several equally scored passages come in at the last places is arbitrary.
        """

    def scores(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scores of some queries with all passages of the piece, [rows, passages]."""


class _FaissCPU:
    """faiss on the CPU, in as many threads as OpenMP is given."""

    widest = 2**31 - 1

    def __init__(self, queries: Vectors):
        self._queries = queries
        self._piece = queries[:0]

    def load(self, piece: Vectors) -> None:
        self._piece = piece

    def query_rows(self, passages: int) -> int:
        return FAISS_QUERIES

    def best(
        self, start: int, stop: int, count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        import faiss

        return _pair(
            faiss.knn(
                self._queries[start:stop], self._piece, count, metric=faiss.METRIC_INNER_PRODUCT
            )
        )

    def scores(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._queries[rows] @ self._piece.T


class _FaissGPU(_FaissCPU):
    """faiss on the first GPU that the process sees."""

    widest = FAISS_GPU_WIDEST

    def __init__(self, queries: Vectors):
        import faiss

        if not _gpus_of(faiss):
            raise RuntimeError(
                "backend faiss_gpu: faiss sees no GPU here; use faiss_cpu, or torch with a device"
            )
        super().__init__(queries)
        self._resources = faiss.StandardGpuResources()

    def best(
        self, start: int, stop: int, count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        import faiss

        return _pair(
            faiss.knn_gpu(
                self._resources,
                self._queries[start:stop],
                self._piece,
                count,
                metric=faiss.METRIC_INNER_PRODUCT,
            )
        )


class _Torch:
    """A product and a top-k in float32 on any device of torch."""

    widest = 2**31 - 1

    def __init__(self, queries: Vectors, device: str):
        import torch

        self._device = torch.device(device)
        self._queries = torch.from_numpy(queries).to(self._device)
        self._piece = self._queries[:0]

    def load(self, piece: Any) -> None:
        """Take an array, or a tensor that may lie on the device already, in any float format."""
        import torch

        self._piece = torch.as_tensor(piece).to(self._device, torch.float32)

    def query_rows(self, passages: int) -> int:
        return max(1, SCORE_BYTES // (4 * passages))

    def best(
        self, start: int, stop: int, count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        import torch

        found = torch.topk(self._product(self._queries[start:stop]), count, dim=1)
        return found.values.cpu().numpy(), found.indices.cpu().numpy()

    def scores(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        import torch

        chosen = self._queries[torch.from_numpy(rows).to(self._device)]
        full: NDArray[np.float32] = self._product(chosen).cpu().numpy()
        return full

    def _product(self, queries: Any) -> Any:
        import torch

        # Training may have allowed TF32 or bfloat16 products for this process.
        allowed = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            return queries @ self._piece.T
        finally:
            torch.set_float32_matmul_precision(allowed)


def automatic_backend(device: str) -> BackendName:
    """Faiss on the CPU; on a GPU faiss where it was built for one and finds CUDA, else torch.

    Args:
        device: as torch names it.
    """
    if not device.startswith("cuda"):
        return "faiss_cpu"
    try:
        import faiss
    except ImportError:
        return "torch"
    return "faiss_gpu" if _gpus_of(faiss) else "torch"


def _gpus_of(faiss: Any) -> int:
    """GPUs that this build of faiss sees."""
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def open_backend(name: BackendName, queries: Vectors, device: str) -> Backend:
    """The backend of that name, holding the queries.

    Raises:
        ValueError: no such backend.
        RuntimeError: the backend needs a device that is not there.
    """
    if name == "faiss_cpu":
        return _FaissCPU(queries)
    if name == "faiss_gpu":
        return _FaissGPU(queries)
    if name == "torch":
        return _Torch(queries, device)
    raise ValueError(f"unknown search backend {name!r}: choose faiss_cpu, faiss_gpu or torch")


def _pair(found: Any) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    scores, positions = found
    return scores, positions
