"""Stage `train_joint`: retriever and ranker trained together on the same lists (RocketQAv2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pipeline.artifacts.kinds import (
    JOINT_MODELS,
    NEGATIVE_POOLS,
    RANKER,
    RETRIEVER,
    TOKENS,
    TRAINING_LISTS,
)
from pipeline.dag.contract import Context, Input, Inputs, Outcome, Params, Resources, stage
from pipeline.stages.train_params import TrainParams
from pipeline.stages.training_run import group_sizes, read_rows, run_training

if TYPE_CHECKING:
    from pipeline.artifacts.reader import Artifact
    from pipeline.artifacts.writer import ArtifactWriter
    from pipeline.training.joint import JointLoss, JointObjective
    from pipeline.training.loop import TrainingPlan
    from pipeline.training.phases import Phases
    from pipeline.training.rows import Rows
    from pipeline.training.world import World

_PRESETS: Mapping[str, Mapping[str, Any]] = {
    "stable": {
        "direction": "teacher||student",
        "reduction": "per_list",
        "teacher_gradient": False,
        "query_per_row": False,
    },
    "paper": {
        "direction": "student||teacher",
        "reduction": "per_list",
        "teacher_gradient": True,
        "query_per_row": False,
    },
    "released": {
        "direction": "teacher||student",
        "reduction": "per_element",
        "teacher_gradient": False,
        "query_per_row": True,
    },
}


class TurnsParams(Params):
    """How long each model is trained before it is the other's turn; the ranker begins.

    Attributes:
        ranker: steps of its turn (AR2: 500).
        retriever: steps of its turn (AR2: 1500).
    """

    ranker: int = Field(default=500, ge=1)
    retriever: int = Field(default=1500, ge=1)

    @property
    def phases(self) -> Phases:
        """Which model a step of a training, or of a part of one, trains."""
        from pipeline.training.phases import Phases

        return Phases((("ranker", self.ranker), ("retriever", self.retriever)))


class TrainJointParams(TrainParams):
    """What the two models learn from each other, and their optimisation.

    Attributes:
        preset: what the four parameters below are where they are not given. `paper` is
            KL(student || teacher), summed over a list, with its gradient to both models; `released`
            is KL(teacher || student), the mean over all elements, the teacher detached and the
            query encoded once per row; `stable` is the released direction with the paper's sum, the
            teacher detached and the query encoded once.
        direction: of the divergence; the retriever is the student, the ranker the teacher.
        reduction: `per_list` sums over a list and averages over lists; `per_element` averages over
            all elements, 1/m of it.
        teacher_gradient: whether the distillation's gradient reaches the ranker.
        query_per_row: encode a list's query once per passage, each time with other dropout.
        distillation: what the retriever learns from the ranker's scores: `divergence`, or
            `margin_mse`, the squared difference of the two models' margins between the positive and
            each negative (Hofstätter et al.).
        teacher: `dynamic` (the ranker goes on learning) or `static` (it stays as it comes).
        ranker_loss: the ranker's own loss: `listwise` (the paper) or `pointwise`.
        contrastive_weight: of the retriever's own softmax loss over the list (the papers: none).
        divergence_weight: of the distillation (AR2's regulariser: 1; its released code: 0.5).
        reward: what the retriever gets for negatives that the ranker takes for positives (AR2):
            `policy_gradient` is the paper's term, `reward_weighted` the released code's.
        reward_weight: of the reward's term.
        turns: the models take turns, the other one standing still (AR2); without it both are
            trained in every step (RocketQAv2).
        ranker_learning_rate: the ranker's, where it is not `learning_rate`.
        num_negatives: negatives of a list, m - 1 (the paper: 127 on MS MARCO, 31 on NQ).
        schedule: as published, `constant`.
    """

    preset: Literal["stable", "paper", "released"] = "stable"
    direction: Literal["teacher||student", "student||teacher"] | None = None
    reduction: Literal["per_list", "per_element"] | None = None
    teacher_gradient: bool | None = None
    query_per_row: bool | None = None
    # Left out where it is the divergence, so that it is in no key of such a training.
    distillation: Literal["divergence", "margin_mse"] = Field(
        default="divergence", exclude_if=lambda value: value == "divergence"
    )
    teacher: Literal["dynamic", "static"] = "dynamic"
    ranker_loss: Literal["listwise", "pointwise"] = "listwise"
    contrastive_weight: float = Field(default=0.0, ge=0)
    divergence_weight: float = Field(default=1.0, ge=0)
    reward: Literal["none", "policy_gradient", "reward_weighted"] = "none"
    reward_weight: float = Field(default=1.0, gt=0)
    turns: TurnsParams | None = None
    ranker_learning_rate: float | None = Field(default=None, gt=0, le=1)
    num_negatives: int = Field(default=31, ge=1)
    schedule: Literal["bert", "linear", "constant"] = "constant"
    learning_rate: float = Field(default=1e-5, gt=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_ratio: float = Field(default=0.0, ge=0, le=1)

    def mismatches(self, wired: Mapping[str, int], resources: Resources) -> Sequence[str]:
        """As all training, and nothing for a ranker's training where it is frozen."""
        found = [*super().mismatches(wired, resources)]
        if self.teacher == "static":
            if self.chosen("teacher_gradient"):
                found.append(
                    "the teacher is static, so no gradient reaches it: set "
                    "`teacher_gradient: false`, or `teacher: dynamic`"
                )
            if self.ranker_loss != "listwise":
                found.append(f"the teacher is static: ranker_loss '{self.ranker_loss}' is not used")
            if self.turns is not None:
                found.append("the teacher is static, so there are no turns to take")
            if self.ranker_learning_rate is not None:
                found.append("the teacher is static: it has no ranker_learning_rate")
        elif self.turns is not None and self.chosen("teacher_gradient"):
            found.append("in the retriever's turn no gradient reaches the ranker: teacher_gradient")
        if self.turns is not None and self.max_steps and self.max_steps <= self.turns.ranker:
            found.append(
                f"max_steps {self.max_steps} end with the ranker's first turn of "
                f"{self.turns.ranker}: the retriever would not be trained"
            )
        if self.reward == "none" and self.divergence_weight + self.contrastive_weight == 0:
            found.append("the retriever learns nothing: all weights are 0")
        if self.reward == "none" and self.reward_weight != 1:
            found.append(f"there is no reward: reward_weight {self.reward_weight} is not used")
        if self.distillation == "margin_mse":
            given = [name for name in ("direction", "reduction") if getattr(self, name) is not None]
            found += [f"`{name}` is of the divergence: margin_mse has none" for name in given]
            if not self.divergence_weight:
                found.append("divergence_weight is 0: distillation 'margin_mse' is not used")
        return found

    def joint_plan(self, seed: int) -> TrainingPlan:
        """How the models are trained, together or in turns."""
        if self.teacher == "static":
            return self.plan(seed, "retriever")
        plan = self.plan(seed, "retriever", "ranker")
        optimizers = dict(plan.optimizers)
        if self.ranker_learning_rate is not None:
            optimizers["ranker"] = replace(
                optimizers["ranker"], learning_rate=self.ranker_learning_rate
            )
        phases = None if self.turns is None else self.turns.phases
        return replace(plan, optimizers=optimizers, phases=phases)

    def chosen(self, name: str) -> Any:
        """A parameter's own value, or the preset's."""
        own = getattr(self, name)
        return _PRESETS[self.preset][name] if own is None else own

    def terms(self) -> JointLoss:
        """The loss."""
        from pipeline.training.joint import JointLoss

        return JointLoss(
            direction=self.chosen("direction"),
            reduction=self.chosen("reduction"),
            teacher_gradient=self.chosen("teacher_gradient"),
            ranker_loss=self.ranker_loss,
            contrastive_weight=self.contrastive_weight,
            divergence_weight=self.divergence_weight,
            reward=self.reward,
            reward_weight=self.reward_weight,
            distillation=self.distillation,
        )


@dataclass(frozen=True, eq=False)
class _Prepared:
    retriever: Artifact
    ranker: Artifact
    tokens: Artifact
    rows: Rows
    params: TrainJointParams
    plan: TrainingPlan

    @property
    def starts(self) -> Mapping[str, Artifact]:
        return {"retriever": self.retriever, "ranker": self.ranker}

    def objective(self, world: World, precision: str) -> JointObjective:
        from pipeline.models.cross_encoder import CrossEncoder
        from pipeline.models.dual_encoder import DualEncoder
        from pipeline.models.training_mode import prepare_for_training
        from pipeline.stages import tables
        from pipeline.training.joint import JointObjective

        params, device = self.params, world.device
        retriever = DualEncoder.load(self.retriever.folder("model"))
        ranker = CrossEncoder.load(self.ranker.folder("model"))
        return JointObjective(
            retriever=prepare_for_training(retriever, device, params.encoder_dropout),
            ranker=prepare_for_training(ranker, device, params.encoder_dropout),
            store=tables.open_tokens(self.tokens),
            rows=self.rows,
            terms=params.terms(),
            teacher=params.teacher,
            phases=self.plan.phases,
            query_per_row=params.chosen("query_per_row"),
            token_budget=params.token_budget,
            precision=precision,  # type: ignore[arg-type]
        )

    def save(self, objective: Any, folder: Path, facts: Mapping[str, Any]) -> None:
        from pipeline.models.card import Card
        from pipeline.stages import exports

        of = "margin" if self.params.distillation == "margin_mse" else "listwise"
        how = f"Trained together by {of} distillation with a {self.params.teacher} teacher."
        exports.save_retriever(
            objective.retriever,
            self.tokens,
            folder / "retriever",
            Card("Dense retriever", how, facts),
        )
        exports.save_ranker(
            objective.ranker, self.tokens, folder / "ranker", Card("Re-ranker", how, facts)
        )


@stage(
    params=TrainJointParams,
    inputs={
        "retriever": RETRIEVER,
        "ranker": RANKER,
        "tokens": TOKENS,
        "lists": Input((TRAINING_LISTS, NEGATIVE_POOLS), many=True),
    },
    output=JOINT_MODELS,
    code_version=2,
    draws=True,
    libraries=("torch", "transformers"),
)
def train_joint(
    inputs: Inputs, params: TrainJointParams, writer: ArtifactWriter, context: Context
) -> Outcome:
    """Train a retriever and a ranker together: the retriever learns the ranker's distribution."""
    from pipeline.stages import exports

    exports.check_retriever(inputs["retriever"], inputs["tokens"])
    exports.check_ranker(inputs["ranker"], inputs["tokens"])
    plan = params.joint_plan(context.seed)
    rows, lists = read_rows(inputs, params.num_negatives, plan.seed, whole=True)
    if plan.phases is not None:
        plan.phases.check(plan.batches(len(rows)).total_steps)
    prepared = _Prepared(
        inputs["retriever"],
        inputs["ranker"],
        inputs["tokens"],
        rows,
        params,
        plan,
    )
    # Both models take every passage of a list.
    sizes = group_sizes(params.global_batch_size, 2 * (1 + params.num_negatives))
    return run_training(prepared, params.precision, lists, sizes, writer, context)
