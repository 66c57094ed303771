"""YAML as a tree that remembers where each value stands, so that every later mistake has a line.

Scalars follow YAML 1.2's core schema: `1e-5` is a number, `on`, `off`, `yes` and `no` are words.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import yaml

LOADER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
INTEGER = re.compile(r"[-+]?[0-9]+\Z")
# Python refuses to read numbers of some thousand digits, and calls of as many levels.
MOST_DIGITS = 100
DEEPEST = 100
# A name in braces as it stands in an unquoted text.
BRACES = re.compile(r"\{\w+\}")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
WORDS: dict[str, Any] = {
    "": None,
    "~": None,
    "null": None,
    "true": True,
    "false": False,
    ".inf": float("inf"),
    "-.inf": float("-inf"),
    ".nan": float("nan"),
}


@dataclass(frozen=True)
class Position:
    """Where a value was written: a file with 1-based line and column, or a command-line option."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True)
class Problem:
    """One mistake: where, what, and what was probably meant."""

    position: Position
    message: str

    def __str__(self) -> str:
        return f"{self.position}: {self.message}"


class SpecificationError(Exception):
    """All mistakes found in a pipeline, each with its place."""

    def __init__(self, problems: list[Problem]) -> None:
        places = sorted(
            dict.fromkeys(problems),
            key=lambda p: (p.position.source, p.position.line, p.position.column),
        )
        self.problems = places
        super().__init__("\n".join(str(problem) for problem in places))


@dataclass(frozen=True)
class Scalar:
    """A number, word, truth value or null.

    Attributes:
        written: what stands in the file for a number, truth value or null.
    """

    value: Any
    position: Position
    written: str = ""

    def plain(self) -> Any:
        """The value without positions."""
        return self.value


@dataclass(frozen=True)
class Sequence:
    """A list of nodes."""

    items: tuple[Node, ...]
    position: Position

    def plain(self) -> Any:
        """The values without positions."""
        return [item.plain() for item in self.items]


@dataclass(frozen=True)
class Mapping:
    """Keys and nodes, in the order of the file; `keys` holds where each key stands."""

    entries: dict[str, Node]
    position: Position
    keys: dict[str, Position] = field(default_factory=dict)

    def plain(self) -> Any:
        """The values without positions."""
        return {key: node.plain() for key, node in self.entries.items()}

    def __iter__(self) -> Iterator[tuple[str, Position, Node]]:
        for key, node in self.entries.items():
            yield key, self.keys.get(key, node.position), node

    def key_position(self, key: str) -> Position:
        """Where `key` stands, or the mapping itself where it has no such key."""
        return self.keys.get(key, self.position)


Node = Scalar | Sequence | Mapping


def node_of(value: Any, position: Position) -> Node:
    """The tree of a plain value, every part of it at `position`."""
    if isinstance(value, dict):
        return Mapping({k: node_of(v, position) for k, v in value.items()}, position)
    if isinstance(value, list):
        return Sequence(tuple(node_of(item, position) for item in value), position)
    return Scalar(value, position)


