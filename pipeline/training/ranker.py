"""Training a cross-encoder on pairs or lists, optionally against perturbed word embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.methods.losses import listwise, pointwise
from pipeline.models.cross_encoder import CrossEncoder
from pipeline.models.device import Precision
from pipeline.models.encoder import to_device
from pipeline.text.batches import token_budget_batches
from pipeline.text.store import TokenStore
from pipeline.training.adversarial import perturbed
from pipeline.training.batches import IntArray, Share
from pipeline.training.rows import Rows, TrainingPairs, TrainingRows
from pipeline.training.sides import Sides
from pipeline.training.world import World

_Batch = TrainingPairs | TrainingRows


@dataclass(frozen=True, eq=False)
class RankerObjective:
    """Pointwise cross-entropy over pairs, or softmax over lists; the rows' type says which.

    Attributes:
        model: trained in place; on the device of the `World` it is trained in.
        store: inputs of pairs.
        rows: `TrainingPairs` (RocketQA: two-class cross-entropy per pair) or lists (RocketQAv2:
            softmax of the positive over its list).
        adversarial: length of the perturbation of the word embeddings, or None for plain training.
            The released RocketQA code has 0.01.
        token_budget: padded tokens of a micro-batch; a list is never cut.
        precision: of the encoder's matrix products; the loss is float32.
    """

    model: CrossEncoder
    store: TokenStore
    rows: TrainingPairs | Rows
    adversarial: float | None = None
    token_budget: int = 16384
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        """Check that every list of the store's pairs is within the budget.

        Raises:
            ValueError: one could exceed it, be it in the last step of the training.
        """
        if isinstance(self.rows, TrainingPairs):
            return
        pairs, tokens = 1 + self.rows.num_negatives, self.store.longest_pair(self.model.pair_layout)
        if (wanted := pairs * tokens) > self.token_budget:
            raise ValueError(
                f"a list of {pairs} passages has up to {wanted} tokens ({tokens} a pair), and is "
                f"not cut to fit token_budget {self.token_budget}: raise that to {wanted}, or take "
                "fewer negatives or shorter inputs"
            )

    @property
    def models(self) -> Mapping[str, nn.Module]:
        """The one trained model, `ranker`."""
        return {"ranker": self.model}

    @property
    def row_count(self) -> int:
        """Number of training rows."""
        return len(self.rows)

    @property
    def rows_per_group(self) -> int:
        """Rows are independent of each other."""
        return 1

    def describe(self, global_batch_size: int) -> str:
        """What a row is compared with."""
        attack = ", word embeddings perturbed" if self.adversarial is not None else ""
        if not isinstance(self.rows, TrainingPairs):
            return f"{self.rows.num_negatives} negatives per query (listwise{attack})"
        share = 1 / max(float(self.rows.labels.mean()), 1e-9) - 1
        return f"{share:.1f} negatives per positive (pointwise{attack})"

    def step(self, share: Share, world: World) -> Mapping[str, Tensor]:
        """Forward and backward over this rank's rows; see `Objective.step`.

        The perturbation follows the gradient of the whole global batch, so that it is the same for
        any number of workers (the released code takes each GPU's own).
        """
        micro_batches = self._micro_batches(self.rows.batch(share.rows, share.epoch))
        if self.adversarial is None:
            return {"loss": self._accumulate(micro_batches, world.device)}
        table = self.model.encoder.word_embeddings.weight
        gradient = world.mean(self._table_gradient(micro_batches, world.device))
        with perturbed(table, gradient, self.adversarial):
            return {"loss": self._accumulate(micro_batches, world.device)}

    def _accumulate(self, micro_batches: list[_Batch], device: torch.device) -> Tensor:
        """Add the gradient of the rows' mean loss to `.grad`; returns that loss."""
        total = torch.zeros((), device=device)
        for loss in self._shares(micro_batches, device):
            torch.autograd.backward(loss)
            total += loss.detach()
        return total

    def _table_gradient(self, micro_batches: list[_Batch], device: torch.device) -> Tensor:
        """Gradient of the rows' mean loss for the word embeddings alone, with dropout off."""
        table = self.model.encoder.word_embeddings.weight
        total = torch.zeros_like(table)
        self.model.eval()
        for loss in self._shares(micro_batches, device):
            total += torch.autograd.grad(loss, table)[0]
        self.model.train()
        return total

    def _shares(self, micro_batches: list[_Batch], device: torch.device) -> Iterator[Tensor]:
        """What each micro-batch contributes to the mean loss of all rows."""
        count = sum(len(batch) for batch in micro_batches)
        for batch in micro_batches:
            yield self._loss(batch, device) * (len(batch) / count)

    def _loss(self, batch: _Batch, device: torch.device) -> Tensor:
        """Mean loss of the given rows."""
        queries, passages = batch.pairs()
        sides = Sides(self.store, device, self.precision, self.token_budget)
        logits = sides.pairs(self.model, queries, passages).encode(np.arange(len(queries)))
        if isinstance(batch, TrainingPairs):
            return pointwise(logits, torch.from_numpy(batch.labels).to(device))
        absent = None if batch.absent is None else to_device(batch.absent_passages, device)
        return listwise(logits.view(len(batch), -1), absent)

    def _lengths(self, queries: IntArray, passages: IntArray) -> IntArray:
        return self.store.pair_lengths(queries, passages, self.model.pair_layout)

    def _micro_batches(self, batch: _Batch) -> list[_Batch]:
        """The rows, cut so that no micro-batch's padded pairs exceed the budget."""
        lengths = self._lengths(*batch.pairs()).reshape(len(batch), -1)
        padded = lengths.max(axis=1) * lengths.shape[1]
        return [batch.batch(at) for at in token_budget_batches(padded, self.token_budget)]
