"""Checks how the stages of a pipeline are wired: names, kinds, missing inputs, circles."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from pipeline.dag import yaml_nodes as nodes
from pipeline.dag.contract import Input, Params, Resources, StageType
from pipeline.dag.yaml_nodes import Position, Problem, nearest

MADE_BY = "; made by "
MOST_MAKERS = 6


@dataclass(frozen=True)
class Draft:
    """A stage whose own keys are read, and whose wiring is not yet checked.

    Attributes:
        at: where the stage as a whole stands.
        inputs: the mapping of inputs as written.
        wired: the names written for each input, with their places.
        params: None where they are wrong.
        resources: None where they are wrong.
        problems: the mistakes found in this stage so far.
    """

    name: str
    at: Position
    type: StageType | None
    inputs: nodes.Mapping
    wired: dict[str, list[tuple[str, Position]]] = field(default_factory=dict)
    params: Params | None = None
    resources: Resources | None = None
    problems: list[Problem] = field(default_factory=list)

    def report(self, position: Position, message: str) -> None:
        """Note a mistake."""
        self.problems.append(Problem(position, message))


@dataclass(frozen=True)
class Wiring:
    """The drafts of a pipeline, whose wired names are checked against each other.

    Attributes:
        drafts: the stages by name, in the order of the file.
        is_unsettled: whether a name may come to be, or to mean more, once the groups of `repeat`
            are right.
        before_first: names that stages of round 1 have for what is of the round before.
    """

    drafts: Mapping[str, Draft]
    is_unsettled: Callable[[str], bool]
    before_first: Collection[str] = ()

    def resolve(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """The stages of each stage's inputs, patterns written out; mistakes go to the drafts."""
        return {name: self._inputs(draft) for name, draft in self.drafts.items()}

    def _inputs(self, draft: Draft) -> dict[str, tuple[str, ...]]:
        declared = draft.type.inputs if draft.type else {}
        found: dict[str, tuple[str, ...]] = {}
        for key in draft.wired:
            if draft.type and key not in declared:
                message = f"stage type '{draft.type.name}' has no input '{key}'"
                at = draft.inputs.key_position(key)
                draft.report(at, message + nearest(key, declared))
            found[key] = tuple(self._existing(draft, key, declared.get(key)))
        for key, wanted in declared.items():
            if not wanted.optional and not draft.inputs.entries.get(key):
                self._missing(draft, key, wanted)
        # How many stages a name stands for is not known where it stands for none yet.
        names = [name for written in draft.wired.values() for name, _ in written]
        if draft.type and draft.params and not any(map(self._is_open, names)):
            counts = {
                key: len(found[key])
                + sum(not self._matches(draft, name, declared.get(key)) for name, _ in written)
                for key, written in draft.wired.items()
            }
            resources = draft.resources or Resources()
            for message in draft.params.mismatches(counts, resources):
                draft.report(draft.at, f"stage '{draft.name}' ({draft.type.name}): {message}")
        return found

    def _missing(self, draft: Draft, key: str, wanted: Input) -> None:
        # Where the input was taken out, or else where others are wired.
        written = draft.inputs.entries or key in draft.inputs.keys
        at = draft.inputs.key_position(key) if written else draft.at
        kind = draft.type.name if draft.type else ""
        message = f"stage '{draft.name}' ({kind}) needs input '{key}', {wanted.wanted()}"
        draft.report(at, message + self._makers(draft, wanted))

    def _makers(self, draft: Draft, wanted: Input) -> str:
        """A hint: the stages whose results fit."""
        makers = [
            other.name
            for other in self.drafts.values()
            if other.type and other is not draft and wanted.accepts(other.type.output)
        ]
        more = ", …" if len(makers) > MOST_MAKERS else ""
        return MADE_BY + ", ".join(makers[:MOST_MAKERS]) + more if makers else ""

    def _existing(self, draft: Draft, key: str, declared: Input | None) -> list[str]:
        node = draft.inputs.entries[key]
        if isinstance(node, nodes.Sequence):
            if declared and not declared.many:
                message = f"input '{key}' of '{draft.name}' takes one stage, no list"
                draft.report(node.position, message)
            if not node.items:
                draft.report(node.position, f"input '{key}' of '{draft.name}' is an empty list")
        found = []
        for name, at in draft.wired[key]:
            matches = self._matches(draft, name, declared)
            if not matches and not self.is_unsettled(name):
                draft.report(at, f"no stage is called '{name}'{self._instead(name)}")
            for match in matches:
                self._check_kind(draft, key, declared, self.drafts[match], at)
            # A pattern adds the others to what stands before it.
            found += matches if name in matches else [n for n in matches if n not in found]
        return found

    def _instead(self, name: str) -> str:
        if name in self.before_first:
            return ": round 1 has none before it; say below `first` where it starts"
        return nearest(name, self.drafts)

    def _matches(self, draft: Draft, name: str, declared: Input | None) -> list[str]:
        if declared and declared.many and "*" in name:
            return [n for n in self.drafts if fnmatchcase(n, name) and n != draft.name]
        return [name] if name in self.drafts else []

    def _is_open(self, name: str) -> bool:
        """Whether a pattern's stages cannot be counted as long as other mistakes are there."""
        matches = [other for other in self.drafts if fnmatchcase(other, name)]
        return "*" in name and (not matches or any(map(self.is_unsettled, (name, *matches))))

    def _check_kind(
        self, draft: Draft, key: str, declared: Input | None, giver: Draft, at: Position
    ) -> None:
        if declared is None or giver.type is None or declared.accepts(giver.type.output):
            return
        draft.report(
            at,
            f"input '{key}' of '{draft.name}' takes {declared.wanted()}, "
            f"but '{giver.name}' ({giver.type.name}) makes {giver.type.output.name}"
            + self._makers(draft, declared),
        )


def circles(parents: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Circles that share no arrow, each along its arrows and with its first stage again at the end.

    Args:
        parents: the stages that each stage reads from; of a circle, the first of them comes first.
    """
    left = {name: set(given) for name, given in parents.items()}
    ranks = {name: rank for rank, name in enumerate(parents)}
    found: list[list[str]] = []
    while True:
        try:
            TopologicalSorter(left).prepare()
        except CycleError as error:
            circle: list[str] = error.args[1]
        else:
            return found
        for before, after in pairwise(circle):
            left[after].discard(before)
        start = circle.index(min(circle, key=ranks.__getitem__))
        found.append([*circle[start:-1], *circle[:start], circle[start]])


def each_once(drafts: Iterable[Draft], templates: Mapping[str, str]) -> list[Problem]:
    """The mistakes of all drafts, one for each that was written.

    What is written once, in a group of `repeat` or under an anchor, may make many stages wrong.

    Args:
        drafts: the stages.
        templates: the name as written of each stage that `repeat` made.
    """
    tellers: dict[tuple[object, str], str] = {}
    kept: list[Problem] = []
    for draft in drafts:
        template = templates.get(draft.name)
        for problem in draft.problems:
            # A copy's own name is not in the file, and its hints name the other copies.
            shape = problem.message.partition(MADE_BY)[0].replace(f"'{draft.name}'", "''")
            marks: list[tuple[object, str]] = [(problem.position, shape)]
            if template is not None:
                marks += [(problem.position, template), (template, shape)]
            if all(tellers.setdefault(mark, draft.name) == draft.name for mark in marks):
                kept.append(problem)
    return kept