class _Composer:
    """Turns PyYAML's nodes into ours and collects duplicate and unusable keys."""

    kinds: ClassVar[dict[type[Node], str]] = {
        Scalar: "a single value",
        Sequence: "a list",
        Mapping: "a mapping",
    }

    def __init__(self, source: str, at: Position | None) -> None:
        self.source = source
        self.at = at
        self.problems: list[Problem] = []
        self.open: list[yaml.Node] = []

    def position(self, mark: yaml.Mark | None) -> Position:
        if self.at is not None or mark is None:
            return self.at or Position(self.source)
        return Position(self.source, mark.line + 1, mark.column + 1)

    def node(self, node: yaml.Node) -> Node:
        position = self.position(node.start_mark)
        if any(node is outer for outer in self.open):
            self.problems.append(Problem(position, "an alias refers to something it is part of"))
            return Scalar(None, position)
        if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
            self.problems.append(Problem(position, f"tag '{node.tag}' is not used here"))
        if len(self.open) == DEEPEST:
            message = f"nested more than {DEEPEST} deep: nothing here is"
            self.problems.append(Problem(position, message))
            return Scalar(None, position)
        self.open.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, position)
            if isinstance(node, yaml.SequenceNode):
                return Sequence(tuple(self.node(item) for item in node.value), position)
            return self.scalar(node, position)
        finally:
            self.open.pop()

    def scalar(self, node: yaml.ScalarNode, position: Position) -> Scalar:
        if node.style:
            return Scalar(node.value, position)
        if INTEGER.match(node.value) and len(node.value) > MOST_DIGITS:
            message = f"a number of {len(node.value)} digits: more than {MOST_DIGITS} are not read"
            self.problems.append(Problem(position, message))
            return Scalar(0, position)
        return Scalar(plain_scalar(node.value), position, node.value)

    def mapping(self, node: yaml.MappingNode, position: Position) -> Mapping:
        entries: dict[str, Node] = {}
        keys: dict[str, Position] = {}
        for key_node, value_node in node.value:
            at = self.position(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(
                    Problem(at, "a key must be a word; write names with braces in quotes")
                )
                continue
            key = key_node.value
            if key in keys:
                self.problems.append(
                    Problem(at, f"key '{key}' stands twice; first at line {keys[key].line}")
                )
                continue
            keys[key] = at
            entries[key] = self.node(value_node)
        return Mapping(entries, position, keys)


def plain_scalar(text: str) -> Any:
    """The value of an unquoted scalar."""
    if text.lower() in WORDS and text in (text.lower(), text.upper(), text.capitalize()):
        return WORDS[text.lower()]
    if INTEGER.match(text):
        return int(text)
    if FLOAT.match(text):
        return float(text)
    return text


def parse(text: str, source: str, at: Position | None = None) -> tuple[Node, list[Problem]]:
    """Parse one YAML document.

    Args:
        text: the document.
        source: what to call it in positions.
        at: if given, the position of everything (for a value from the command line).

    Returns:
        The tree and the mistakes that left a tree (duplicate keys).

    Raises:
        SpecificationError: the text is no YAML.
    """
    composer = _Composer(source, at)
    try:
        root = yaml.compose(text, Loader=LOADER)
    except yaml.MarkedYAMLError as error:
        what = " ".join(part for part in (error.context, error.problem) if part)
        position = composer.position(error.problem_mark or error.context_mark)
        hint = "; names with braces need quotes inside {…}" if _braces_at(error, text) else ""
        raise SpecificationError([Problem(position, f"not YAML: {what}{hint}")]) from None
    except yaml.reader.ReaderError as error:
        position = at or _place_of(chr(error.character), text, source)
        what = f"character U+{error.character:04X} cannot stand in a file"
        raise SpecificationError([Problem(position, f"not YAML: {what}")]) from None
    if root is None:
        return Scalar(None, at or Position(source, 1, 1)), []
    return composer.node(root), composer.problems


def _braces_at(error: yaml.MarkedYAMLError, text: str) -> bool:
    """Whether a name in braces stands in the lines that the parser complains of."""
    marks = [mark.line for mark in (error.context_mark, error.problem_mark) if mark]
    lines = text.splitlines()[min(marks, default=0) : max(marks, default=0) + 1]
    return any(BRACES.search(line) for line in lines)


def _place_of(character: str, text: str, source: str) -> Position:
    # By the character itself: the parsers count in characters or in bytes, as they were built.
    before = text[: text.index(character)]
    return Position(source, before.count("\n") + 1, len(before) - before.rfind("\n"))


def kind_of(node: Node) -> str:
    """What a node is, for messages."""
    return _Composer.kinds[type(node)]


def close_to(word: str, options: Iterable[str]) -> str:
    """A hint for a misspelt `word`: the option closest to it, or nothing if none is close."""
    close = difflib.get_close_matches(word, sorted(options), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


def nearest(word: str, options: Iterable[str]) -> str:
    """A hint for a misspelt `word`: the option closest to it, or the options if none is close."""
    known = sorted(options)
    if close := close_to(word, known):
        return close
    if not known:
        return ""
    shown = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
    return f" (known: {shown})"
