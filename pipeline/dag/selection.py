"""Which stages a run is about: `--only`, `--from`, `--until`, `--force`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pipeline.dag.plan import Plan, PlannedStage, State
from pipeline.dag.specification import Pipeline
from pipeline.dag.yaml_nodes import Position, Problem, SpecificationError, nearest


@dataclass(frozen=True)
class Selection:
    """Stage names, or patterns with `*`, as given on the command line.

    Attributes:
        only: these stages and no others.
        start: these and all that depend on them.
        until: these and all that they depend on.
        force: these run again, and so does all that depends on them.
    """

    only: Sequence[str] = ()
    start: Sequence[str] = ()
    until: Sequence[str] = ()
    force: Sequence[str] = ()

    def names(self, pipeline: Pipeline) -> set[str]:
        """The stages to run, cached or not; raises SpecificationError for unknown names."""
        chosen = set(pipeline.names)
        if self.only:
            chosen &= matching(pipeline, self.only, "--only")
        if self.start:
            chosen &= pipeline.below(matching(pipeline, self.start, "--from"))
        if self.until:
            chosen &= pipeline.above(matching(pipeline, self.until, "--until"))
        if not chosen:
            raise SpecificationError([self._nothing()])
        stray = self.forced(pipeline) - chosen
        if stray:
            message = f"'{min(stray)}' is not among the stages that the other options choose"
            raise SpecificationError([Problem(Position("--force"), message)])
        return chosen

    def _nothing(self) -> Problem:
        every = {"--only": self.only, "--from": self.start, "--until": self.until}
        given = {option: names for option, names in every.items() if names}
        said = " and ".join(f"{option} {','.join(names)}" for option, names in given.items())
        message = f"no stage is chosen by {said} at once, so there is nothing to do"
        return Problem(Position(", ".join(given)), message)

    def forced(self, pipeline: Pipeline) -> set[str]:
        """The stages named by `--force`; raises SpecificationError for unknown names."""
        return matching(pipeline, self.force, "--force")


def matching(pipeline: Pipeline, patterns: Iterable[str], option: str) -> set[str]:
    """The stages that the patterns name; raises SpecificationError where one names none."""
    found: set[str] = set()
    problems = []
    for pattern in patterns:
        hits = {name for name in pipeline.names if fnmatchcase(name, pattern)}
        if not hits:
            message = f"no stage is called '{pattern}'{nearest(pattern, pipeline.names)}"
            problems.append(Problem(Position(option), message))
        found |= hits
    if problems:
        raise SpecificationError(problems)
    return found


def check_runnable(plan: Plan, chosen: set[str]) -> None:
    """Raise SpecificationError unless every chosen stage can run once those before it have run."""
    problems = []
    # What is there when a stage's turn has come, whichever of several equal stages made it.
    made = {planned.key for planned in plan.stages if planned.state is State.CACHED}
    for planned in plan.stages:
        if planned.name not in chosen:
            continue
        if planned.state is State.UNKNOWN:
            messages = _unknown(plan, chosen, planned)
        elif planned.state is State.CACHED:
            messages = []
        else:
            messages = [
                f"'{planned.name}' needs '{parent}', which has no result: run it first"
                for parent in planned.stage.parents
                if parent not in chosen and plan[parent].key not in made
            ]
        problems += [Problem(planned.stage.position, message) for message in messages]
        made.add(planned.key)
    if problems:
        raise SpecificationError(problems)


def _unknown(plan: Plan, chosen: set[str], planned: PlannedStage) -> list[str]:
    """Why a stage's key is not known, where no chosen stage above it says so."""
    above = [p for p in planned.stage.parents if plan[p].state is State.UNKNOWN]
    if not above:
        return [f"'{planned.name}': {planned.reason}"]
    stray = next((parent for parent in above if parent not in chosen), None)
    if stray is None:
        return []
    cause = plan[stray]
    while unknown := [p for p in cause.stage.parents if plan[p].state is State.UNKNOWN]:
        cause = plan[unknown[0]]
    return [f"'{planned.name}' needs '{cause.name}': {cause.reason}"]
