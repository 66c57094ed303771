"""Where a training run keeps its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class CheckpointStore(Protocol):
    """Keeps folders by step, such as `pipeline.artifacts.checkpoints.StoreCheckpoints`."""

    def save(self, step: int, folder: Path) -> None:
        """Keep the files of `folder` as the checkpoint of `step`, wholly or not at all."""

    def steps(self) -> list[int]:
        """The steps of the checkpoints that are kept."""

    def latest(self) -> tuple[int, Path] | None:
        """The newest undamaged checkpoint as (step, local folder), or None."""
