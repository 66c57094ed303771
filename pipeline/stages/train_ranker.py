"""Stage `train_ranker`: a cross-encoder trained on the retriever's own errors (RocketQA step 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pipeline.artifacts.kinds import (
    BASE_MODEL,
    NEGATIVE_POOLS,
    RANKER,
    RETRIEVER,
    TOKENS,
    TRAINING_LISTS,
)
from pipeline.dag.contract import Context, Input, Inputs, Outcome, stage
from pipeline.stages.train_params import TrainParams
from pipeline.stages.training_run import group_sizes, read_pairs, read_rows, run_training

if TYPE_CHECKING:
    from pipeline.artifacts.reader import Artifact
    from pipeline.artifacts.writer import ArtifactWriter
    from pipeline.models.cross_encoder import CrossEncoder, CrossEncoderConfig
    from pipeline.training.loop import TrainingPlan
    from pipeline.training.ranker import RankerObjective
    from pipeline.training.rows import Rows, TrainingPairs
    from pipeline.training.world import World


class TrainRankerParams(TrainParams):
    """The ranker's head and loss, and its optimisation.

    Attributes:
        head: `pooled_two_class` (the paper: tanh pooler, two classes), `cls_logit` (one linear
            layer on the first token), `mean_logit` (on the mean of all tokens: for bases that
            are mean-pooled sentence encoders), or `interaction` (for a retriever with a shared
            tower as `base`: starts from the retriever's own similarities and opens attention
            between query and passage as it learns).
        fresh_head: where training starts from a ranker, whether a new `head` takes the place of its
            own (RocketQAv2), which it keeps otherwise.
        dropout: before the last layer.
        loss: `pointwise` over single pairs (the paper), or `listwise` over a positive and its
            negatives.
        num_negatives: negatives of a list, for `listwise`.
        adversarial: length of the perturbation of the word embeddings (the released code: 0.01);
            none by default.
    """

    head: Literal["pooled_two_class", "cls_logit", "mean_logit", "interaction"] = "pooled_two_class"
    fresh_head: bool = False
    dropout: float = Field(default=0.1, ge=0, lt=1)
    loss: Literal["pointwise", "listwise"] = "pointwise"
    num_negatives: int = Field(default=4, ge=1)
    adversarial: float | None = Field(default=None, gt=0)
    schedule: Literal["bert", "linear", "constant"] = "constant"
    learning_rate: float = Field(default=1e-5, gt=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_ratio: float = Field(default=0.0, ge=0, le=1)


@dataclass(frozen=True, eq=False)
class _Prepared:
    start: Artifact
    tokens: Artifact
    rows: TrainingPairs | Rows
    params: TrainRankerParams
    plan: TrainingPlan

    @property
    def starts(self) -> Mapping[str, Artifact]:
        return {"ranker": self.start}

    def objective(self, world: World, precision: str) -> RankerObjective:
        import torch

        from pipeline.models.training_mode import prepare_for_training
        from pipeline.stages import tables
        from pipeline.training.ranker import RankerObjective

        # The head's fresh weights are drawn, alike on every rank.
        torch.manual_seed(self.plan.seed)
        return RankerObjective(
            model=prepare_for_training(self._model(), world.device, self.params.encoder_dropout),
            store=tables.open_tokens(self.tokens),
            rows=self.rows,
            adversarial=self.params.adversarial,
            token_budget=self.params.token_budget,
            precision=precision,  # type: ignore[arg-type]
        )

    def _model(self) -> CrossEncoder:
        from pipeline.models.cross_encoder import CrossEncoder
        from pipeline.stages import exports

        folder, config = exports.encoder_folder(self.start), _config(self.start, self.params)
        if self.start.kind_name == RANKER.name:
            model = CrossEncoder.load(folder)
            return CrossEncoder(model.encoder, config) if self.params.fresh_head else model
        return CrossEncoder.from_base(folder, config)

    def save(self, objective: Any, folder: Path, facts: Mapping[str, Any]) -> None:
        from pipeline.models.card import Card
        from pipeline.stages import exports

        how = f"A cross-encoder trained with a {self.params.loss} loss."
        exports.save_ranker(objective.model, self.tokens, folder, Card("Re-ranker", how, facts))


def _config(start: Artifact, params: TrainRankerParams) -> CrossEncoderConfig:
    """The head: a ranker's own where training goes on from it, else the parameters'."""
    from pipeline.models.cross_encoder import CrossEncoderConfig, Ranker

    if start.kind_name == RANKER.name and not params.fresh_head:
        return Ranker.read(start.folder("model")).config
    return CrossEncoderConfig(head=params.head, dropout=params.dropout)


@stage(
    params=TrainRankerParams,
    inputs={
        "base": Input((BASE_MODEL, RETRIEVER, RANKER)),
        "tokens": TOKENS,
        "lists": Input((TRAINING_LISTS, NEGATIVE_POOLS), many=True),
    },
    output=RANKER,
    code_version=2,
    draws=True,
    libraries=("torch", "transformers"),
)
def train_ranker(
    inputs: Inputs, params: TrainRankerParams, writer: ArtifactWriter, context: Context
) -> Outcome:
    """Train a cross-encoder to tell positives from the retriever's candidates."""
    from pipeline.stages import exports

    exports.check_ranker(inputs["base"], inputs["tokens"], _config(inputs["base"], params))
    plan = params.plan(context.seed, "ranker")
    rows: TrainingPairs | Rows
    if params.loss == "pointwise":
        rows, lists = read_pairs(inputs)
    else:
        rows, lists = read_rows(inputs, params.num_negatives, plan.seed)
    prepared = _Prepared(inputs["base"], inputs["tokens"], rows, params, plan)
    pairs = 1 if params.loss == "pointwise" else 1 + params.num_negatives
    sizes = group_sizes(params.global_batch_size, pairs)
    return run_training(prepared, params.precision, lists, sizes, writer, context)
