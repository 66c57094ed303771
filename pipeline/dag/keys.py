"""The key of a stage: a digest of everything that its result depends on, and of nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from pipeline.dag.contract import FileSource, Outside, OutsideSource
from pipeline.dag.identities import Identity, package_version
from pipeline.dag.specification import Stage

KEY_VERSION = 1


def stage_seed(seed: int, stage_type: str) -> int:
    """The seed of a stage: 31 bits of SHA-256 over the pipeline's seed and the stage type."""
    data = hashlib.sha256(f"{seed}:{stage_type}".encode()).digest()
    return int.from_bytes(data[:4], "big") >> 1


def key_inputs(
    stage: Stage,
    input_keys: Mapping[str, Sequence[str]],
    sources: Sequence[tuple[OutsideSource, Identity]],
) -> dict[str, Any]:
    """What the key of `stage` is a digest of.

    Args:
        stage: the stage.
        input_keys: the keys of the artifacts wired to each input, in order.
        sources: its outside sources with their identities.
    """
    found: dict[str, Any] = {
        "key_version": KEY_VERSION,
        "stage": stage.type.name,
        "code_version": stage.type.code_version,
        "params": _without_paths(stage.params, sources),
        "inputs": {name: list(keys) for name, keys in input_keys.items() if keys},
        "sources": [dict(identity) for _, identity in sources],
        "libraries": {name: major_minor(name) for name in stage.type.libraries},
    }
    if stage.type.draws:
        found["seed"] = stage_seed(stage.seed, stage.type.name)
    return found


def major_minor(distribution: str) -> str | None:
    """`2.13` of an installed `2.13.0+cpu`; None where it is not installed."""
    version = package_version(distribution)
    return ".".join(version.split("+")[0].split(".")[:2]) if version else None


def _without_paths(
    params: BaseModel, sources: Sequence[tuple[OutsideSource, Identity]]
) -> dict[str, Any]:
    identities = {
        source.path: dict(identity)
        for source, identity in sources
        if isinstance(source, FileSource)
    }
    dumped: dict[str, Any] = params.model_dump(mode="json")
    return _replaced(params, dumped, identities)


def _replaced(
    params: BaseModel, dumped: dict[str, Any], identities: dict[str, Any]
) -> dict[str, Any]:
    result = dict(dumped)
    for name, field in type(params).model_fields.items():
        if name not in dumped:
            continue  # A field that its model leaves out of dumps is not in the key.
        value = getattr(params, name)
        if isinstance(value, BaseModel):
            result[name] = _replaced(value, dumped[name], identities)
        elif any(isinstance(mark, Outside) for mark in _marks(field.annotation, field.metadata)):
            result[name] = _exchanged(dumped[name], identities)
    return result


def _marks(annotation: Any, metadata: Sequence[Any]) -> Iterator[Any]:
    yield from metadata
    yield from getattr(annotation, "__metadata__", ())
    for argument in get_args(annotation):
        yield from _marks(argument, ())


def _exchanged(value: Any, identities: dict[str, Any]) -> Any:
    if isinstance(value, str):
        return identities.get(value, value)
    if isinstance(value, list):
        return [_exchanged(item, identities) for item in value]
    if isinstance(value, dict):
        return {key: _exchanged(item, identities) for key, item in value.items()}
    return value


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Fields that differ between two `key_inputs`, as (dotted path, old, new); own causes first."""
    order = ("stage", "code_version", "params", "sources", "seed", "libraries", "inputs")
    fields = [*order, *sorted((set(old) | set(new)) - set(order))]
    return [hit for field in fields for hit in _compared(field, old.get(field), new.get(field))]


def _compared(path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*new, *(key for key in old if key not in new)]:
            yield from _compared(f"{path}.{key}", old.get(key), new.get(key))
    elif old != new:
        yield path, old, new
