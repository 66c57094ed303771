"""When a training exchanges its negatives for those that its own weights have found (ANCE)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RefreshSchedule:
    """Which version of the rows each step trains on: a function of the step alone.

    Version 0 are the rows that training begins with. Version k is made with the weights after
    k * every steps, and is in force from `lag` steps later on, until the next one is: a step trains
    on negatives that lag ... lag + every - 1 steps older weights have found.

    Attributes:
        every: steps between two versions, at least 1.
        lag: steps until a version is in force, at most `every`: one is in the making at a time.
    """

    every: int
    lag: int

    def __str__(self) -> str:
        when = f"{self.lag} steps later" if self.lag else "at once"
        return f"negatives anew with the weights of every {self.every} steps, in force {when}"

    def version(self, step: int) -> int:
        """The version that 0-based `step` trains on."""
        return max(0, (step - self.lag) // self.every)

    def encoder_step(self, version: int) -> int:
        """The steps that the weights of a version had been trained for."""
        return version * self.every

    def first_step(self, version: int) -> int:
        """The 0-based step from which on a version is in force."""
        return version * self.every + self.lag if version else 0

    def due(self, done: int, total: int) -> int | None:
        """The version to be made with the weights after `done` steps of `total`, if any is."""
        version, rest = divmod(done, self.every)
        return version if not rest and version and self.first_step(version) < total else None

    def needed(self, done: int) -> range:
        """Versions that a training that goes on after `done` steps does not hand over itself."""
        return range(self.version(done - 1), done // self.every + 1)
