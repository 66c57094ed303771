"""Splits and search depths, as parameters that several stages share."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from pipeline.sources.records import Split

Depths: TypeAlias = Annotated[dict[Split, Annotated[int, Field(ge=1)]], Field(min_length=1)]
"""split -> candidates per query."""
