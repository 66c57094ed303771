"""The metrics of a training run: JSON lines, one a step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

# What a line tells that is no measurement of its step.
_NO_MEANS = (
    "step",
    "epoch",
    "negatives_of_step",
    "seconds_waited",
    "overlap_with_previous",
    "pools",
)


class Journal:
    """Writes one line a step; a journal without a file writes nothing (ranks other than 0).

    Its file travels inside the checkpoints, so a run resumed elsewhere still has every line.
    """

    def __init__(self, file: Path | None) -> None:
        self.file = file

    def restart(self, saved: Path | None, done: int) -> None:
        """Begin with the lines of `saved` up to step `done`, whatever the file held before."""
        if self.file is None:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        lines = saved.read_text().splitlines() if saved else []
        kept = [line for line in lines if json.loads(line)["step"] <= done]
        self.file.write_text("".join(f"{line}\n" for line in kept))

    def write(self, metrics: Mapping[str, Any]) -> None:
        """Append one step's metrics."""
        if self.file is not None:
            with self.file.open("a") as stream:
                stream.write(json.dumps(metrics) + "\n")

    def copy_to(self, target: Path) -> None:
        """Copy the file as it stands."""
        if self.file is not None:
            shutil.copyfile(self.file, target)

    def means(self, last: int) -> dict[str, float]:
        """Means over the `last` lines of what is measured in each; empty without a file."""
        if self.file is None:
            return {}
        lines = [json.loads(line) for line in self.file.read_text().splitlines()[-last:]]
        # Where models take turns, not every step has every metric.
        found: dict[str, list[float]] = {}
        for line in lines:
            for name, value in line.items():
                found.setdefault(name, []).append(value)
        return {
            name: float(np.mean(values)) for name, values in found.items() if name not in _NO_MEANS
        }
