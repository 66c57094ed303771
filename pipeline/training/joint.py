"""Training a retriever and a ranker on the same lists: together (RocketQAv2) or in turns (AR2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.methods.distillation import (
    Direction,
    Distillation,
    Reduction,
    list_divergence,
    margin_mse,
)
from pipeline.methods.losses import listwise, pointwise
from pipeline.methods.ranker_reward import policy_gradient, reward_weighted, rewards
from pipeline.models.cross_encoder import CrossEncoder
from pipeline.models.device import Precision
from pipeline.models.dual_encoder import DualEncoder
from pipeline.text.store import TokenStore
from pipeline.training.batches import Share
from pipeline.training.gradient_cache import backward, embeddings
from pipeline.training.phases import Phases
from pipeline.training.rows import Rows
from pipeline.training.sides import Sides
from pipeline.training.world import World

Reward = Literal["none", "policy_gradient", "reward_weighted"]


@dataclass(frozen=True)
class JointLoss:
    """What the two models learn from a list: the ranker its label, the retriever from the ranker.

    Attributes:
        direction: of the divergence between the retriever's (student) and the ranker's (teacher)
            distribution over the list.
        reduction: of the divergence.
        teacher_gradient: whether the distillation's gradient reaches the ranker, too.
        ranker_loss: the ranker's own loss over the list.
        contrastive_weight: of the retriever's listwise loss; the papers have none.
        divergence_weight: of the divergence, or of what stands in its place.
        reward: the retriever's reward for negatives that the ranker takes for positives (AR2): as a
            `policy_gradient`, or `reward_weighted` as in the released code.
        reward_weight: of that term.
        distillation: the divergence, or the squared difference of margins in its place.
    """

    direction: Direction = "teacher||student"
    reduction: Reduction = "per_list"
    teacher_gradient: bool = False
    ranker_loss: Literal["listwise", "pointwise"] = "listwise"
    contrastive_weight: float = 0.0
    divergence_weight: float = 1.0
    reward: Reward = "none"
    reward_weight: float = 1.0
    distillation: Distillation = "divergence"

    def distilled(self) -> str:
        """What the retriever learns from the ranker's scores, in words."""
        if self.distillation == "margin_mse":
            return "MarginMSE"
        return f"KL({self.direction}) {self.reduction.replace('_', ' ')}"


