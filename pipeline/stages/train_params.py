"""Parameters that all training stages share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline.dag.contract import Params, Resources

if TYPE_CHECKING:
    from pipeline.training.loop import TrainingPlan
    from pipeline.training.optimizer import OptimizerPlan


class PartParams(Params):
    """Which part of one training in several this is: rounds with new negatives, for instance.

    The learning rate goes on along one schedule over all parts, and the optimizer with the moments
    of the part before, which the stage starts from. All parts take `max_steps`.

    Attributes:
        number: 1, 2, …; in a group of rounds `"{round}"`.
        of: how many there are, for a schedule that ends. It is in the keys of all parts: where it
            is left out, rounds can be added and those that are done stay, with a `constant` rate.
    """

    number: int = Field(ge=1)
    of: int | None = Field(default=None, ge=1)


class TrainParams(Params):
    """Optimisation, batches and checkpoints.

    Attributes:
        global_batch_size: rows of a step over all workers; the workers must divide it.
        num_train_epochs: passes over the rows.
        max_steps: number of steps, in place of `num_train_epochs`.
        learning_rate: the peak.
        schedule: `bert` (warm-up, then not re-based decay: the released retriever training),
            `linear` (warm-up, then linear to 0), `constant`.
        warmup_ratio: share of the steps that warm up.
        optimizer: `adamw`, or `lamb` (PAIR on MS MARCO).
        weight_decay: decoupled (`lamb`: part of the update); not on biases and LayerNorm.
        max_grad_norm: gradients are clipped to this global norm.
        encoder_dropout: in the encoder's layers and attention; by default what its checkpoint says.
        precision: of the matrix products; `auto` is bfloat16 where the device computes in it.
        token_budget: padded tokens that a worker puts through the model at once; a larger batch
            goes through in pieces.
        checkpoint_steps: a checkpoint is kept every so many steps.
        replicate: another number is another run: other batches, other dropout, other head.
        part: of a training in several parts.
    """

    global_batch_size: int = Field(default=32, ge=1)
    num_train_epochs: float = Field(default=1.0, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    learning_rate: float = Field(default=3e-5, gt=0, le=1)
    schedule: Literal["bert", "linear", "constant"] = "bert"
    warmup_ratio: float = Field(default=0.1, ge=0, le=1)
    optimizer: Literal["adamw", "lamb"] = "adamw"
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    encoder_dropout: float | None = Field(default=None, ge=0, lt=1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    token_budget: int = Field(default=8192, ge=1)
    checkpoint_steps: int = Field(default=500, ge=1)
    replicate: int = Field(default=0, ge=0)
    # Left out where it is not given, so that it is in no key of a training in one piece.
    part: PartParams | None = Field(default=None, exclude_if=lambda value: value is None)

    @property
    def rows_per_group(self) -> int:
        """Rows of the global batch that stay together on one worker."""
        return 1

    def mismatches(self, wired: Mapping[str, int], resources: Resources) -> Sequence[str]:
        """A global batch that the workers can share, and parts of equal length."""
        part = self.part
        if part is not None and part.of is not None and part.number > part.of:
            return (f"part {part.number} of {part.of} parts",)
        if part is not None and part.of is None and self.schedule != "constant":
            return (f"schedule '{self.schedule}' ends: say `of` how many parts, or `constant`",)
        if part is not None and self.max_steps is None:
            return ("parts are equally long: give `max_steps`, not epochs",)
        batch, group, workers = self.global_batch_size, self.rows_per_group, resources.workers
        if batch % group:
            return (f"global_batch_size {batch} is no multiple of in_batch_group_size {group}",)
        if isinstance(workers, int) and workers > 1 and batch % (workers * group):
            whole = f" in whole groups of {group}" if group > 1 else ""
            return (
                f"{workers} workers cannot share a global batch of {batch} rows evenly{whole}: "
                "change `workers` or `global_batch_size`",
            )
        return ()

    def optimizer_plan(self) -> OptimizerPlan:
        """How one model is updated."""
        from pipeline.training.optimizer import OptimizerPlan

        return OptimizerPlan(
            learning_rate=self.learning_rate,
            name=self.optimizer,
            weight_decay=self.weight_decay,
            max_gradient_norm=self.max_grad_norm,
            schedule=self.schedule,
            warmup_ratio=self.warmup_ratio,
        )

    def plan(self, seed: int, *models: str) -> TrainingPlan:
        """The training of one or more models, by the names their objective gives them."""
        from pipeline.training.batches import part_seed
        from pipeline.training.loop import TrainingPlan

        part = None if self.part is None else (self.part.number, self.part.of)
        return TrainingPlan(
            seed=part_seed(seed + self.replicate, part[0] if part else 1),
            part=part,
            global_batch_size=self.global_batch_size,
            optimizers=dict.fromkeys(models, self.optimizer_plan()),
            num_train_epochs=self.num_train_epochs,
            max_steps=self.max_steps,
            checkpoint_steps=self.checkpoint_steps,
        )
