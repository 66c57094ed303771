"""Reading published artifacts: what the manifest lists, never what a folder happens to hold."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifacts.cache import build_once, cache_folder, local_file, local_folder
from pipeline.artifacts.manifest import (
    ArtifactError,
    CorruptArtifact,
    FileRecord,
    Manifest,
    directory_of,
    read_manifest,
)
from pipeline.artifacts.store import Store, sha256_of_file

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Shard:
    """One Parquet file of a table; small enough to send to any worker.

    Attributes:
        index: the shard's number within its table.
        rows: its rows.
        first_row: the table row that its first row is.
    """

    store: Store
    directory: str
    record: FileRecord
    index: int
    rows: int
    first_row: int

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The shard's rows; raises CorruptArtifact where the file is not what was written."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = local_file(self.store, self.directory, self.record)
        try:
            table = pq.read_table(path, columns=list(columns) if columns else None)
        except (pa.ArrowInvalid, OSError) as error:
            where = self.store.full(self.directory)
            raise CorruptArtifact(where, f"{self.record.path}: {error}") from error
        return table


class Artifact:
    """A published artifact, opened."""

    def __init__(self, store: Store, directory: str, manifest: Manifest) -> None:
        self.store = store
        self.directory = directory
        self.manifest = manifest

    @classmethod
    def open(cls, store: Store, stage: str, key: str) -> Artifact:
        """Open the artifact of a stage and key; raises ArtifactError where there is none."""
        directory = directory_of(stage, key)
        manifest = read_manifest(store, directory)
        if manifest is None:
            raise ArtifactError(f"there is no artifact at {store.full(directory)}")
        return cls(store, directory, manifest)

    @property
    def kind_name(self) -> str:
        """The name of the artifact's kind."""
        return self.manifest.kind

    @property
    def key(self) -> str:
        """The key it is addressed by."""
        return self.manifest.key

    @property
    def resolved(self) -> dict[str, Any]:
        """What was left open in the parameters and settled when the artifact was made."""
        return self.manifest.resolved

    def __str__(self) -> str:
        return self.store.full(self.directory)

    # Tables -------------------------------------------------------------------------------

    def _records(self, part: str) -> list[FileRecord]:
        return sorted(
            (record for record in self.manifest.files if record.part == part),
            key=lambda record: (record.index, record.name),
        )

    def has(self, part: str) -> bool:
        """Whether the artifact holds a table, folder or document of this name."""
        return any(record.part == part for record in self.manifest.files)

    def shards(self, table: str) -> list[Shard]:
        """The shards of a table in row order; empty where it has none."""
        shards, first_row = [], 0
        for record in self._records(table):
            rows = record.rows or 0
            shards.append(Shard(self.store, self.directory, record, record.index, rows, first_row))
            first_row += rows
        return shards

    def rows(self, table: str) -> int:
        """Rows of a table; 0 where it has none."""
        return sum(record.rows or 0 for record in self._records(table))

    def read(self, table: str, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows of a table, in order. For tables that fit in memory."""
        import pyarrow as pa

        tables = list(self.iterate(table, columns))
        if not tables:
            raise ArtifactError(f"{self} has no table '{table}'")
        return pa.concat_tables(tables)

    def iterate(self, table: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows of a table, shard by shard."""
        for shard in self.shards(table):
            yield shard.read(columns)

    # Folders and documents ----------------------------------------------------------------

    def folder(self, name: str) -> Path:
        """A local folder with the files of the artifact's folder `name`."""
        records = self._records(name)
        if not records:
            raise ArtifactError(f"{self} has no folder '{name}'")
        return local_folder(self.store, self.directory, records)

    def text(self, name: str) -> str:
        """The text of a document."""
        records = self._records(name)
        if not records:
            raise ArtifactError(f"{self} has no document '{name}'")
        return local_file(self.store, self.directory, records[0]).read_text(encoding="utf-8")

    def document(self, name: str) -> Any:
        """The parsed JSON of a document."""
        return json.loads(self.text(name))

    def derived(self, name: str, build: Callable[[Path], None]) -> Path:
        """A node-local folder made from this artifact by `build(empty folder)`, once per node."""
        return build_once(self._derived(name), build)

    def forget_derived(self, name: str) -> None:
        """Remove this node's folder of that name, if it was made."""
        shutil.rmtree(self._derived(name), ignore_errors=True)

    def _derived(self, name: str) -> Path:
        return cache_folder() / name / self.manifest.content_digest[:32]

    # Checking -----------------------------------------------------------------------------

    def check_sizes(self) -> None:
        """Raise CorruptArtifact if a file is gone or has another size. Quick."""
        for record in self.manifest.files:
            size = self.store.size(f"{self.directory}/{record.path}")
            if size != record.bytes:
                found = "is gone" if size is None else f"has {size} bytes, not {record.bytes}"
                raise CorruptArtifact(str(self), f"{record.path} {found}")

    def damage(self, on_bytes: Callable[[int], None] | None = None) -> list[str]:
        """Re-hash every file; what is wrong, one line a file. `on_bytes` counts progress."""
        found = []
        for record in self.manifest.files:
            path = f"{self.directory}/{record.path}"
            if self.store.size(path) is None:
                found.append(f"{record.path} is gone")
                continue
            if self._hash(path) != record.sha256:
                found.append(f"{record.path} has another hash than its manifest says")
            if on_bytes:
                on_bytes(record.bytes)
        return found

    def _hash(self, path: str) -> str:
        import hashlib

        if self.store.is_local:
            return sha256_of_file(self.store.local(path))
        digest = hashlib.sha256()
        with self.store.open(path) as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
        return digest.hexdigest()
