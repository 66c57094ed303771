"""Phases: which of several models a step trains, where they take turns (AR2)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Phases:
    """Models take turns, each for its number of steps, over and over.

    Attributes:
        turns: (model, steps) in their order; each model once, each with at least one step.
    """

    turns: tuple[tuple[str, int], ...]

    def __post_init__(self) -> None:
        names = [name for name, _ in self.turns]
        if not names or len(set(names)) != len(names) or any(n < 1 for _, n in self.turns):
            raise ValueError(f"turns need each model once, with at least one step: {self.turns}")

    def check(self, total: int) -> None:
        """Raise ValueError where a training of `total` steps ends before a model's first turn."""
        idle = [name for name, _ in self.turns if not self.done(name, total)]
        if idle:
            raise ValueError(
                f"{total} steps end before the first turn of the {idle[0]}: give more steps, or "
                "shorter `turns`"
            )

    @property
    def cycle(self) -> int:
        """Steps until the first model's turn comes again."""
        return sum(steps for _, steps in self.turns)

    def at(self, step: int) -> str:
        """The model that 0-based `step` trains."""
        order = [name for name, steps in self.turns for _ in range(steps)]
        return order[step % self.cycle]

    def done(self, model: str, step: int) -> int:
        """How many of the steps before 0-based `step` were the model's own."""
        whole, left = divmod(step, self.cycle)
        found = 0
        for name, steps in self.turns:
            if name == model:
                found = whole * steps + min(left, steps)
            left = max(0, left - steps)
        return found
