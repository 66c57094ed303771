"""Training steps of a retriever against sentence-transformers' losses: same weights and batches.

A row is a query, its passage and one further passage; all passages of a batch are every query's
candidates. Both sides take whole steps, in mixed precision where the pipeline does: assemble the
batch, forward, backward, clip, AdamW. Ours reads stored tokens, as the pipeline does; the other
side tokenises each batch, as its trainer does. Measured twice: the batch at once, and in pieces
through the gradient cache.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from torch import nn

from benchmarks import measuring, texts
from benchmarks.inference import ENCODER, TOKENIZATION, Ours
from pipeline.models.base import DEFAULT_MODEL, find
from pipeline.models.device import autocast, describe
from pipeline.models.dual_encoder import DualEncoder
from pipeline.models.encoder import quiet
from pipeline.training.batches import IntArray, Share
from pipeline.training.optimizer import OptimizerPlan, build_optimizer
from pipeline.training.retriever import RetrieverObjective
from pipeline.training.rows import TrainingRows
from pipeline.training.world import World

OURS, PEER = "pipeline", "sentence-transformers"
PLAN = OptimizerPlan(learning_rate=1e-5)
Step = Callable[[IntArray], float]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=64, help="of a batch")
    parser.add_argument("--steps", type=int, default=4, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of torch (default: torch's own choice)")
    parser.add_argument("--piece", type=int, default=32, help="passages at once, with the cache")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    measuring.machine()
    base = find(DEFAULT_MODEL).folder
    data = texts.documentation(options.rows * options.steps)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        ours = Ours(base, folder / "tokens", 0, options.precision)
        print(
            f"{describe(ours.device)}, {ours.precision}, {torch.get_num_threads()} torch threads, "
            f"{options.rows} rows of a query and two passages of pydocs, {DEFAULT_MODEL}"
        )
        longest = TOKENIZATION.passage_max_len
        for title, piece in (("the batch at once", None), ("gradient cache", options.piece)):
            budget = longest * (piece or 2 * options.rows)
            mine = our_step(ours, base, data, budget)
            theirs = peer_step(base, folder / "retriever", data, ours, piece)
            measure(f"{title}, {options.steps} steps", mine, theirs, options)
    print(measuring.load())


def rows_of(data: texts.Documentation) -> TrainingRows:
    """Each query with its passage and the one after it."""
    numbers = np.arange(len(data.queries))
    return TrainingRows(numbers, numbers, np.roll(numbers, -1)[:, None])


def our_step(
    ours: Ours, base: Path, data: texts.Documentation, token_budget: int, *, dropout: bool = True
) -> Step:
    """The pipeline's objective and optimizer over the given rows; the loss of each step."""
    model = DualEncoder.from_base(base, ENCODER).to(ours.device).train(dropout)
    objective = RetrieverObjective(
        model,
        ours.tokenize(data),
        rows_of(data),
        None,
        token_budget=token_budget,
        precision=ours.precision,
    )
    world = World.single(ours.device)
    return _with_optimizer(model, lambda rows: objective.step(Share(rows), world)["loss"])


def peer_step(
    base: Path,
    folder: Path,
    data: texts.Documentation,
    ours: Ours,
    piece: int | None,
    *,
    dropout: bool = True,
) -> Step:
    """sentence-transformers' loss of the same rows, under the same optimizer."""
    lengths = TOKENIZATION
    DualEncoder.from_base(base, ENCODER).save(
        folder,
        tokenizer=base,
        query_max_len=lengths.query_max_len,
        passage_max_len=lengths.passage_max_len,
    )
    with quiet():
        model = SentenceTransformer(str(folder), device=str(ours.device)).train(dropout)
    loss: nn.Module
    scale = 1 / ENCODER.temperature
    if piece is None:
        loss = MultipleNegativesRankingLoss(model, scale=scale)
    else:
        loss = CachedMultipleNegativesRankingLoss(model, scale=scale, mini_batch_size=piece)
    further = rows_of(data).negatives[:, 0]

    def compute(rows: IntArray) -> torch.Tensor:
        sides = (data.queries, rows), (data.passages, rows), (data.passages, further[rows])
        features = [_features(model, [of[i] for i in at], ours.device) for of, at in sides]
        with autocast(ours.device, ours.precision):
            value: torch.Tensor = loss(features, torch.empty(0))
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach()

    return _with_optimizer(model, compute)


def _features(
    model: SentenceTransformer, inputs: Sequence[str], device: torch.device
) -> dict[str, Any]:
    tokens = model.preprocess(list(inputs))
    return {name: value.to(device) for name, value in tokens.items() if torch.is_tensor(value)}


def _with_optimizer(model: nn.Module, backward: Callable[[IntArray], torch.Tensor]) -> Step:
    optimizer = build_optimizer(model, PLAN)

    def step(rows: IntArray) -> float:
        optimizer.zero_grad(set_to_none=True)
        value = backward(rows)
        nn.utils.clip_grad_norm_(model.parameters(), PLAN.max_gradient_norm)
        optimizer.step()
        return float(value)

    return step


def measure(title: str, ours: Step, peer: Step, options: argparse.Namespace) -> None:
    """Take turns over the same batches."""
    print(f"\n{title}", flush=True)
    batches = np.arange(options.rows * options.steps).reshape(options.steps, -1)

    def side(step: Step) -> measuring.Side:
        step(batches[0])
        return lambda: measuring.timed(lambda: [step(rows) for rows in batches])

    timings = measuring.alternate({PEER: side(peer), OURS: side(ours)}, options.rounds)
    measuring.medians(timings, options.rows * options.steps, "rows")
    measuring.verdict(f"speed against {PEER}", measuring.ratios(timings, PEER, OURS))


if __name__ == "__main__":
    main()
