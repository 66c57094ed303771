"""Training journals as lines and times: one JSON line was written in every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.reports.plots import Bar, Line

_NORM: Final = "gradient_norm"


@dataclass(frozen=True, eq=False)
class Journal:
    """What a training wrote down.

    Attributes:
        name: of the training.
        steps: a mapping for each step, with `step`, `loss`, `rows_per_second`, and the gradient
            norm of each model that was trained in it.
        batch: rows of a step.
        device: what it ran on.
    """

    name: str
    steps: Sequence[Mapping[str, Any]]
    batch: int
    device: str

    @cached_property
    def milliseconds(self) -> npt.NDArray[np.float64]:
        """How long each step took."""
        return np.array([1000 * self.batch / step["rows_per_second"] for step in self.steps])

    @property
    def step_time(self) -> Bar:
        """The median step, and the middle half of all."""
        low, median, high = np.quantile(self.milliseconds, [0.25, 0.5, 0.75]).tolist()
        return Bar(self.name, median, low, high)

    def summary(self) -> dict[str, Any]:
        """Its numbers, as JSON."""
        time = self.step_time
        return {
            "steps": len(self.steps),
            "rows_per_step": self.batch,
            "milliseconds_per_step": {"median": time.value, "25%": time.low, "75%": time.high},
            "last": dict(self.steps[-1]),
            "device": self.device,
        }

    @property
    def losses(self) -> list[Line]:
        """The loss by step; where models take turns, of each of them."""
        turns = {_models(step) for step in self.steps}
        return [
            self._line([step for step in self.steps if _models(step) == models], "loss", said)
            for models in sorted(turns)
            for said in ["" if len(turns) == 1 else " and ".join(models)]
        ]

    @property
    def norms(self) -> list[Line]:
        """The norm of each model's gradient by step."""
        models = sorted({model for step in self.steps for model in _models(step)})
        return [
            self._line([step for step in self.steps if key in step], key, model)
            for model in models
            for key in [f"{model}_{_NORM}" if model else _NORM]
        ]

    def _line(self, steps: Sequence[Mapping[str, Any]], key: str, of: str) -> Line:
        x, y = (np.array([step[name] for step in steps]) for name in ("step", key))
        return Line(f"{self.name}, {of}" if of else self.name, x, y)


def _models(step: Mapping[str, Any]) -> tuple[str, ...]:
    """The models that were trained in a step; one alone has no name."""
    return tuple(key.removesuffix(_NORM).rstrip("_") for key in sorted(step) if key.endswith(_NORM))
