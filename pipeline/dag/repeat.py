"""`repeat`: a group of stages written once and unrolled over rounds, seeds, variants, or several.

```yaml
repeat:                                # one group, a list of groups, or groups by name
  rounds: 3                            # {round} is 1 … 3, {previous} is 0 … 2
  seeds: [13, 14]                      # {seed}; the group's stages draw from this seed
  variants:                            # {variant}; what differs in each, merged like a recipe
    plain: {}
    deep: {"lists_{variant}_{seed}_{round}": {params: {depth: 200}}}
  stages:
    lists_{variant}_{seed}_{round}:
      uses: denoise
      inputs: {candidates: "mined_{variant}_{seed}_{previous}"}
  first:                               # what differs in round 1, merged like a recipe
    lists_{variant}_{seed}_{round}: {inputs: {candidates: bm25}}
```

Placeholders stand in stage names, in inputs and in string parameters; a parameter that is
nothing but a placeholder becomes its number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from itertools import product

from pipeline.dag.yaml_nodes import (
    Mapping,
    Node,
    Position,
    Problem,
    Scalar,
    Sequence,
    close_to,
    kind_of,
    nearest,
)

GROUP_KEYS = ("rounds", "seeds", "variants", "stages", "first")
DIMENSIONS = frozenset({"rounds", "seeds", "variants"})
PLACEHOLDER = re.compile(r"\{(\w+)\}")
VARIANT = re.compile(r"[A-Za-z0-9_-]+\Z")

Values = dict[str, int | str]
MergeStages = Callable[[Mapping, Mapping, list[Problem]], Mapping]


@dataclass(frozen=True)
class Group:
    """One checked group: the values that its placeholders take, and its stages.

    Attributes:
        sound: whether these are the values that are meant: what was written wrongly has one value
            as a stand-in, so that the mistakes inside the group are found too.
    """

    rounds: tuple[int, ...]
    seeds: tuple[int, ...]
    variants: dict[str, Mapping]
    stages: Mapping
    first: Mapping | None
    sound: bool

    def copies(self) -> Iterator[Values]:
        """The placeholders' values, one dict for each copy of the group; variants change last."""
        for variant, seed, number in product(
            self.variants or (None,), self.seeds or (None,), self.rounds or (None,)
        ):
            values: Values = {}
            if variant is not None:
                values["variant"] = variant
            if seed is not None:
                values["seed"] = seed
            if number is not None:
                values |= {"round": number, "previous": number - 1}
            yield values

    def body(self, values: Values, merge: MergeStages, problems: list[Problem]) -> Mapping:
        """The stages of one copy, with what differs in round 1 and in its variant."""
        body = self.stages
        if self.first is not None and values.get("round") == 1:
            body = merge(body, self.first, problems)
        if "variant" in values:
            body = merge(body, self.variants[str(values["variant"])], problems)
        return body


@dataclass(frozen=True)
class Unrolled:
    """What the checks of unrolled stages have to know.

    Attributes:
        seeds: of stages of groups with `seeds`, by name.
        templates: the name as written, placeholders and all, of each unrolled stage.
        unsettled: patterns of the names that a group with mistakes of its own may have meant.
        before_first: names that stages of round 1 have for what is of the round before.
    """

    seeds: dict[str, int] = field(default_factory=dict)
    templates: dict[str, str] = field(default_factory=dict)
    unsettled: set[str] = field(default_factory=set)
    before_first: set[str] = field(default_factory=set)

    def may_mean(self, name: str) -> bool:
        """Whether a stage of that name may be there once the groups are right."""
        return any(fnmatchcase(name, pattern) for pattern in self.unsettled)


