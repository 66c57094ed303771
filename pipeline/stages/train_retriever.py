"""Stage `train_retriever`: a dual encoder trained against other queries' passages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pipeline.artifacts.kinds import (
    BASE_MODEL,
    DATASET,
    EMBEDDINGS,
    NEGATIVE_POOLS,
    RETRIEVER,
    TOKENS,
    TRAINING_LISTS,
)
from pipeline.dag.contract import Context, Input, Inputs, Outcome, Resources, stage
from pipeline.stages import query_tower
from pipeline.stages.encoder_params import EncoderParams
from pipeline.stages.refresh_params import RefreshParams
from pipeline.stages.train_params import TrainParams
from pipeline.stages.training_run import group_sizes, read_rows, run_training

if TYPE_CHECKING:
    from pipeline.artifacts.reader import Artifact
    from pipeline.artifacts.writer import ArtifactWriter
    from pipeline.methods.lists import PassageLists
    from pipeline.training.loop import TrainingPlan
    from pipeline.training.retriever import PassageCentric, RetrieverObjective
    from pipeline.training.rows import Rows
    from pipeline.training.world import World


_GROUP_SIZE = 32


class TrainRetrieverParams(TrainParams):
    """The retriever, what it is compared with, and its optimisation.

    Attributes:
        encoder: its shape. Ignored where training starts from a retriever, which keeps its own.
        negatives: `cross_batch` compares a query with all passages of the global batch (the
            paper), `in_batch` with those of its group of `in_batch_group_size` rows.
        in_batch_group_size: rows of a group, for `in_batch`.
        num_negatives: hard negatives of a row. A list with P positives and 4 P negatives gives 4 P
            rows with 1 (the paper's lines), or P rows with 4. With `refresh: every_step` the
            passages that a query finds; ADORE has 200.
        loss: of a positive and what it is compared with: `softmax` over all (the paper),
            `pairwise`, over two at a time (STAR), or `lambda_rank`, pairs weighted by the
            difference of their reciprocal ranks (ADORE).
        refresh: `{every: n}` makes the wired pools anew with the weights of every n steps while
            training goes on (ANCE). `every_step` trains the query tower alone: in every step it
            searches the wired `embeddings` for each query's nearest passages, and these are its
            negatives (ADORE); lists give queries and positives, and a retriever with one tower
            becomes one with two.
        passage_centric_weight: alpha of PAIR's first stage, (1 - alpha) L_Q + alpha L_P; 0 leaves
            L_P out (RocketQA, PAIR's second stage).
        passage_centric_form: what L_P compares a positive with beside its own query: all hard
            negatives (`paper`), or also all other queries (`released`).
        mask_known_positives: leave known positives of a row's query, and equal texts, out of its
            negatives. The released code does not.
    """

    encoder: EncoderParams = EncoderParams()
    negatives: Literal["cross_batch", "in_batch"] = "cross_batch"
    in_batch_group_size: int = Field(default=_GROUP_SIZE, ge=1)
    num_negatives: int = Field(default=1, ge=0)
    # Left out where they are not given, so that they are in no key of an earlier training.
    loss: Literal["softmax", "pairwise", "lambda_rank"] = Field(
        default="softmax", exclude_if=lambda value: value == "softmax"
    )
    refresh: Literal["every_step"] | RefreshParams | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    passage_centric_weight: float = Field(default=0.0, ge=0, le=1)
    passage_centric_form: Literal["paper", "released"] = "paper"
    mask_known_positives: bool = True

    @property
    def rows_per_group(self) -> int:
        """In-batch negatives are those of the own group."""
        return self.in_batch_group_size if self.negatives == "in_batch" else 1

    def mismatches(self, wired: Mapping[str, int], resources: Resources) -> Sequence[str]:
        """As all training, hard negatives for the passage-centric loss, and vectors to search."""
        found = [*super().mismatches(wired, resources), *query_tower.mismatches(self, wired)]
        in_groups = self.negatives == "in_batch" or self.refresh == "every_step"
        if not in_groups and self.in_batch_group_size != _GROUP_SIZE:
            found.append(
                f"in_batch_group_size {self.in_batch_group_size} is not used: negatives is "
                f"'{self.negatives}'"
            )
        if self.passage_centric_weight > 0 and self.num_negatives == 0:
            found.append("passage_centric_weight needs hard negatives: num_negatives is 0")
        if self.passage_centric_weight == 0 and self.passage_centric_form != "paper":
            found.append(
                f"passage_centric_form '{self.passage_centric_form}' is not used: "
                "passage_centric_weight is 0"
            )
        if self.passage_centric_weight > 0 and self.loss != "softmax":
            found.append(f"the passage-centric loss is a softmax, and loss is '{self.loss}'")
        if self.pool_refresh is not None:
            found += self._refresh_mismatches(self.pool_refresh, wired, resources)
        return found

    @property
    def pool_refresh(self) -> RefreshParams | None:
        """When the wired pools are made anew, if they are."""
        return self.refresh if isinstance(self.refresh, RefreshParams) else None

    def _refresh_mismatches(
        self, refresh: RefreshParams, wired: Mapping[str, int], resources: Resources
    ) -> Sequence[str]:
        found = [*refresh.mismatches(wired, resources)]
        if self.part is not None:
            found.append("refresh: versions of the pools are the parts; take `part` out")
        if self.max_steps is None:
            found.append("refresh counts steps: give `max_steps`, not epochs")
        elif (first := refresh.schedule.first_step(1)) >= self.max_steps:
            found.append(f"refresh would be in force after {first} of {self.max_steps} steps")
        return found

    def plan(self, seed: int, *models: str) -> TrainingPlan:
        """As all training, and when the pools are made anew."""
        schedule = None if self.pool_refresh is None else self.pool_refresh.schedule
        return replace(super().plan(seed, *models), refresh=schedule)

    def passage_centric(self) -> PassageCentric | None:
        """PAIR's second loss, if it has a weight."""
        from pipeline.training.retriever import PassageCentric

        if self.passage_centric_weight == 0:
            return None
        return PassageCentric(self.passage_centric_weight, self.passage_centric_form)


@dataclass(frozen=True, eq=False)
class _Prepared:
    start: Artifact
    tokens: Artifact
    dataset: Artifact
    rows: Rows
    params: TrainRetrieverParams
    plan: TrainingPlan

    @property
    def starts(self) -> Mapping[str, Artifact]:
        return {"retriever": self.start}

    def objective(self, world: World, precision: str) -> RetrieverObjective:
        from pipeline.models.dual_encoder import DualEncoder, DualEncoderConfig
        from pipeline.models.training_mode import prepare_for_training
        from pipeline.stages import tables
        from pipeline.training.retriever import RetrieverObjective

        folder = self.start.folder("model")
        model = (
            DualEncoder.load(folder)
            if self.start.kind_name == RETRIEVER.name
            else DualEncoder.from_base(
                folder, DualEncoderConfig(**self.params.encoder.model_dump())
            )
        )
        params = self.params
        return RetrieverObjective(
            model=prepare_for_training(model, world.device, params.encoder_dropout),
            store=tables.open_tokens(self.tokens),
            rows=self.rows,
            known=self._known() if params.mask_known_positives else None,
            negatives=params.negatives,
            in_batch_group_size=params.in_batch_group_size,
            passage_centric=params.passage_centric(),
            comparison=params.loss,
            token_budget=params.token_budget,
            precision=precision,  # type: ignore[arg-type]
        )

    def _known(self) -> PassageLists:
        """Labelled and suspected positives, and those that the lists themselves call positive."""
        from pipeline.methods.filters import KnownPairs
        from pipeline.stages import tables

        own = KnownPairs.of(self.rows.positive_pairs)
        labelled = tables.positives_of(self.dataset)
        return (own | labelled | tables.pairs_of(self.dataset, "excluded")).lists()

    def save(self, objective: Any, folder: Path, facts: Mapping[str, Any]) -> None:
        from pipeline.models.card import Card
        from pipeline.stages import exports

        negatives = self.params.negatives.replace("_", "-")
        how = f"A dual encoder trained with {negatives} negatives."
        exports.save_retriever(
            objective.model, self.tokens, folder, Card("Dense retriever", how, facts)
        )


@stage(
    params=TrainRetrieverParams,
    inputs={
        "base": Input((BASE_MODEL, RETRIEVER)),
        "tokens": TOKENS,
        "dataset": DATASET,
        "lists": Input((TRAINING_LISTS, NEGATIVE_POOLS), many=True),
        "embeddings": Input((EMBEDDINGS,), optional=True),
    },
    output=RETRIEVER,
    code_version=2,
    draws=True,
    libraries=("torch", "transformers"),
)
def train_retriever(
    inputs: Inputs, params: TrainRetrieverParams, writer: ArtifactWriter, context: Context
) -> Outcome:
    """Train a dual encoder on lists of positives and hard negatives."""
    from pipeline.stages import exports
    from pipeline.stages.refresh import PoolRefresher

    exports.check_retriever(inputs["base"], inputs["tokens"])
    if params.refresh == "every_step":
        return query_tower.train(inputs, params, writer, context)
    plan = params.plan(context.seed, "retriever")
    rows, lists = read_rows(inputs, params.num_negatives, plan.seed)
    prepared = _Prepared(
        inputs["base"],
        inputs["tokens"],
        inputs["dataset"],
        rows,
        params,
        plan,
    )
    refresher = None
    if plan.refresh is not None:
        refresher = PoolRefresher.open(
            inputs, params.num_negatives, plan.seed, plan.refresh, writer, context.resources
        )
    group = params.rows_per_group
    sizes = group_sizes(params.global_batch_size // group, group * (1 + params.num_negatives))
    return run_training(prepared, params.precision, lists, sizes, writer, context, refresher)