@dataclass(frozen=True, eq=False)
class JointObjective:
    """Both models score a list: the ranker learns its label, the retriever the ranker's scores.

    Attributes:
        retriever: trained in place; on the device of the `World` it is trained in.
        ranker: trained in place with a `dynamic` teacher, frozen with a `static` one.
        store: inputs of queries, passages and pairs.
        rows: the lists, each a query with its positive and m - 1 negatives.
        terms: the loss.
        teacher: whether the ranker goes on learning.
        phases: the models take turns: a step trains one of them, the other is not touched.
        query_per_row: encode a list's query once per passage, each time with dropout of its own,
            as the released code does, instead of once.
        token_budget: padded tokens of a micro-batch; larger batches go through the gradient cache.
        precision: of the encoders' matrix products; scores and loss are float32.
    """

    retriever: DualEncoder
    ranker: CrossEncoder
    store: TokenStore
    rows: Rows
    terms: JointLoss = JointLoss()
    teacher: Literal["dynamic", "static"] = "dynamic"
    phases: Phases | None = None
    query_per_row: bool = False
    token_budget: int = 16384
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.rows.ragged:
            raise ValueError(
                f"some lists have fewer than {self.rows.num_negatives} negatives, and both models "
                "score whole lists: make them with `starved: fill` or `drop`"
            )
        if self.teacher == "static":
            self.ranker.eval().requires_grad_(False)

    @property
    def models(self) -> Mapping[str, nn.Module]:
        """`retriever`, and `ranker` where it is trained."""
        if self.teacher == "static":
            return {"retriever": self.retriever}
        return {"retriever": self.retriever, "ranker": self.ranker}

    @property
    def row_count(self) -> int:
        """Number of lists."""
        return len(self.rows)

    @property
    def rows_per_group(self) -> int:
        """A list is one row, so no list is ever divided between ranks."""
        return 1

    def describe(self, global_batch_size: int) -> str:
        """What is distilled into what."""
        terms = self.terms
        line = (
            f"lists of {1 + self.rows.num_negatives} passages, {terms.distilled()}, "
            f"{self.teacher} teacher"
        )
        if terms.reward != "none":
            line += f", reward x {terms.reward_weight:g}"
        if self.phases is not None:
            line += ", in turns: " + ", ".join(f"{model} {n}" for model, n in self.phases.turns)
        return line

    def step(self, share: Share, world: World) -> Mapping[str, Tensor]:
        """Forward and backward over this rank's lists; see `Objective.step`."""
        batch = self.rows.batch(share.rows, share.epoch)
        queries, lists = batch.query_indices, batch.passages
        repeated, passages = batch.pairs()
        sides = Sides(self.store, world.device, self.precision, self.token_budget)
        pairs = sides.pairs(self.ranker, repeated, passages)
        turn = None if self.phases is None else self.phases.at(share.step)
        if turn == "ranker":
            self.ranker.train()
            total = backward(
                [pairs], lambda logits: self._ranker_loss(logits.view(lists.shape)), world.device
            )
            return {"loss": total, "ranker_loss": total}
        encoded = [
            sides.queries(self.retriever, repeated if self.query_per_row else queries),
            sides.passages(self.retriever, passages),
        ]
        shown: dict[str, Tensor] = {}

        def loss(query_vectors: Tensor, passage_vectors: Tensor, logits: Tensor) -> Tensor:
            student = self._scores(query_vectors, passage_vectors, lists.shape)
            teacher = logits.view(lists.shape)
            terms = self._terms(student, teacher, world.size)
            if self.teacher == "dynamic" and turn is None:
                terms["ranker_loss"] = self._ranker_loss(teacher)
            shown.update(terms)
            return torch.stack(list(terms.values())).sum()

        if self.teacher == "static" or turn == "retriever":
            self.ranker.eval()
            logits = embeddings(pairs, world.device)
            total = backward(encoded, lambda q, p: loss(q, p, logits), world.device)
        else:
            total = backward([*encoded, pairs], loss, world.device)
        return {"loss": total, **shown}

    def _scores(self, queries: Tensor, passages: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The retriever's scores over its temperature, [B, m]."""
        width = passages.shape[-1]
        each = queries.view(shape[0], -1, width)
        scores = (each * passages.view(*shape, width)).sum(dim=-1)
        return scores / self.retriever.config.temperature

    def _terms(self, student: Tensor, teacher: Tensor, ranks: int) -> dict[str, Tensor]:
        """The summands of the retriever's loss by name, of which the ranks take the mean."""
        terms, seen = self.terms, teacher
        if not terms.teacher_gradient:
            seen = teacher.detach()
        found: dict[str, Tensor] = {}
        if terms.divergence_weight and terms.distillation == "margin_mse":
            found["margin_mse"] = terms.divergence_weight * margin_mse(student, seen)
        elif terms.divergence_weight:
            divergence = list_divergence(student, seen, terms.direction, terms.reduction)
            found["divergence"] = terms.divergence_weight * divergence
        if terms.reward == "policy_gradient":
            found["reward"] = terms.reward_weight * policy_gradient(student, rewards(teacher))
        elif terms.reward == "reward_weighted":
            # A sum over the global batch, however many share it.
            term = ranks * reward_weighted(student, rewards(teacher))
            found["reward"] = terms.reward_weight * term
        if terms.contrastive_weight:
            found["contrastive"] = terms.contrastive_weight * listwise(student)
        return found

    def _ranker_loss(self, logits: Tensor) -> Tensor:
        if self.terms.ranker_loss == "listwise":
            return listwise(logits)
        labels = torch.zeros_like(logits)
        labels[:, 0] = 1
        return pointwise(logits.flatten(), labels.flatten())