def unroll(tree: Mapping, merge: MergeStages, problems: list[Problem]) -> tuple[Mapping, Unrolled]:
    """`tree` with the groups of `repeat` written out as stages, and what is known of those."""
    unrolled = Unrolled()
    repeat = tree.entries.get("repeat")
    if repeat is None:
        return tree, unrolled
    stages = tree.entries.get("stages")
    if not isinstance(stages, Mapping):
        if stages is not None and stages.plain() is not None:
            message = f"stages is a mapping of names to stages, not {kind_of(stages)}"
            problems.append(Problem(stages.position, message))
        stages = Mapping({}, repeat.position)
    entries, keys = dict(stages.entries), dict(stages.keys)
    for node in _groups(repeat):
        group = _checked(node, problems)
        unrolled.unsettled.update(_meant(group))
        if group is None:
            continue
        for values in group.copies():
            for written, at, stage in group.body(values, merge, problems):
                name = _named(written, values, at, problems)
                if name in entries:
                    problems.append(Problem(at, _taken(name, written, values)))
                    continue
                entries[name], keys[name] = _filled_stage(stage, values, problems), at
                unrolled.templates[name] = written
                if values.get("round") == 1:
                    unrolled.before_first.add(_filled(written, {**values, "round": 0}))
                if "seed" in values:
                    unrolled.seeds[name] = int(values["seed"])
    without = {key: node for key, node in tree.entries.items() if key != "repeat"}
    without["stages"] = Mapping(entries, stages.position, keys)
    return Mapping(without, tree.position, tree.keys), unrolled


def are_named(repeat: Mapping) -> bool:
    """Whether a `repeat` holds groups by name, and is not a group itself."""
    nodes = repeat.entries
    no_group = not set(nodes) & set(GROUP_KEYS)
    return bool(nodes) and no_group and all(isinstance(node, Mapping) for node in nodes.values())


def _groups(repeat: Node) -> tuple[Node, ...]:
    if isinstance(repeat, Sequence):
        return repeat.items
    if isinstance(repeat, Mapping) and are_named(repeat):
        return tuple(repeat.entries.values())
    return (repeat,)


def _meant(group: Group | None) -> list[str]:
    """Patterns of the names that a group with mistakes of its own may have meant."""
    if group is None or not (group.sound or group.stages.entries):
        return ["*"]
    differing = [*group.variants.values(), *([group.first] if group.first else [])]
    names = [name for stages in (group.stages, *differing) for name in stages.entries]
    return [] if group.sound else [PLACEHOLDER.sub("*", name) for name in names]


def _taken(name: str, written: str, values: Values) -> str:
    if name != written:
        return f"stage '{name}' exists already"
    wanted = " and ".join(f"{{{key}}}" for key in values if key != "previous")
    return f"stage '{name}' is repeated: put {wanted} into its name"


def _checked(node: Node, problems: list[Problem]) -> Group | None:
    before = len(problems)
    if not isinstance(node, Mapping):
        message = f"a group is a mapping with {', '.join(GROUP_KEYS)}, not {kind_of(node)}"
        problems.append(Problem(node.position, message))
        return None
    strange = [(key, at) for key, at, _ in node if key not in GROUP_KEYS]
    for key, at in strange:
        problems.append(Problem(at, f"unknown key '{key}' in repeat{nearest(key, GROUP_KEYS)}"))
    rounds = _rounds(node.entries.get("rounds"), problems)
    seeds = _seeds(node.entries.get("seeds"), problems)
    variants = _variants(node.entries.get("variants"), problems)
    if not DIMENSIONS & set(node.entries):
        # One of them may be the key that is misspelt.
        if not strange:
            message = "repeat needs `rounds: n`, `seeds: [..]` or `variants: {..}`"
            problems.append(Problem(node.position, message))
        rounds, seeds, variants = (1,), (0,), {"variant": Mapping({}, node.position)}
    stages, first = node.entries.get("stages"), node.entries.get("first")
    if not isinstance(stages, Mapping):
        at = stages.position if stages else node.position
        problems.append(Problem(at, "repeat needs `stages`, a mapping of stages"))
        stages = Mapping({}, at)
    if first is not None and (not isinstance(first, Mapping) or not rounds):
        message = "`first` is a mapping of stages that differ in round 1 of `rounds`"
        problems.append(Problem(first.position, message))
        first = None
    return Group(rounds, seeds, variants, stages, first, sound=len(problems) == before)


