"""The pipeline file as a typed, checked graph; all mistakes are reported at once, with lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from pipeline.dag import yaml_nodes as nodes
from pipeline.dag.assembly import STAGE_KEYS, TOP_KEYS, assemble
from pipeline.dag.contract import Input, Params, Resources, StageType
from pipeline.dag.layout import RESERVED
from pipeline.dag.parameters import validated
from pipeline.dag.yaml_nodes import Position, Problem, SpecificationError, kind_of, nearest

DEFAULT_ROOT = "artifacts"
DEFAULT_SEED = 13
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\Z")


@dataclass(frozen=True)
class Stage:
    """One node of the graph.

    Attributes:
        name: what the pipeline file calls it; never part of a key.
        type: the registered stage type.
        inputs: stage names wired to each input name, in order.
        seed: the seed that the stage's own is derived from: the pipeline's, or its group's.
    """

    name: str
    type: StageType
    inputs: Mapping[str, tuple[str, ...]]
    params: Params
    resources: Resources
    seed: int
    position: Position

    @property
    def parents(self) -> tuple[str, ...]:
        """The stages it reads from, each once."""
        return tuple(dict.fromkeys(name for names in self.inputs.values() for name in names))


@dataclass(frozen=True)
class Pipeline:
    """A checked pipeline; `stages` stand in an order in which they can run."""

    name: str
    root: str
    seed: int
    file: str
    stages: tuple[Stage, ...]

    def __getitem__(self, name: str) -> Stage:
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)

    @property
    def names(self) -> list[str]:
        """The stages' names in order."""
        return [stage.name for stage in self.stages]

    def below(self, names: Iterable[str]) -> set[str]:
        """`names` and every stage that depends on one of them."""
        found = set(names)
        for stage in self.stages:
            if found & set(stage.parents):
                found.add(stage.name)
        return found

    def above(self, names: Iterable[str]) -> set[str]:
        """`names` and every stage that one of them depends on."""
        found = set(names)
        for stage in reversed(self.stages):
            if stage.name in found:
                found |= set(stage.parents)
        return found


def read_pipeline(
    file: str | Path, registry: Mapping[str, StageType], settings: Sequence[str] = ()
) -> Pipeline:
    """Read and check a pipeline file.

    Args:
        file: the YAML file.
        registry: the known stage types by name.
        settings: `path=value` options that override the file.

    Raises:
        SpecificationError: with every mistake found.
        ValueError: a stage type is called like one of the runner's own folders.
    """
    if clash := RESERVED & set(registry):
        raise ValueError(
            f"no stage type can be called '{min(clash)}': the runner keeps files there"
        )
    problems: list[Problem] = []
    tree, seeds = assemble(Path(file), settings, problems)
    checker = _Checker(registry, problems, seeds)
    pipeline = checker.pipeline(tree, Path(file))
    if problems or pipeline is None:
        raise SpecificationError(problems)
    return pipeline


@dataclass(frozen=True)
class _Draft:
    """A stage whose own keys are read, and whose wiring is not yet checked."""

    name: str
    at: Position
    type: StageType | None
    inputs: nodes.Mapping
    wired: dict[str, list[tuple[str, Position]]]
    params: Params | None
    resources: Resources | None


