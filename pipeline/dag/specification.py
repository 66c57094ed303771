"""The pipeline file as a typed, checked graph; all mistakes are reported at once, with lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts.store import wrong_root
from pipeline.dag import yaml_nodes as nodes
from pipeline.dag.assembly import STAGE_KEYS, TOP_KEYS, assemble
from pipeline.dag.contract import Params, Resources, StageType
from pipeline.dag.layout import RESERVED, misspelt_root
from pipeline.dag.parameters import validated
from pipeline.dag.repeat import Unrolled
from pipeline.dag.wiring import Draft, Wiring, circles, each_once
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
    tree, unrolled = assemble(Path(file), settings, problems)
    pipeline = _Checker(registry, problems, unrolled).pipeline(tree, Path(file))
    if problems or pipeline is None:
        raise SpecificationError(problems)
    return pipeline


class _Checker:
    def __init__(
        self, registry: Mapping[str, StageType], problems: list[Problem], unrolled: Unrolled
    ) -> None:
        self.registry = registry
        self.problems = problems
        self.unrolled = unrolled

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
        if right := misspelt_root(root):
            at = tree.entries["root"].position
            self.report(at, f"root '{root}' is no folder and no address: write {right}")
        elif wrong := wrong_root(root):
            self.report(tree.entries["root"].position, f"root '{root}' {wrong}")
        seed = self.value(tree, "seed", int, DEFAULT_SEED)
        stages = tree.entries.get("stages")
        if not isinstance(stages, nodes.Mapping) or not stages.entries:
            at = stages.position if stages else tree.position
            self.report(at, "a pipeline needs `stages`, a mapping of names to stages")
            return None
        drafts = {n: self.draft(n, at, node) for n, at, node in stages}
        inputs = Wiring(drafts, self.unrolled.may_mean, self.unrolled.before_first).resolve()
        parents = {
            n: {one for many in wired.values() for one in many} for n, wired in inputs.items()
        }
        for circle in circles(parents):
            message = f"stages depend on each other in a circle: {' → '.join(circle)}"
            drafts[circle[0]].report(drafts[circle[0]].at, message)
        self.problems += each_once(drafts.values(), self.unrolled.templates)
        if self.problems:
            return None
        built = [self.stage(drafts[n], inputs[n], seed) for n in _ordered(parents)]
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

    def draft(self, name: str, at: Position, node: nodes.Node) -> Draft:
        problems: list[Problem] = []
        if not NAME.match(name):
            problems.append(Problem(at, f"stage name '{name}': use letters, digits, _ and -"))
        if not isinstance(node, nodes.Mapping):
            message = (
                f"stage '{name}' is a mapping with {', '.join(STAGE_KEYS)}, not {kind_of(node)}"
            )
            problems.append(Problem(at, message))
            return Draft(name, at, None, nodes.Mapping({}, at), problems=problems)
        for key, where, _ in node:
            if key not in STAGE_KEYS:
                message = f"unknown key '{key}' in '{name}'{nearest(key, STAGE_KEYS)}"
                problems.append(Problem(where, message))
        inputs = _part(node, "inputs", name, problems)
        kind = self.type(name, at, node, problems)
        params = None
        if kind is not None:
            what = f"stage '{name}' ({kind.name})"
            params = validated(kind.params, _part(node, "params", name, problems), what, problems)
        what = f"stage '{name}', resources"
        resources = validated(Resources, _part(node, "resources", name, problems), what, problems)
        wired = {key: _names(key, value, name, problems) for key, _, value in inputs}
        return Draft(name, at, kind, inputs, wired, params, resources, problems)

    def type(
        self, name: str, at: Position, node: nodes.Mapping, problems: list[Problem]
    ) -> StageType | None:
        uses = node.entries.get("uses")
        if uses is None:
            problems.append(Problem(at, f"stage '{name}' needs `uses`, the type of the stage"))
            return None
        found = self.registry.get(uses.plain()) if isinstance(uses.plain(), str) else None
        if found is None:
            hint = nearest(str(uses.plain()), self.registry)
            problems.append(Problem(uses.position, f"unknown stage type '{uses.plain()}'{hint}"))
        return found

    def stage(self, draft: Draft, inputs: dict[str, tuple[str, ...]], seed: int) -> Stage:
        assert draft.type and draft.params is not None and draft.resources is not None
        return Stage(
            name=draft.name,
            type=draft.type,
            inputs=inputs,
            params=draft.params,
            resources=draft.resources,
            seed=self.unrolled.seeds.get(draft.name, seed),
            position=draft.at,
        )


def _part(node: nodes.Mapping, key: str, stage: str, problems: list[Problem]) -> nodes.Mapping:
    part = node.entries.get(key)
    if part is None or part.plain() is None:
        return nodes.Mapping({}, node.key_position(key))
    if not isinstance(part, nodes.Mapping):
        message = f"{key} of '{stage}' is a mapping, not {kind_of(part)}"
        problems.append(Problem(part.position, message))
        return nodes.Mapping({}, part.position)
    return part


def _names(
    key: str, node: nodes.Node, stage: str, problems: list[Problem]
) -> list[tuple[str, Position]]:
    items = node.items if isinstance(node, nodes.Sequence) else (node,)
    found = []
    for item in items:
        if isinstance(item, nodes.Scalar) and item.value is not None:
            # A stage may be called 001 or true.
            name = item.value if isinstance(item.value, str) else item.written or str(item.value)
            found.append((name, item.position))
        else:
            message = f"input '{key}' of '{stage}' is a stage name or a list of them"
            problems.append(Problem(item.position, message))
    return found


def _ordered(parents: Mapping[str, set[str]]) -> list[str]:
    """Names in the file's order wherever the wiring leaves a choice."""
    order: list[str] = []
    waiting = list(parents)
    while waiting:
        name = next(name for name in waiting if parents[name] <= set(order))
        order.append(name)
        waiting.remove(name)
    return order
