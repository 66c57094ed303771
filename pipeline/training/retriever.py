"""Training a dual encoder with in-batch or cross-batch negatives (RocketQA, PAIR, STAR)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.methods.lists import PassageLists
from pipeline.methods.losses import (
    RETRIEVER_LOSSES,
    RetrieverLoss,
    candidate_labels,
    contains,
    known_positives,
    negative_columns,
    passage_centric,
)
from pipeline.models.device import Precision
from pipeline.models.dual_encoder import DualEncoder
from pipeline.models.encoder import to_device
from pipeline.text.store import TokenStore
from pipeline.training.batches import IntArray, Share
from pipeline.training.gradient_cache import backward
from pipeline.training.rows import Rows
from pipeline.training.sides import Sides
from pipeline.training.world import World

Negatives = Literal["in_batch", "cross_batch"]


@dataclass(frozen=True)
class PassageCentric:
    """PAIR's second loss beside the first: (1 - weight) L_Q + weight L_P.

    Attributes:
        weight: alpha; PAIR has 0.1.
        form: what a positive is compared with beside its own query: all hard negatives (`paper`),
            or also all other queries (`released`).
    """

    weight: float
    form: Literal["paper", "released"] = "paper"


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of a batch with their passages: rank by rank the positives, then the negatives.

    Attributes:
        query_vectors: [R, d].
        passage_vectors: [R * (1 + n), d].
        hashes: of the passages' contents, [R * (1 + n)].
        known: hashes of each row's known positives, [R, K], or None.
        absent: bool [R * (1 + n)], passages that only fill a place, or None.
    """

    query_vectors: Tensor
    passage_vectors: Tensor
    hashes: Tensor
    known: Tensor | None
    absent: Tensor | None

    @property
    def positives(self) -> Tensor:
        """The positives' vectors, [R, d], where the rows are those of one rank."""
        return self.passage_vectors[: len(self.query_vectors)]

    def part(self, first: int, size: int) -> _Rows:
        """`size` consecutive rows of one rank."""
        rows = len(self.query_vectors)
        count = len(self.hashes) // rows - 1
        members = torch.arange(first, first + size, device=self.hashes.device)
        negatives = rows + members[:, None] * count + torch.arange(count, device=members.device)
        places = torch.cat([members, negatives.flatten()])
        return _Rows(
            self.query_vectors[members],
            self.passage_vectors[places],
            self.hashes[places],
            None if self.known is None else self.known[members],
            None if self.absent is None else self.absent[places],
        )


