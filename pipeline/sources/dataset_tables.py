"""The tables of a Dataset beside its passages, and the report on how they came about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Report:
    """What became of the rows of a source.

    Attributes:
        rows_in: rows read, good and bad.
        rows_out: rows of all tables.
        dropped: reason -> rows; `rows_in` is `rows_out` plus these.
        counts: other numbers.
        warnings: what the user should look at.
    """

    rows_in: int
    rows_out: int
    dropped: Mapping[str, int]
    counts: Mapping[str, int]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class DatasetTables:
    """The tables of a Dataset beside its passages, and the report on all of them."""

    queries: pa.Table
    qrels: pa.Table
    answers: pa.Table
    excluded: pa.Table
    negatives: pa.Table
    hidden_qrels: pa.Table
    report: Report
