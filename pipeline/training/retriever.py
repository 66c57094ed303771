"""Training a dual encoder with in-batch or cross-batch negatives (RocketQA)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.methods.lists import PassageLists
from pipeline.methods.losses import candidate_labels, contrastive, known_positives
from pipeline.models.device import Precision, autocast
from pipeline.models.dual_encoder import DualEncoder
from pipeline.models.encoder import TensorBatch, to_device
from pipeline.text.batches import token_budget_batches
from pipeline.text.store import TokenStore
from pipeline.training.batches import IntArray
from pipeline.training.gradient_cache import Side, backward
from pipeline.training.length_groups import by_length
from pipeline.training.rows import TrainingRows
from pipeline.training.world import World

Negatives = Literal["in_batch", "cross_batch"]


@dataclass(frozen=True, eq=False)
class RetrieverObjective:
    """Softmax over candidates: the row's positive against its own and other rows' passages.

    With `cross_batch` every row of the global batch is compared with all of the global batch's
    passages; with `in_batch` the global batch falls into groups of `in_batch_group_size`
    consecutive rows, and a row sees its group's passages only. Neither depends on the number of
    workers.

    Attributes:
        model: trained in place; on the device of the `World` it is trained in.
        store: inputs of queries and passages.
        rows: what to train on.
        known: all known positives by query. Candidates that are among those of the row's query, or
            equal in text to one, or to the row's own positive, are left out of the row's softmax.
            None leaves them in as negatives, as the released code does.
        negatives: whose passages a row is compared with.
        in_batch_group_size: rows of a group; needed, and only read, for `in_batch`.
        token_budget: padded tokens of a micro-batch; a larger batch goes through the gradient
            cache.
        precision: of the encoders' matrix products; scores and loss are float32.
    """

    model: DualEncoder
    store: TokenStore
    rows: TrainingRows
    known: PassageLists | None
    negatives: Negatives = "cross_batch"
    in_batch_group_size: int | None = None
    token_budget: int = 16384
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.negatives == "in_batch" and self.in_batch_group_size is None:
            raise ValueError("in_batch negatives need in_batch_group_size, the rows of a group")

    @property
    def models(self) -> Mapping[str, nn.Module]:
        """The one trained model, `retriever`."""
        return {"retriever": self.model}

    @property
    def row_count(self) -> int:
        """Number of training rows."""
        return len(self.rows)

    @property
    def rows_per_group(self) -> int:
        """A rank's share holds whole groups of in-batch negatives."""
        if self.negatives == "cross_batch" or self.in_batch_group_size is None:
            return 1
        return self.in_batch_group_size

    def describe(self, global_batch_size: int) -> str:
        """How many negatives a query is compared with."""
        together = global_batch_size if self.negatives == "cross_batch" else self.rows_per_group
        others = together * (1 + self.rows.num_negatives) - 1
        own = self.rows.num_negatives
        kind = self.negatives.replace("_", "-")
        return f"{others} negatives per query ({kind}, {own} of them its own)"

    def step(self, rows: IntArray, world: World) -> Mapping[str, Tensor]:
        """Forward and backward over this rank's rows; see `Objective.step`."""
        queries = self.rows.query_indices[rows]
        # A rank contributes all of its positives, then all of its negatives (papers' layout).
        passages = np.concatenate([self.rows.positives[rows], self.rows.negatives[rows].ravel()])

        store = self.store
        query_lengths = store.query_lengths(queries)
        passage_lengths = store.passage_lengths(passages)

        def encode_queries(at: IntArray) -> Tensor:
            def encode(rows: IntArray) -> Tensor:
                tokens = store.query_batch(queries[at][rows])
                return self.model.encode_queries(TensorBatch.from_tokens(tokens, world.device))

            with autocast(world.device, self.precision):
                return by_length(encode, query_lengths[at])

        def encode_passages(at: IntArray) -> Tensor:
            def encode(rows: IntArray) -> Tensor:
                tokens = store.passage_batch(passages[at][rows])
                return self.model.encode_passages(TensorBatch.from_tokens(tokens, world.device))

            with autocast(world.device, self.precision):
                return by_length(encode, passage_lengths[at])

        def loss(query_vectors: Tensor, passage_vectors: Tensor) -> Tensor:
            return self.loss(query_vectors, passage_vectors, queries, passages, world)

        sides = [
            Side(encode_queries, self._micro_batches(query_lengths)),
            Side(encode_passages, self._micro_batches(passage_lengths)),
        ]
        return {"loss": backward(sides, loss, world.device)}

    def loss(
        self,
        query_vectors: Tensor,
        passage_vectors: Tensor,
        queries: IntArray,
        passages: IntArray,
        world: World,
    ) -> Tensor:
        """Mean loss of this rank's B rows with n negatives each.

        Args:
            query_vectors: [B, d].
            passage_vectors: [B * (1 + n), d], positives first, then row by row the negatives.
            queries: query indices, [B].
            passages: passage indices, [B * (1 + n)].
            world: whose passages are gathered for cross-batch negatives.
        """
        size, device = len(queries), query_vectors.device
        hashes = to_device(self.store.content_hash[passages], device)
        own = (
            None
            if self.known is None
            else to_device(self._positive_hashes(queries, passages), device)
        )
        if self.negatives == "cross_batch":
            labels = candidate_labels(world.rank, size, self.rows.num_negatives, device)
            candidates, hashes = world.gather(passage_vectors), world.gather_no_grad(hashes)
            return self._contrast(query_vectors, candidates, labels, own, hashes)
        labels = candidate_labels(0, self.rows_per_group, self.rows.num_negatives, device)
        losses = []
        for first in range(0, size, self.rows_per_group):
            members = torch.arange(first, first + self.rows_per_group, device=device)
            places = self._places(members, size)
            losses.append(
                self._contrast(
                    query_vectors[members],
                    passage_vectors[places],
                    labels,
                    None if own is None else own[members],
                    hashes[places],
                )
            )
        return torch.stack(losses).mean()

    def _places(self, members: Tensor, size: int) -> Tensor:
        """Where the passages of the given rows lie among those of all `size` rows."""
        count = self.rows.num_negatives
        negatives = size + members[:, None] * count + torch.arange(count, device=members.device)
        return torch.cat([members, negatives.flatten()])

    def _contrast(
        self,
        query_vectors: Tensor,
        candidates: Tensor,
        labels: Tensor,
        positive_hashes: Tensor | None,
        candidate_hashes: Tensor,
    ) -> Tensor:
        excluded = None
        if positive_hashes is not None:
            excluded = known_positives(positive_hashes, candidate_hashes, labels)
        scores = query_vectors @ candidates.T
        return contrastive(scores, labels, excluded, self.model.config.temperature)

    def _positive_hashes(self, queries: IntArray, passages: IntArray) -> IntArray:
        """Content hashes of each row's known positives, padded with its own: [B, 1 + most]."""
        if self.known is None:
            raise ValueError("no known positives were given")
        known = self.known.of(queries)
        hashes = self.store.content_hash[passages[: len(queries)]]
        padded = np.repeat(hashes[:, None], 1 + int(known.lengths.max(initial=0)), axis=1)
        padded[known.rows, known.ranks] = self.store.content_hash[known.passage_indices]
        return padded

    def _micro_batches(self, lengths: IntArray) -> list[IntArray]:
        return token_budget_batches(lengths, self.token_budget)
