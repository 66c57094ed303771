"""Checks a mapping of the pipeline file against a pydantic model, with a line for every mistake."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from pipeline.dag.yaml_nodes import Mapping, Node, Position, Problem, close_to, nearest
from pipeline.dag.yaml_nodes import Sequence as ListNode

M = TypeVar("M", bound=BaseModel)
Location = Sequence[int | str]

# How pydantic marks that a mapping's key is meant, and not the value below it.
KEY = "[key]"
EXPECTED = "input should be "
# Pydantic reads JSON here, users write YAML.
IN_YAML = {"an object": "a mapping", "a valid array": "a list"}


def validated(model: type[M], node: Mapping, what: str, problems: list[Problem]) -> M | None:
    """An instance of `model` from `node`, or None and its mistakes in `problems`.

    Args:
        model: the parameter model.
        node: the mapping as written.
        what: whose parameters these are, for messages.
        problems: mistakes are appended here.
    """
    try:
        # Through JSON, since lists then become tuples under strict checking too.
        return model.model_validate_json(json.dumps(node.plain()))
    except ValidationError as error:
        mistakes = [
            _mistake(model, node, detail["loc"], detail)
            for detail in error.errors(include_url=False)
        ]
        for problem in _told(mistakes, what):
            if problem not in problems:
                problems.append(problem)
        return None


@dataclass(frozen=True)
class _Mistake:
    """One error of pydantic, where it belongs in the file.

    Attributes:
        path: dotted path of the value.
        got: the value that was written, or "" where the message says it all.
        hint: what was probably meant.
        of_member: whether it is only what one member of a union says of the value.
    """

    path: str
    at: Position
    message: str
    got: str = ""
    hint: str = ""
    of_member: bool = False


def _told(mistakes: Sequence[_Mistake], what: str) -> list[Problem]:
    """One problem for each wrong value: what it may be instead, joined over a union's members."""
    paths = {mistake.path for mistake in mistakes}
    groups: dict[tuple[str, Position, str], list[_Mistake]] = {}
    for mistake in mistakes:
        # Where a member of a union fits but for something inside it, that is the mistake.
        deeper = any(path.startswith(f"{mistake.path}.") for path in paths)
        if not (mistake.of_member and deeper):
            groups.setdefault((mistake.path, mistake.at, mistake.got), []).append(mistake)
    problems = []
    for (path, at, got), alike in groups.items():
        if not got:
            problems += [Problem(at, f"{what}: {mistake.message}") for mistake in alike]
            continue
        first, *others = dict.fromkeys(mistake.message for mistake in alike)
        message = ", or ".join([first, *(other.removeprefix(EXPECTED) for other in others)])
        hint = next((mistake.hint for mistake in alike if mistake.hint), "")
        problems.append(Problem(at, f"{what}: '{path}': {message}, got {got}{hint}"))
    return problems


def _mistake(model: type[BaseModel], node: Mapping, loc: Location, detail: Any) -> _Mistake:
    path, key_at, at, value = _walk(node, loc)
    last = str(loc[-1]) if loc else ""
    if detail["type"] == "extra_forbidden":
        hint = nearest(last, {name for m in _models_at(model, loc[:-1]) for name in m.model_fields})
        return _Mistake(path, key_at, f"unknown key '{path or last}'{hint}")
    if detail["type"] == "missing":
        path = f"{path}.{last}" if path else last
        return _Mistake(path, at, f"'{path}' is required")
    if detail["type"].startswith("union_tag_"):
        key = detail["ctx"]["discriminator"].strip("'")
        return _wrong_tag(path, value, key, _models_at(model, loc))
    message = detail["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    for json_word, word in IN_YAML.items():
        message = message.replace(json_word, word)
    if not path:
        return _Mistake(path, at, message)
    written = value.plain()
    of_member = len(path.split(".")) < len(loc)
    if last == KEY:
        written = loc[-2]
        path, at, of_member = path.removesuffix(f".{written}"), key_at, False
    hint = ""
    if detail["type"] == "literal_error" and isinstance(written, str):
        choices = detail["ctx"]["expected"].replace(" or ", ", ").split(", ")
        hint = close_to(written, [choice.strip("'") for choice in choices])
    return _Mistake(path, at, message, json.dumps(written, ensure_ascii=False), hint, of_member)


def _wrong_tag(path: str, value: Node, key: str, models: Sequence[type[BaseModel]]) -> _Mistake:
    """The key that chooses among a union's models is missing or unknown."""
    tags = [tag for m in models for tag in get_args(m.model_fields[key].annotation)]
    tag = value.entries.get(key) if isinstance(value, Mapping) else value
    if tag is None:
        known = f" (known: {', '.join(tags)})"
        return _Mistake(path, value.position, f"'{path}.{key}' is required{known}")
    hint = nearest(str(tag.plain()), tags)
    return _Mistake(path, tag.position, f"'{path}': unknown {key} '{tag.plain()}'{hint}")


def _walk(node: Mapping, loc: Location) -> tuple[str, Position, Position, Node]:
    """As far as `loc` leads into the file: dotted path, place of key and of value, the node."""
    current: Node = node
    key_at = node.position
    path = []
    for part in loc:
        if isinstance(current, Mapping) and part in current.entries:
            key_at = current.key_position(str(part))
            current = current.entries[str(part)]
        elif isinstance(current, ListNode) and isinstance(part, int):
            current = current.items[part]
            key_at = current.position
        else:
            # A tag that pydantic adds for a member of a union.
            continue
        path.append(str(part))
    return ".".join(path), key_at, current.position, current


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _tags(model: type[BaseModel]) -> set[Any]:
    """What a model's literals allow: with a union's tag, the member that it names is found."""
    return {tag for field in model.model_fields.values() for tag in get_args(field.annotation)}


def _models_at(model: type[BaseModel], loc: Location) -> list[type[BaseModel]]:
    """The models that what stands at `loc` may be, for suggestions."""
    models = [model]
    for part in loc:
        fields = [field for m in models if (field := m.model_fields.get(str(part)))]
        if fields:
            models = [found for field in fields for found in _models(field.annotation)]
        else:
            models = [m for m in models if part in _tags(m)] or models
    return models
