"""Checks a mapping of the pipeline file against a pydantic model, with a line for every mistake."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from pipeline.dag.yaml_nodes import Mapping, Node, Position, Problem, nearest
from pipeline.dag.yaml_nodes import Sequence as ListNode

M = TypeVar("M", bound=BaseModel)


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
        seen = set()
        for detail in error.errors(include_url=False):
            problem = _problem(model, node, what, detail["loc"], detail)
            if problem not in seen:
                seen.add(problem)
                problems.append(problem)
        return None


def _problem(
    model: type[BaseModel], node: Mapping, what: str, loc: Sequence[int | str], detail: Any
) -> Problem:
    kind = detail["type"]
    path, key_at, at, value = _walk(node, loc)
    if kind == "extra_forbidden":
        key = str(loc[-1])
        known = _fields(model, loc[:-1])
        return Problem(key_at, f"{what}: unknown key '{path or key}'{nearest(key, known)}")
    if kind == "missing":
        name = ".".join(str(part) for part in loc)
        return Problem(at, f"{what}: '{name}' is required")
    message = detail["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if path:
        message = f"'{path}': {message}, got {json.dumps(value.plain())}"
        if kind == "literal_error" and isinstance(value.plain(), str):
            choices = detail["ctx"]["expected"].replace(" or ", ", ").split(", ")
            hint = nearest(value.plain(), [choice.strip("'") for choice in choices])
            message += hint if "did you mean" in hint else ""
    return Problem(at, f"{what}: {message}")


def _walk(node: Mapping, loc: Sequence[int | str]) -> tuple[str, Position, Position, Node]:
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


def _fields(model: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    """Field names known at `loc`, for suggestions."""
    models = [model]
    for part in loc:
        fields = [field for m in models if (field := m.model_fields.get(str(part)))]
        if fields:
            models = [found for field in fields for found in _models(field.annotation)]
    return sorted({name for found in models for name in found.model_fields})