@dataclass(frozen=True, eq=False)
class RetrieverObjective:
    """The row's positive against its own and other rows' passages, by a softmax or pair by pair.

    With `cross_batch` every row of the global batch is compared with all of the global batch's
    passages; with `in_batch` the global batch falls into groups of `in_batch_group_size`
    consecutive rows, and a row sees its group's passages only. Neither depends on the number of
    workers.

    Attributes:
        model: trained in place; on the device of the `World` it is trained in.
        store: inputs of queries and passages.
        rows: what to train on.
        known: all known positives by query. Candidates that are among those of the row's query, or
            equal in text to one, or to the row's own positive, are left out of the row's loss.
            None leaves them in as negatives, as the released code does.
        negatives: whose passages a row is compared with.
        in_batch_group_size: rows of a group; needed, and only read, for `in_batch`.
        passage_centric: PAIR's second loss, or None.
        comparison: the loss of a row's positive and its candidates.
        token_budget: padded tokens of a micro-batch; a larger batch goes through the gradient
            cache.
        precision: of the encoders' matrix products; scores and loss are float32.
    """

    model: DualEncoder
    store: TokenStore
    rows: Rows
    known: PassageLists | None
    negatives: Negatives = "cross_batch"
    in_batch_group_size: int | None = None
    passage_centric: PassageCentric | None = None
    comparison: RetrieverLoss = "softmax"
    token_budget: int = 16384
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.negatives == "in_batch" and self.in_batch_group_size is None:
            raise ValueError("in_batch negatives need in_batch_group_size, the rows of a group")
        if self.passage_centric is not None and self.rows.num_negatives == 0:
            raise ValueError("the passage-centric loss needs hard negatives: num_negatives is 0")

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
        line = f"{others} negatives per query ({kind}, {own} of them its own)"
        if self.comparison != "softmax":
            line += f", {self.comparison} loss"
        if self.passage_centric is not None:
            line += f", passage-centric loss x {self.passage_centric.weight:g}"
        return line

    def step(self, share: Share, world: World) -> Mapping[str, Tensor]:
        """Forward and backward over this rank's rows; see `Objective.step`."""
        batch = self.rows.batch(share.rows, share.epoch)
        queries = batch.query_indices
        # A rank contributes all of its positives, then all of its negatives (papers' layout).
        passages = np.concatenate([batch.positives, batch.negatives.ravel()])
        absent = None
        if batch.absent is not None:
            absent = np.concatenate([np.zeros(len(queries), np.bool_), batch.absent.ravel()])

        def loss(query_vectors: Tensor, passage_vectors: Tensor) -> Tensor:
            return self.loss(query_vectors, passage_vectors, queries, passages, world, absent)

        sides = Sides(self.store, world.device, self.precision, self.token_budget)
        both = [sides.queries(self.model, queries), sides.passages(self.model, passages)]
        return {"loss": backward(both, loss, world.device)}

    def loss(
        self,
        query_vectors: Tensor,
        passage_vectors: Tensor,
        queries: IntArray,
        passages: IntArray,
        world: World,
        absent: NDArray[np.bool_] | None = None,
    ) -> Tensor:
        """Mean loss of this rank's B rows with n negatives each.

        Args:
            query_vectors: [B, d].
            passage_vectors: [B * (1 + n), d], positives first, then row by row the negatives.
            queries: query indices, [B].
            passages: passage indices, [B * (1 + n)].
            world: whose passages are gathered for cross-batch negatives.
            absent: passages that only fill a place, bool [B * (1 + n)]; on all ranks or on none.
        """
        device = query_vectors.device
        hashes = to_device(self.store.content_hash[passages], device)
        known = self._known_hashes(queries, passages)
        own = _Rows(
            query_vectors,
            passage_vectors,
            hashes,
            None if known is None else to_device(known, device),
            None if absent is None else to_device(absent, device),
        )
        if self.negatives == "cross_batch":
            return self._loss_within(self._gathered(own, world), own, world.rank)
        losses = []
        for first in range(0, len(queries), self.rows_per_group):
            group = own.part(first, self.rows_per_group)
            losses.append(self._loss_within(group, group, 0))
        return torch.stack(losses).mean()

    def _loss_within(self, pool: _Rows, own: _Rows, rank: int) -> Tensor:
        """Mean loss of `own` rows, which are those of `rank` in the pool."""
        device, temperature = own.hashes.device, self.model.config.temperature
        size, count = len(own.query_vectors), self.rows.num_negatives
        labels = candidate_labels(rank, size, count, device)
        excluded = None
        if own.known is not None:
            excluded = known_positives(own.known, pool.hashes, labels)
        if pool.absent is not None:
            nowhere = pool.absent.expand(size, -1)
            excluded = nowhere if excluded is None else excluded | nowhere
        scores = own.query_vectors @ pool.passage_vectors.T
        loss = RETRIEVER_LOSSES[self.comparison](scores, labels, excluded, temperature)
        if self.passage_centric is None:
            return loss
        # The same, seen from the positives: queries and hard negatives compete (PAIR).
        columns = negative_columns(len(pool.hashes) // len(own.hashes), size, count, device)
        query_labels = candidate_labels(rank, size, 0, device)
        centric = passage_centric(
            own.positives @ pool.query_vectors.T,
            own.positives @ pool.passage_vectors[columns].T,
            query_labels,
            self._excluded_queries(pool, own, query_labels),
            None if excluded is None else excluded[:, columns],
            temperature,
        )
        weight = self.passage_centric.weight
        return (1 - weight) * loss + weight * centric

    def _excluded_queries(self, pool: _Rows, own: _Rows, labels: Tensor) -> Tensor:
        """Queries of the pool that an own positive is not compared with: bool [B, all rows]."""
        device, size = labels.device, len(pool.query_vectors)
        if self.passage_centric is not None and self.passage_centric.form == "paper":
            excluded = torch.ones(len(labels), size, dtype=torch.bool, device=device)
        elif pool.known is not None:
            excluded = contains(pool.known, own.hashes[: len(labels)]).T
        else:
            excluded = torch.zeros(len(labels), size, dtype=torch.bool, device=device)
        return excluded.scatter(1, labels[:, None], False)

    def _gathered(self, own: _Rows, world: World) -> _Rows:
        """The rows of all ranks; their queries only where passages are compared with them."""
        passages, hashes = world.gather(own.passage_vectors), world.gather_no_grad(own.hashes)
        absent = None if own.absent is None else world.gather_no_grad(own.absent)
        if self.passage_centric is None:
            return _Rows(own.query_vectors, passages, hashes, None, absent)
        known = own.known
        if known is not None:
            widest = -world.minimum(-known.shape[1])
            known = torch.cat([known, known[:, :1].expand(-1, widest - known.shape[1])], dim=1)
            known = world.gather_no_grad(known)
        return _Rows(world.gather(own.query_vectors), passages, hashes, known, absent)

    def _known_hashes(self, queries: IntArray, passages: IntArray) -> IntArray | None:
        """Content hashes of each row's known positives, padded with its own: [B, 1 + most]."""
        if self.known is None:
            return None
        known = self.known.of(queries)
        hashes = self.store.content_hash[passages[: len(queries)]]
        padded = np.repeat(hashes[:, None], 1 + int(known.lengths.max(initial=0)), axis=1)
        padded[known.rows, known.ranks] = self.store.content_hash[known.passage_indices]
        return padded
