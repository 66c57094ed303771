"""Inputs of a training step, cut into micro-batches and ready for the gradient cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.models.cross_encoder import CrossEncoder
from pipeline.models.device import Precision, autocast
from pipeline.models.dual_encoder import DualEncoder
from pipeline.models.encoder import TensorBatch
from pipeline.text.batches import token_budget_batches
from pipeline.text.store import TokenStore
from pipeline.training.batches import IntArray
from pipeline.training.gradient_cache import Side
from pipeline.training.length_groups import by_length


@dataclass(frozen=True)
class Sides:
    """Makes a step's sides from the token store.

    Attributes:
        store: the inputs.
        device: where the models compute.
        precision: of the encoders' matrix products.
        token_budget: padded tokens of a micro-batch.
    """

    store: TokenStore
    device: torch.device
    precision: Precision
    token_budget: int

    def queries(self, model: DualEncoder, queries: IntArray) -> Side:
        """Vectors of the given queries, [B, d]."""

        def encode(at: IntArray) -> Tensor:
            tokens = self.store.query_batch(queries[at])
            return model.encode_queries(TensorBatch.from_tokens(tokens, self.device))

        return self._side(encode, self.store.query_lengths(queries))

    def passages(self, model: DualEncoder, passages: IntArray) -> Side:
        """Vectors of the given passages, [B, d]."""

        def encode(at: IntArray) -> Tensor:
            tokens = self.store.passage_batch(passages[at])
            return model.encode_passages(TensorBatch.from_tokens(tokens, self.device))

        return self._side(encode, self.store.passage_lengths(passages))

    def pairs(self, model: CrossEncoder, queries: IntArray, passages: IntArray) -> Side:
        """Logits of the given pairs, [B]."""

        def score(at: IntArray) -> Tensor:
            tokens = self.store.pair_batch(queries[at], passages[at], model.pair_layout)
            logits: Tensor = model(TensorBatch.from_tokens(tokens, self.device))
            return logits

        return self._side(score, self.store.pair_lengths(queries, passages, model.pair_layout))

    def _side(self, compute: Callable[[IntArray], Tensor], lengths: IntArray) -> Side:
        def encode(at: IntArray) -> Tensor:
            with autocast(self.device, self.precision):
                return by_length(lambda rows: compute(at[rows]), lengths[at], self.device)

        return Side(encode, token_budget_batches(lengths, self.token_budget))