class _Checker:
    def __init__(
        self, registry: Mapping[str, StageType], problems: list[Problem], seeds: dict[str, int]
    ) -> None:
        self.registry = registry
        self.problems = problems
        self.seeds = seeds

    def report(self, position: Position, message: str) -> None:
        self.problems.append(Problem(position, message))

    def pipeline(self, tree: nodes.Mapping, file: Path) -> Pipeline | None:
        for key, at, _ in tree:
            if key not in TOP_KEYS:
                self.report(at, f"unknown key '{key}'{nearest(key, TOP_KEYS)}")
        name = self.value(tree, "name", str, file.stem)
        if not NAME.match(name):
            self.report(tree.key_position("name"), f"name '{name}': use letters, digits, _ and -")
        root = self.value(tree, "root", str, DEFAULT_ROOT)
        seed = self.value(tree, "seed", int, DEFAULT_SEED)
        stages = tree.entries.get("stages")
        if not isinstance(stages, nodes.Mapping) or not stages.entries:
            at = stages.position if stages else tree.position
            self.report(at, "a pipeline needs `stages`, a mapping of names to stages")
            return None
        drafts = {n: self.draft(n, at, node) for n, at, node in stages}
        for draft in drafts.values():
            self.check_wiring(draft, drafts)
        order = self.order(drafts)
        if self.problems:
            return None
        built = [self.stage(drafts[name], seed) for name in order]
        return Pipeline(name, root, seed, str(file), tuple(built))

    def value(self, tree: nodes.Mapping, key: str, wanted: type, default: Any) -> Any:
        node = tree.entries.get(key)
        if node is None:
            return default
        if type(node.plain()) is not wanted:
            kind = "a number without fraction" if wanted is int else "a text"
            self.report(node.position, f"{key} is {kind}, not {node.plain()!r}")
            return default
        return node.plain()

    # One stage --------------------------------------------------------------------------------

    def draft(self, name: str, at: Position, node: nodes.Node) -> _Draft:
        if not NAME.match(name):
            self.report(at, f"stage name '{name}': use letters, digits, _ and -")
        if not isinstance(node, nodes.Mapping):
            self.report(
                at, f"stage '{name}' is a mapping with {', '.join(STAGE_KEYS)}, not {kind_of(node)}"
            )
            node = nodes.Mapping({}, at)
            return _Draft(name, at, None, node, {}, None, None)
        for key, where, _ in node:
            if key not in STAGE_KEYS:
                self.report(where, f"unknown key '{key}' in '{name}'{nearest(key, STAGE_KEYS)}")
        inputs = self.part(node, "inputs", name)
        kind = self.type(name, at, node)
        params = None
        if kind is not None:
            what = f"stage '{name}' ({kind.name})"
            params = validated(kind.params, self.part(node, "params", name), what, self.problems)
        resources = validated(
            Resources,
            self.part(node, "resources", name),
            f"stage '{name}', resources",
            self.problems,
        )
        wired = {key: self.names(key, value, name) for key, _, value in inputs}
        return _Draft(name, at, kind, inputs, wired, params, resources)

    def part(self, node: nodes.Mapping, key: str, stage: str) -> nodes.Mapping:
        part = node.entries.get(key)
        if part is None or part.plain() is None:
            return nodes.Mapping({}, node.key_position(key))
        if not isinstance(part, nodes.Mapping):
            self.report(part.position, f"{key} of '{stage}' is a mapping, not {kind_of(part)}")
            return nodes.Mapping({}, part.position)
        return part

    def type(self, name: str, at: Position, node: nodes.Mapping) -> StageType | None:
        uses = node.entries.get("uses")
        if uses is None:
            self.report(at, f"stage '{name}' needs `uses`, the type of the stage")
            return None
        found = self.registry.get(uses.plain()) if isinstance(uses.plain(), str) else None
        if found is None:
            hint = nearest(str(uses.plain()), self.registry)
            self.report(uses.position, f"unknown stage type '{uses.plain()}'{hint}")
        return found

    def names(self, key: str, node: nodes.Node, stage: str) -> list[tuple[str, Position]]:
        items = node.items if isinstance(node, nodes.Sequence) else (node,)
        found = []
        for item in items:
            if isinstance(item, nodes.Scalar) and isinstance(item.value, str | int):
                found.append((str(item.value), item.position))
            else:
                message = f"input '{key}' of '{stage}' is a stage name or a list of them"
                self.report(item.position, message)
        return found

    # Wiring -----------------------------------------------------------------------------------

    def check_wiring(self, draft: _Draft, drafts: Mapping[str, _Draft]) -> None:
        kind = draft.type
        for key, names in draft.wired.items():
            declared = None
            if kind is not None:
                declared = kind.inputs.get(key)
                if declared is None:
                    message = f"stage type '{kind.name}' has no input '{key}'"
                    known = nearest(key, kind.inputs)
                    self.report(draft.inputs.key_position(key), message + known)
            draft.wired[key] = self.existing(draft, key, names, declared, drafts)
        if kind is None:
            return
        for key, declared in kind.inputs.items():
            if not declared.optional and not draft.inputs.entries.get(key):
                makers = [
                    d.name
                    for d in drafts.values()
                    if d.type and d is not draft and declared.accepts(d.type.output)
                ]
                hint = f"; made by {', '.join(makers[:6])}" if makers else ""
                wanted = declared.wanted()
                at = draft.inputs.position if draft.inputs.entries else draft.at
                message = f"stage '{draft.name}' ({kind.name}) needs input '{key}', a {wanted}"
                self.report(at, message + hint)
        if draft.params is not None:
            wired = {key: len(names) for key, names in draft.wired.items()}
            for message in draft.params.mismatches(wired):
                self.report(draft.at, f"stage '{draft.name}' ({kind.name}): {message}")

    def existing(
        self,
        draft: _Draft,
        key: str,
        names: list[tuple[str, Position]],
        declared: Input | None,
        drafts: Mapping[str, _Draft],
    ) -> list[tuple[str, Position]]:
        node = draft.inputs.entries[key]
        if declared and not declared.many and (isinstance(node, nodes.Sequence)):
            self.report(node.position, f"input '{key}' of '{draft.name}' takes one stage, no list")
        if isinstance(node, nodes.Sequence) and not node.items:
            self.report(node.position, f"input '{key}' of '{draft.name}' is an empty list")
        found = []
        for name, at in names:
            matches = [name] if name in drafts else []
            if declared and declared.many and "*" in name:
                matches = [n for n in drafts if fnmatchcase(n, name) and n != draft.name]
            if not matches:
                self.report(at, f"no stage is called '{name}'{nearest(name, drafts)}")
            for match in matches:
                self.check_kind(draft, key, declared, drafts[match], at)
                found.append((match, at))
        return found

    def check_kind(
        self, draft: _Draft, key: str, declared: Input | None, giver: _Draft, at: Position
    ) -> None:
        if declared is None or giver.type is None or declared.accepts(giver.type.output):
            return
        self.report(
            at,
            f"input '{key}' of '{draft.name}' takes a {declared.wanted()}, "
            f"but '{giver.name}' ({giver.type.name}) makes a {giver.type.output.name}",
        )

    # The whole --------------------------------------------------------------------------------

    def order(self, drafts: Mapping[str, _Draft]) -> list[str]:
        """Names in the file's order wherever the wiring leaves a choice."""
        parents = {
            name: {given for names in draft.wired.values() for given, _ in names}
            for name, draft in drafts.items()
        }
        try:
            TopologicalSorter(parents).prepare()
        except CycleError as error:
            cycle = error.args[1]
            first = drafts[cycle[0]]
            self.report(first.at, f"stages depend on each other in a circle: {' → '.join(cycle)}")
            return []
        order: list[str] = []
        waiting = list(drafts)
        while waiting:
            name = next(name for name in waiting if parents[name] <= set(order))
            order.append(name)
            waiting.remove(name)
        return order

    def stage(self, draft: _Draft, seed: int) -> Stage:
        assert draft.type and draft.params is not None and draft.resources is not None
        return Stage(
            name=draft.name,
            type=draft.type,
            inputs={key: tuple(n for n, _ in names) for key, names in draft.wired.items()},
            params=draft.params,
            resources=draft.resources,
            seed=self.seeds.get(draft.name, seed),
            position=draft.at,
        )
