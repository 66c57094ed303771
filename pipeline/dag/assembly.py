"""From files and `--set` options to one tree of nodes: `extends`, dotted paths, unrolled groups.

A recipe that `extends` another file is merged into it by stage name: inputs and resources entry by
entry, parameters deeply, anything else replaced; a stage or an input set to null is removed. A
stage whose `uses` changes starts afresh: the old type's parameters mean nothing to the new one. Of
several files each is merged into those before it, and a file that several extend is merged once, so
that the second recipe does not set back what the first has changed in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import reduce
from pathlib import Path

from pipeline.dag.repeat import MergeStages, Unrolled, are_named, unroll
from pipeline.dag.yaml_nodes import (
    Mapping,
    Node,
    Position,
    Problem,
    Scalar,
    SpecificationError,
    kind_of,
    nearest,
    parse,
)
from pipeline.dag.yaml_nodes import Sequence as ListNode

TOP_KEYS = ("name", "root", "seed", "extends", "repeat", "stages")
STAGE_KEYS = ("uses", "inputs", "params", "resources")
# In these, a null takes an entry out.
ENTRY_KEYS = ("inputs", "resources")


def assemble(
    file: Path, settings: Sequence[str], problems: list[Problem]
) -> tuple[Mapping, Unrolled]:
    """One tree without `extends` and `repeat`, and what is known of the unrolled stages.

    Args:
        file: the pipeline file.
        settings: `path=value` options, applied in order; `stages.…` paths after unrolling, so that
            they can name unrolled stages.
        problems: mistakes that left a tree are appended here.

    Raises:
        SpecificationError: a file cannot be read, is no YAML, or extends itself.
    """
    tree = load(file, problems)
    parsed = [setting for text in settings if (setting := _parse_setting(text, problems))]
    for path, node in parsed:
        if path == ["repeat"] and _is_null(node):
            tree = _drop(tree, "repeat")
        elif path[0] != "stages":
            tree = _set(tree, path, node, problems)
    tree, unrolled = unroll(tree, merge_stages, problems)
    for path, node in parsed:
        if path[0] == "stages":
            tree = _set_stage(tree, path, node, unrolled, problems)
    return tree, unrolled


# Files ------------------------------------------------------------------------------------------


def load(file: Path, problems: list[Problem]) -> Mapping:
    """The tree of `file`, merged into the files that it extends."""
    trees = _loaded(file, problems, (), Position(str(file)), set())
    return reduce(lambda base, over: _merge_pipelines(base, over, problems), trees)


def _loaded(
    file: Path, problems: list[Problem], above: tuple[Path, ...], shown: Position, done: set[Path]
) -> list[Mapping]:
    """The trees to merge one after the other: what `file` extends, then its own.

    Args:
        file: the pipeline file.
        problems: mistakes that left a tree are appended here.
        above: the files that extend it.
        shown: where its name stands.
        done: the files whose trees come earlier; they are left out.
    """
    here = file.resolve()
    if here in above:
        chain = " → ".join(path.name for path in (*above, file))
        raise SpecificationError([Problem(shown, f"files extend each other: {chain}")])
    if here in done:
        return []
    done.add(here)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SpecificationError([Problem(shown, f"cannot read {file}: {reason}")]) from None
    tree, found = parse(text, str(file))
    problems += found
    if not isinstance(tree, Mapping):
        message = f"a pipeline is a mapping with {', '.join(TOP_KEYS)}, not {kind_of(tree)}"
        raise SpecificationError([Problem(tree.position, message)])
    trees: list[Mapping] = []
    for name in _extended(tree, problems):
        other = file.parent / str(name.value)
        trees += _loaded(other, problems, (*above, here), name.position, done)
    return [*trees, tree]


def _extended(tree: Mapping, problems: list[Problem]) -> list[Scalar]:
    """The names of the files that `tree` extends."""
    extends = tree.entries.get("extends")
    if extends is None:
        return []
    written = extends.items if isinstance(extends, ListNode) else (extends,)
    names = [node for node in written if isinstance(node, Scalar) and isinstance(node.value, str)]
    if not names or len(names) < len(written):
        message = "extends: the name of a file, or a list of names"
        problems.append(Problem(extends.position, message))
    impossible = [node for node in names if "\0" in node.value]
    message = "extends: the name of a file cannot hold U+0000"
    problems += [Problem(node.position, message) for node in impossible]
    return [node for node in names if node not in impossible]


def _put(base: Mapping, key: str, node: Node, at: Position) -> Mapping:
    return Mapping({**base.entries, key: node}, base.position, {**base.keys, key: at})


def _drop(base: Mapping, key: str, at: Position | None = None) -> Mapping:
    """`base` without `key`; `at` is where it was taken out, which is where its lack belongs."""
    entries = {name: node for name, node in base.entries.items() if name != key}
    keys = {**base.keys, key: at} if at else base.keys
    return Mapping(entries, base.position, keys)


def _is_null(node: Node | None) -> bool:
    return isinstance(node, Scalar) and node.value is None


def _removed(base: Mapping, key: str, at: Position, what: str, problems: list[Problem]) -> Mapping:
    if key not in base.entries:
        message = f"no {what} '{key}' to remove{nearest(key, base.entries)}"
        problems.append(Problem(at, message))
    return _drop(base, key, at)


def _merge_pipelines(base: Mapping, over: Mapping, problems: list[Problem]) -> Mapping:
    # The name is the recipe's own: two pipelines of one name would share their references.
    merged = _drop(_drop(base, "name"), "extends")
    for key, at, node in over:
        old = merged.entries.get(key)
        if key == "extends":
            continue
        if isinstance(old, Mapping) and isinstance(node, Mapping):
            if key == "stages":
                node = merge_stages(old, node, problems)
            elif key == "repeat":
                node = _merge_repeat(old, node, problems)
        elif key == "repeat" and _is_null(node):
            merged = _drop(merged, key)
            continue
        merged = _put(merged, key, node, at)
    return merged


def _merge_repeat(base: Mapping, over: Mapping, problems: list[Problem]) -> Mapping:
    if are_named(base):
        return _merge_named(base, over, "group", _merge_groups, problems)
    return _merge_groups(base, over, problems)


def _merge_groups(base: Mapping, over: Mapping, problems: list[Problem]) -> Mapping:
    for key, at, node in over:
        old = base.entries.get(key)
        if isinstance(old, Mapping) and isinstance(node, Mapping):
            merge = _merge_variants if key == "variants" else merge_stages
            node = merge(old, node, problems)
        base = _drop(base, key) if _is_null(node) else _put(base, key, node, at)
    return base


def _merge_variants(base: Mapping, over: Mapping, problems: list[Problem]) -> Mapping:
    return _merge_named(base, over, "variant", merge_stages, problems)


def merge_stages(base: Mapping, over: Mapping, problems: list[Problem]) -> Mapping:
    """`base` with the stages of `over` merged in by name; null removes.

    A stage that both have stands where `over` changes it: what is wrong with it as a whole came
    about there.
    """
    return _merge_named(base, over, "stage", _merge_stage, problems)


def _merge_named(
    base: Mapping, over: Mapping, what: str, merge: MergeStages, problems: list[Problem]
) -> Mapping:
    """`base` with what `over` names merged in by `merge`; null removes."""
    for name, at, node in over:
        old = base.entries.get(name)
        if _is_null(node):
            base = _removed(base, name, at, what, problems)
            continue
        if isinstance(old, Mapping) and isinstance(node, Mapping):
            node = merge(old, node, problems)
        base = _put(base, name, node, at)
    return base


def _merge_stage(base: Mapping, over: Mapping, problems: list[Problem]) -> Mapping:
    if _differ(base.entries.get("uses"), over.entries.get("uses")):
        return over
    for key, at, node in over:
        old = base.entries.get(key)
        if isinstance(old, Mapping) and isinstance(node, Mapping):
            if key == "params":
                node = _merge_deeply(old, node)
            elif key in ENTRY_KEYS:
                node = _merge_entries(old, node, key, problems)
        base = _put(base, key, node, at)
    return replace(base, position=over.position)


def _differ(old: Node | None, new: Node | None) -> bool:
    """Whether both are there and not equal: what they name decides which other keys there are."""
    return old is not None and new is not None and old.plain() != new.plain()


def _merge_entries(base: Mapping, over: Mapping, what: str, problems: list[Problem]) -> Mapping:
    for key, at, node in over:
        if _is_null(node):
            base = _removed(base, key, at, what.removesuffix("s"), problems)
        else:
            base = _put(base, key, node, at)
    return replace(base, position=over.position)


def _merge_deeply(base: Mapping, over: Mapping) -> Mapping:
    if _differ(base.entries.get("format"), over.entries.get("format")):
        return over
    for key, at, node in over:
        old = base.entries.get(key)
        if isinstance(old, Mapping) and isinstance(node, Mapping):
            node = _merge_deeply(old, node)
        base = _put(base, key, node, at)
    return replace(base, position=over.position)


# Options ----------------------------------------------------------------------------------------


def _parse_setting(text: str, problems: list[Problem]) -> tuple[list[str], Node] | None:
    at = Position(f"--set {text}")
    if (shown := text.encode(errors="backslashreplace").decode()) != text:
        problems.append(Problem(Position(f"--set {shown}"), "is not UTF-8"))
        return None
    path, equals, value = text.partition("=")
    parts = path.strip().split(".")
    if not equals or not all(parts):
        problems.append(Problem(at, "write --set path.to.value=VALUE"))
        return None
    if parts[0] not in TOP_KEYS or parts[0] == "extends":
        hint = nearest(parts[0], set(TOP_KEYS) - {"extends"})
        problems.append(Problem(at, f"nothing called '{parts[0]}' can be set{hint}"))
        return None
    try:
        node, found = parse(value, at.source, at)
    except SpecificationError as error:
        problems += error.problems
        return None
    problems += found
    return parts, node


def _set(tree: Mapping, path: Sequence[str], node: Node, problems: list[Problem]) -> Mapping:
    """`tree` with the value at `path` replaced; missing mappings on the way are made."""
    key, rest = path[0], path[1:]
    if not rest:
        return _put(tree, key, node, node.position)
    child = tree.entries.get(key) or Mapping({}, node.position)
    if _is_null(child):
        child = Mapping({}, node.position)
    replaced = _set_below(child, rest, node, problems)
    return tree if replaced is None else _put(tree, key, replaced, tree.key_position(key))


def _set_below(
    child: Node, rest: Sequence[str], node: Node, problems: list[Problem]
) -> Node | None:
    if isinstance(child, Mapping):
        return _set(child, rest, node, problems)
    if isinstance(child, ListNode):
        indices = [str(index) for index in range(len(child.items))]
        if rest[0] not in indices:
            message = f"the list has no item '{rest[0]}'{nearest(rest[0], indices)}"
            problems.append(Problem(node.position, message))
            return None
        items = list(child.items)
        chosen = int(rest[0])
        below = _set_below(items[chosen], rest[1:], node, problems) if rest[1:] else node
        if below is None:
            return None
        items[chosen] = below
        return ListNode(tuple(items), child.position)
    message = f"'{rest[0]}' cannot be set below {kind_of(child)}"
    problems.append(Problem(node.position, message))
    return None


def _set_stage(
    tree: Mapping, path: Sequence[str], node: Node, unrolled: Unrolled, problems: list[Problem]
) -> Mapping:
    """Set below `stages`; the stage's name may be a pattern such as `*`."""
    stages = tree.entries.get("stages")
    if not isinstance(stages, Mapping):
        return tree
    if len(path) < 2:
        problems.append(Problem(node.position, "name a stage: --set stages.NAME.params.…=VALUE"))
        return tree
    names = [name for name in stages.entries if fnmatchcase(name, path[1])]
    if not names:
        if not unrolled.may_mean(path[1]):
            message = f"no stage is called '{path[1]}'{nearest(path[1], stages.entries)}"
            problems.append(Problem(node.position, message))
        return tree
    if len(path) > 2 and path[2] not in STAGE_KEYS:
        message = f"a stage has no '{path[2]}'{nearest(path[2], STAGE_KEYS)}"
        problems.append(Problem(node.position, message))
        return tree
    if _is_null(node) and len(path) == 2:
        for name in names:
            stages = _drop(stages, name)
    elif _is_null(node) and len(path) == 4 and path[2] in ENTRY_KEYS:
        stages = _without_entry(stages, names, path[2:], node.position, problems)
    else:
        for name in names:
            stages = _set(stages, [name, *path[2:]], node, problems)
    return _put(tree, "stages", stages, tree.key_position("stages"))


def _without_entry(
    stages: Mapping,
    names: Sequence[str],
    path: Sequence[str],
    at: Position,
    problems: list[Problem],
) -> Mapping:
    """`stages` without an input or a resource of those named that have it."""
    part, key = path
    known: set[str] = set()
    for name in names:
        stage = stages.entries[name]
        given = stage.entries.get(part) if isinstance(stage, Mapping) else None
        if not isinstance(stage, Mapping) or not isinstance(given, Mapping):
            continue
        known |= set(given.entries)
        if key in given.entries:
            changed = _put(stage, part, _drop(given, key, at), stage.key_position(part))
            stages = _put(stages, name, changed, stages.key_position(name))
    if key not in known:
        message = f"no {part.removesuffix('s')} '{key}' to remove{nearest(key, known)}"
        problems.append(Problem(at, message))
    return stages
