"""Toy stages over lists of numbers, and a pipeline file that wires them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from pipeline.artifacts.kinds import Kind
from pipeline.dag.contract import (
    Context,
    FileSource,
    HubSource,
    Input,
    Inputs,
    Outcome,
    OutsidePath,
    OutsideSource,
    PackageSource,
    Params,
    StageType,
    stage,
)

NUMBERS = Kind(
    "Numbers", tables={"rows": {"value": "int32"}}, documents=("numbers.json",), folders=("files",)
)
SORTED = Kind("Sorted", documents=("numbers.json",), refines=NUMBERS)
TOTAL = Kind("Total", documents=("total.json",))

# The stages that ran in this process, by name.
CALLS: list[str] = []


class Options(Params):
    deep: bool = True
    rate: float = 0.1


class NumbersParams(Params):
    count: int = 3
    path: OutsidePath | None = None
    paths: tuple[OutsidePath, ...] = ()
    package: str | None = None
    hub: str | None = None
    options: Options = Options()
    label: Annotated[str, Field(exclude=True)] = ""

    def outside(self) -> Sequence[OutsideSource]:
        found: list[OutsideSource] = [FileSource(p) for p in (self.path, *self.paths) if p]
        if self.package:
            found.append(PackageSource(self.package))
        if self.hub:
            found.append(HubSource(self.hub))
        return found


@stage(params=NumbersParams, output=NUMBERS, sources=NumbersParams.outside, libraries=["pydantic"])
def numbers(inputs: Inputs, params: NumbersParams, writer, context: Context) -> Outcome:
    """Counts from nought."""
    CALLS.append(context.stage)
    values = list(range(params.count))
    if params.path:
        values = [int(word) for word in Path(params.path).read_text().split()]
    writer.document("numbers.json", values)
    return Outcome(rows_in=len(values), rows_out=len(values), unit="numbers")


class ScaleParams(Params):
    factor: int = 2
    mode: Literal["times", "plus"] = "times"
    fail: bool = False

    @field_validator("factor")
    @classmethod
    def _positive(cls, value: int) -> int:
        if value < 1:
            raise ValueError("factor must be at least 1")
        return value


@stage(params=ScaleParams, inputs={"numbers": NUMBERS}, output=SORTED)
def scale(inputs: Inputs, params: ScaleParams, writer, context: Context) -> Outcome:
    """Scales numbers; drops odd results."""
    CALLS.append(context.stage)
    if params.fail or os.environ.get("TOY_FAIL") == context.stage:
        raise RuntimeError("told to fail")
    given = inputs["numbers"].document("numbers.json")
    values = [v * params.factor if params.mode == "times" else v + params.factor for v in given]
    kept = [value for value in values if value % 2 == 0]
    writer.document("numbers.json", kept)
    dropped = {"odd": len(values) - len(kept)} if len(kept) < len(values) else {}
    return Outcome(
        rows_in=len(values),
        rows_out=len(kept),
        unit="numbers",
        dropped=dropped,
        warnings=["something odd"] if dropped else [],
    )


class TotalParams(Params):
    pass


@stage(
    params=TotalParams,
    inputs={"parts": Input((NUMBERS,), many=True), "offset": Input((TOTAL,), optional=True)},
    output=TOTAL,
)
def total(inputs: Inputs, params: TotalParams, writer, context: Context) -> Outcome:
    """Adds up."""
    CALLS.append(context.stage)
    parts = [artifact.document("numbers.json") for artifact in inputs.many("parts")]
    offset = inputs.get("offset")
    value = sum(map(sum, parts)) + (offset.document("total.json") if offset else 0)
    writer.document("total.json", value)
    return Outcome(
        rows_in=sum(map(len, parts)),
        rows_out=1,
        metrics={"total": value},
        report=f"The total is {value}.",
    )


class DrawParams(Params):
    pass


@stage(
    params=DrawParams,
    inputs={"numbers": Input((NUMBERS,), optional=True)},
    output=NUMBERS,
    draws=True,
)
def draw(inputs: Inputs, params: DrawParams, writer, context: Context) -> Outcome:
    """Writes its own seed."""
    CALLS.append(context.stage)
    writer.document("numbers.json", [context.seed])
    return Outcome(rows_in=0, rows_out=1)


class SlowParams(Params):
    shards: int = 4
    seconds: float = 0.0


@stage(params=SlowParams, output=NUMBERS)
def slow(inputs: Inputs, params: SlowParams, writer, context: Context) -> Outcome:
    """Writes shards one by one, and a line per shard to `$TOY_LOG`."""
    import pyarrow as pa

    CALLS.append(context.stage)
    shards = writer.shards("rows")
    done = shards.done()
    context.progress.start("writing", params.shards, "shards")
    for index in range(params.shards):
        if index in done:
            continue
        shards.write(index, pa.table({"value": pa.array([index], pa.int32())}))
        if log := os.environ.get("TOY_LOG"):
            with open(log, "a") as file:
                file.write(f"{index}\n")
        context.progress.advance(1)
        time.sleep(params.seconds)
    writer.document("numbers.json", list(range(params.shards)))
    return Outcome(rows_in=params.shards, rows_out=params.shards)


def registry() -> dict[str, StageType]:
    return {kind.name: kind for kind in (numbers, scale, total, draw, slow)}


PIPELINE = """\
name: toy
root: {root}
seed: 13
stages:
  data: {{uses: numbers, params: {{count: 4}}}}
  left: {{uses: scale, inputs: {{numbers: data}}}}
  right: {{uses: scale, inputs: {{numbers: data}}, params: {{factor: 3}}}}
  random: {{uses: draw}}
  sum: {{uses: total, inputs: {{parts: [left, right]}}}}
"""
