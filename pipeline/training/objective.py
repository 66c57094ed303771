"""What a training loop is handed: what is trained, and where progress is shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

from pipeline.training.batches import Share
from pipeline.training.world import World


class Progress(Protocol):
    """Where the loop shows how far it is. Only rank 0's is used."""

    def start(self, what: str, total: int | None, unit: str = "rows") -> None:
        """Begin counting `what` up to `total`."""

    def advance(self, amount: int) -> None:
        """Count `amount` more as done."""

    def note(self, text: str) -> None:
        """Show a line."""


class Objective(Protocol):
    """What is trained, on which rows, with which loss."""

    @property
    def models(self) -> Mapping[str, nn.Module]:
        """The trained models by name; each has its own optimizer, and is saved in checkpoints."""

    @property
    def row_count(self) -> int:
        """Number of training rows; steps are handed row numbers below it."""

    @property
    def rows_per_group(self) -> int:
        """Rows that must stay on one rank together: a rank's share is a multiple of it."""

    def describe(self, global_batch_size: int) -> str:
        """What a global batch compares, for the line shown at the start."""

    def step(self, share: Share, world: World) -> Mapping[str, Tensor]:
        """Leave in `.grad` this rank's gradient, whose mean over the ranks is the global one.

        Random draws come from torch's default generators, which the loop has seeded. A model whose
        parameters all stay without a gradient is not updated in this step.

        Args:
            share: this rank's part of the global batch.
            world: for gathering; every rank makes the same calls.

        Returns:
            Scalars whose mean over the ranks is wanted in the metrics; `loss` among them.
        """
