from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
import zstandard
from pydantic import TypeAdapter

from pipeline.sources.assemble import Assembly
from pipeline.sources.dataset_tables import DatasetTables
from pipeline.sources.records import Problems
from pipeline.sources.registry import SourceConfiguration, open_source

CONFIGURATION: TypeAdapter[Any] = TypeAdapter(SourceConfiguration)


class Read(NamedTuple):
    """A source, read and assembled, with ids in place of row numbers."""

    shards: list[pa.Table]
    tables: DatasetTables
    problems: Problems

    @property
    def passages(self) -> dict[str, tuple[str, str]]:
        rows = pa.concat_tables(self.shards).to_pylist()
        return {row["passage_id"]: (row["title"], row["text"]) for row in rows}

    @property
    def queries(self) -> dict[str, tuple[str, str]]:
        rows = self.tables.queries.to_pylist()
        return {row["query_id"]: (row["text"], row["split"]) for row in rows}

    def pairs(self, table: str) -> list[tuple[Any, ...]]:
        passage_ids = list(self.passages)
        query_ids = list(self.queries)
        found = []
        for row in getattr(self.tables, table).to_pylist():
            query, passage, *rest = row.values()
            found.append((query_ids[query], passage_ids[passage], *rest))
        return found

    @property
    def answers(self) -> dict[str, list[str]]:
        query_ids = list(self.queries)
        rows = self.tables.answers.to_pylist()
        return {query_ids[row["query_index"]]: row["answers"] for row in rows}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Mapping[str, Any]], Path]:
    """Write files: text or bytes as they are, lists as JSON lines; `.gz` and `.zst` compressed."""

    def write_all(files: Mapping[str, Any]) -> Path:
        for name, content in files.items():
            if isinstance(content, list):
                content = "".join(json.dumps(row) + "\n" for row in content)
            data = content.encode() if isinstance(content, str) else content
            if name.endswith(".gz"):
                data = gzip.compress(data)
            if name.endswith(".zst"):
                data = zstandard.ZstdCompressor().compress(data)
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(data)
        return tmp_path

    return write_all


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Read]:
    """Read and assemble the source that the keyword arguments configure, in `tmp_path`."""

    def read_all(
        *, on_problem: Any = "fail", shard: int = 1000, share: float = 0.0, **configuration: Any
    ) -> Read:
        if configuration["format"] != "ir_datasets":
            configuration.setdefault("path", str(tmp_path))
        problems = Problems(on_problem)
        source = open_source(CONFIGURATION.validate_python(configuration), problems)
        assembly = Assembly(source, passages_per_shard=shard, validation_share=share, seed=13)
        shards = list(assembly.passages())
        tables = assembly.finish()
        report = tables.report
        assert report.rows_in == report.rows_out + sum(report.dropped.values())
        return Read(shards, tables, problems)

    return read_all
