"""Running a model over many texts: batches are assembled ahead while the model computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.models.device import Precision, torch_dtype
from pipeline.models.encoder import TensorBatch, TextEncoder, Tokens, to_device

Positions = NDArray[np.int64]
Assemble = Callable[[Positions], Tokens]
_OnDevice = tuple[Tensor, TensorBatch]
Model = TypeVar("Model", bound=nn.Module)

# Padded tokens that a CPU computes at once. The states of more of them leave its caches: encoding
# with a small BERT took 1.5 times as long at 16384 as at 2048.
CPU_TOKENS = 2048

# Widths are multiples of this on a CPU: for bfloat16 its kernels are generated, and kept, for each
# new shape.
CPU_WIDTH_STEP = 8


def prepare(model: Model, device: torch.device, precision: Precision) -> Model:
    """Make `model` ready for inference only, in place: evaluation mode, no gradients, on `device`.

    The encoders' weights are stored in `precision` (faster than autocast, which converts at every
    layer); pooling and heads stay float32, so that scores keep their full resolution. Do not train
    the model afterwards.
    """
    model.eval().requires_grad_(False).to(device)
    for module in model.modules():
        if isinstance(module, TextEncoder):
            module.to(torch_dtype(precision))
    return model


def embed(
    encode: Callable[[TensorBatch], Tensor],
    assemble: Assemble,
    batches: Sequence[Positions],
    *,
    width: int,
    device: torch.device,
    on_rows: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Vectors [rows, width] of all texts, in input order, whatever the order of the batches.

    Args:
        encode: a tower, for instance `DualEncoder.encode_passages`.
        assemble: positions -> token arrays, for instance
            `lambda at: store.passage_batch(passage_indices[at])`.
        batches: positions 0..rows-1, each in exactly one batch, for instance
            `token_budget_batches(store.passage_lengths(passage_indices), token_budget)`.
        width: size of a vector.
        device: where the model is.
        on_rows: called with the number of rows of each batch once it has been handed to the device.
    """
    return _infer(encode, assemble, batches, (width,), device, on_rows)


def score(
    forward: Callable[[TensorBatch], Tensor],
    assemble: Assemble,
    batches: Sequence[Positions],
    *,
    device: torch.device,
    on_rows: Callable[[int], None] | None = None,
) -> NDArray[np.float32]:
    """Logits [rows] of all pairs, in input order. `forward` is a ranker; the rest as in `embed`."""
    return _infer(forward, assemble, batches, (), device, on_rows)


def _infer(
    forward: Callable[[TensorBatch], Tensor],
    assemble: Assemble,
    batches: Sequence[Positions],
    shape: tuple[int, ...],
    device: torch.device,
    on_rows: Callable[[int], None] | None,
) -> NDArray[np.float32]:
    rows = sum(len(batch) for batch in batches)
    # Collected on the device: fetching each batch would make the GPU wait for the next launch.
    results = torch.empty((rows, *shape), dtype=torch.float32, device=device)
    with torch.inference_mode():
        for positions, batch in _ahead(assemble, batches, device):
            results.index_copy_(0, positions, forward(batch).float())
            if on_rows is not None:
                on_rows(len(positions))
    values: NDArray[np.float32] = results.cpu().numpy()
    return values


def _ahead(
    assemble: Assemble, batches: Sequence[Positions], device: torch.device
) -> Iterator[_OnDevice]:
    """Yield what is computed at once, on the device, assembling the next batch in a thread."""

    def load(positions: Positions) -> list[_OnDevice]:
        tokens = assemble(positions)
        loaded = []
        for piece in _pieces(tokens, device):
            at = to_device(positions[piece.rows].astype(np.int64, copy=False), device)
            loaded.append((at, TensorBatch.from_tokens(piece, device)))
        return loaded

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as thread:
        following: Future[list[_OnDevice]] | None = None
        for positions in batches:
            current, following = following, thread.submit(load, positions)
            if current is not None:
                yield from current.result()
        if following is not None:
            yield from following.result()


@dataclass(frozen=True)
class _Piece:
    """Some rows of a batch, without most columns that are padding in all of them."""

    rows: slice
    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]
    query_lengths: NDArray[np.int64] | None


def _pieces(tokens: Tokens, device: torch.device) -> list[_Piece]:
    """What is computed at once: the whole batch, but less of it on a CPU."""
    lengths = tokens.attention_mask.sum(axis=1)
    rows, longest = tokens.input_ids.shape
    pieces, start = [], 0
    while start < rows:
        width, stop = longest, rows
        if device.type == "cpu":
            needed = -(-int(lengths[start:].max()) // CPU_WIDTH_STEP) * CPU_WIDTH_STEP
            width = min(longest, needed)
            stop = start + max(1, CPU_TOKENS // max(width, 1))
        cut = (slice(start, stop), slice(0, width))
        pieces.append(
            _Piece(
                cut[0],
                tokens.input_ids[cut],
                tokens.attention_mask[cut],
                tokens.token_type_ids[cut],
                None if tokens.query_lengths is None else tokens.query_lengths[cut[0]],
            )
        )
        start = stop
    return pieces