def _rounds(node: Node | None, problems: list[Problem]) -> tuple[int, ...]:
    if node is None:
        return ()
    value = node.plain()
    if type(value) is not int or value < 1:
        problems.append(Problem(node.position, f"rounds is a number from 1, not {value!r}"))
        return (1,)
    return tuple(range(1, value + 1))


def _seeds(node: Node | None, problems: list[Problem]) -> tuple[int, ...]:
    if node is None:
        return ()
    values = node.plain()
    right = isinstance(values, list) and values and all(type(value) is int for value in values)
    if not right or len(set(values)) < len(values):
        problems.append(
            Problem(node.position, f"seeds is a list of different numbers, not {values!r}")
        )
        return (0,)
    return tuple(values)


def _variants(node: Node | None, problems: list[Problem]) -> dict[str, Mapping]:
    if node is None:
        return {}
    if not isinstance(node, Mapping) or not node.entries:
        message = "variants is a mapping of names to the stages that differ"
        problems.append(Problem(node.position, message))
        return {"variant": Mapping({}, node.position)}
    found = {}
    for name, at, stages in node:
        if not VARIANT.match(name):
            problems.append(Problem(at, f"variant '{name}': use letters, digits, _ and -"))
        if isinstance(stages, Mapping):
            found[name] = stages
        else:
            message = f"variant '{name}' is a mapping of the stages that differ, or {{}}"
            problems.append(Problem(stages.position, message))
    return found or {"variant": Mapping({}, node.position)}


def _names_in(text: str) -> list[str]:
    return [hit[1] for hit in PLACEHOLDER.finditer(text)]


def _filled(text: str, values: Values) -> str:
    return PLACEHOLDER.sub(lambda hit: str(values.get(hit[1], hit[0])), text)


def _named(text: str, values: Values, at: Position, problems: list[Problem]) -> str:
    """A stage name with its placeholders filled; others are mistakes here.

    Those are filled too, by what was probably meant, so that no other mistake comes of them.
    """
    guessed = dict(values)
    for name in _names_in(text):
        if name not in values:
            message = f"unknown placeholder '{{{name}}}'{nearest(name, values)}"
            problems.append(Problem(at, message))
            close = get_close_matches(name, list(values), n=1, cutoff=0.0)
            guessed[name] = values[close[0]]
    return _filled(text, guessed)


def _filled_stage(stage: Node, values: Values, problems: list[Problem]) -> Node:
    if not isinstance(stage, Mapping):
        return stage
    entries = dict(stage.entries)
    if "inputs" in entries:
        entries["inputs"] = _filled_names(entries["inputs"], values, problems)
    if "params" in entries:
        entries["params"] = _filled_values(entries["params"], values, problems)
    return replace(stage, entries=entries)


def _filled_names(node: Node, values: Values, problems: list[Problem]) -> Node:
    if isinstance(node, Scalar):
        if not isinstance(node.value, str):
            return node
        return replace(node, value=_named(node.value, values, node.position, problems))
    if isinstance(node, Sequence):
        return replace(node, items=tuple(_filled_names(i, values, problems) for i in node.items))
    return replace(
        node, entries={k: _filled_names(v, values, problems) for k, v in node.entries.items()}
    )


def _filled_values(node: Node, values: Values, problems: list[Problem]) -> Node:
    """Parameters with placeholders filled; other braces are the parameter's own."""
    if isinstance(node, Scalar):
        if not isinstance(node.value, str):
            return node
        whole = PLACEHOLDER.fullmatch(node.value)
        if whole and whole[1] in values:
            return replace(node, value=values[whole[1]])
        for name in _names_in(node.value):
            if name not in values and (hint := close_to(name, values)):
                message = f"unknown placeholder '{{{name}}}'{hint}"
                problems.append(Problem(node.position, message))
        return replace(node, value=_filled(node.value, values))
    if isinstance(node, Sequence):
        items = tuple(_filled_values(item, values, problems) for item in node.items)
        return replace(node, items=items)
    entries = {key: _filled_values(value, values, problems) for key, value in node.entries.items()}
    return replace(node, entries=entries)
