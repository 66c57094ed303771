"""Writing an artifact: attempt-unique data files, one sidecar per finished part, the manifest last.

A part (a shard, a folder, a document) counts as written when its sidecar is there. Since data files
carry an attempt's own suffix, a late or repeated writer adds files that no manifest names and
spoils nothing; the sidecar that stands when the manifest is written names the winner.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pipeline.artifacts.cache import cache_folder
from pipeline.artifacts.checkpoints import StoreCheckpoints
from pipeline.artifacts.kinds import Kind
from pipeline.artifacts.manifest import (
    ArtifactError,
    FileRecord,
    Manifest,
    directory_of,
    read_manifest,
    write_manifest,
)
from pipeline.artifacts.store import Store, sha256_of_file

if TYPE_CHECKING:
    import pyarrow as pa

PARTS = "parts"
STATE = "state"
CHECKPOINTS = "checkpoints"
REFRESH = "refresh"
# Begins the name of a folder in which a shard is being written, or was when its writer was killed.
WRITING = "writing-"


def _new_attempt() -> str:
    return uuid.uuid4().hex[:8]


def _sidecar(directory: str, part: str, index: int) -> str:
    return f"{directory}/{PARTS}/{part}-{index:05d}.json"


def _write_sidecar(store: Store, directory: str, records: list[FileRecord]) -> None:
    first = records[0]
    text = json.dumps([record.model_dump() for record in records])
    store.write_bytes(_sidecar(directory, first.part, first.index), text.encode())


def finished_parts(store: Store, directory: str) -> dict[tuple[str, int], list[FileRecord]]:
    """Parts of an unpublished artifact that are wholly written: (part, index) -> its files."""
    found: dict[tuple[str, int], list[FileRecord]] = {}
    for name in store.list(f"{directory}/{PARTS}"):
        if not name.endswith(".json") or name.startswith("."):
            continue
        try:
            items = store.read_json(f"{directory}/{PARTS}/{name}")
            records = [FileRecord.model_validate(item) for item in items]
        except (ValueError, ValidationError, FileNotFoundError):
            continue  # A torn sidecar on a store without atomic writes: the part is written again.
        if records and all(store.size(f"{directory}/{r.path}") == r.bytes for r in records):
            found[records[0].part, records[0].index] = records
    return found


@dataclass(frozen=True)
class ShardWriter:
    """Writes shards of one table. Small, picklable: sent to the workers that make the shards."""

    store: Store
    directory: str
    table: str
    columns: Mapping[str, str]

    def write(self, index: int, table: pa.Table, info: Mapping[str, Any] | None = None) -> None:
        """Write shard number `index`. `info` is kept in the manifest beside the file.

        Raises:
            ValueError: the columns are not those of the artifact's kind.
        """
        import pyarrow.parquet as pq

        checked = conform(table, self.columns, f"{self.table} shard {index}")
        name = f"{self.table}/{index:05d}-{_new_attempt()}.parquet"
        with tempfile.TemporaryDirectory(prefix=WRITING, dir=self._temporary_parent()) as folder:
            local = Path(folder, "shard.parquet")
            pq.write_table(checked, local, compression="zstd")
            record = FileRecord(
                part=self.table,
                path=name,
                bytes=local.stat().st_size,
                sha256=sha256_of_file(local),
                index=index,
                rows=checked.num_rows,
                info=dict(info or {}),
            )
            self.store.adopt_file(local, f"{self.directory}/{name}")
        _write_sidecar(self.store, self.directory, [record])

    def done(self) -> dict[int, FileRecord]:
        """Shards of this table that an earlier attempt finished."""
        parts = finished_parts(self.store, self.directory)
        return {index: files[0] for (part, index), files in parts.items() if part == self.table}

    def infos(self) -> list[dict[str, Any]]:
        """What was said of each finished shard, of this attempt or an earlier one, in order."""
        return [record.info for _, record in sorted(self.done().items())]

    def _temporary_parent(self) -> Path | None:
        if not self.store.is_local:
            return None
        folder = self.store.local(self.directory)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def conform(table: pa.Table, columns: Mapping[str, str], what: str) -> pa.Table:
    """`table` with exactly `columns`, in order and cast to their types.

    Raises:
        ValueError: a column is missing or unknown, or a vector column has no fixed width.
    """
    import pyarrow as pa

    if set(table.column_names) != set(columns):
        raise ValueError(f"{what}: columns {table.column_names}, expected {list(columns)}")
    fields = []
    for name, spelled in columns.items():
        kind = table.schema.field(name).type
        if spelled == "vector":
            if not pa.types.is_fixed_size_list(kind):
                raise ValueError(f"{what}: column '{name}' is {kind}, not a fixed-size list")
        elif spelled.startswith("list<"):
            kind = pa.list_(pa.type_for_alias(spelled[5:-1]))
        else:
            kind = pa.type_for_alias(spelled)
        fields.append(pa.field(name, kind))
    return table.select(list(columns)).cast(pa.schema(fields))


class ArtifactWriter:
    """The artifact that a running stage is making."""

    def __init__(self, store: Store, stage: str, key: str, kind: Kind) -> None:
        self.store = store
        self.stage = stage
        self.key = key
        self.kind = kind
        self.directory = directory_of(stage, key)
        # Lies among the parts from the first use on: it is gone when somebody took them away.
        self._mark = f"{self.directory}/{PARTS}/attempt-{_new_attempt()}"
        self._begun = False

    def _begin(self) -> None:
        if not self._begun:
            self.store.write_bytes(self._mark, b"")
            self._begun = True

    # Tables -------------------------------------------------------------------------------

    def shards(self, table: str) -> ShardWriter:
        """A writer for the shards of `table`."""
        if table not in self.kind.tables:
            raise ValueError(f"a {self.kind} has no table '{table}'")
        self._begin()
        return ShardWriter(self.store, self.directory, table, self.kind.tables[table])

    def write_table(self, table: str, rows: pa.Table) -> None:
        """Write a whole table as one shard."""
        self.shards(table).write(0, rows)

    # Folders and documents ----------------------------------------------------------------

    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """A local folder whose files become the artifact's folder `name` when the block ends."""
        if name not in self.kind.folders:
            raise ValueError(f"a {self.kind} has no folder '{name}'")
        self._begin()
        with tempfile.TemporaryDirectory() as temporary:
            local = Path(temporary, name)
            local.mkdir()
            yield local
            self._store_folder(name, local)

    def _store_folder(self, name: str, local: Path) -> None:
        target = f"{name}-{_new_attempt()}"
        records = []
        for file in sorted(path for path in local.rglob("*") if path.is_file()):
            inner = file.relative_to(local).as_posix()
            record = FileRecord(
                part=name,
                name=inner,
                path=f"{target}/{inner}",
                bytes=file.stat().st_size,
                sha256=sha256_of_file(file),
            )
            self.store.adopt_file(file, f"{self.directory}/{record.path}")
            records.append(record)
        if not records:
            raise ValueError(f"folder '{name}' of {self.stage} is empty")
        _write_sidecar(self.store, self.directory, records)

    def document(self, name: str, value: Any) -> None:
        """Write a document: a string as it is, anything else as JSON."""
        if name not in self.kind.documents:
            raise ValueError(f"a {self.kind} has no document '{name}'")
        self._begin()
        text = value if isinstance(value, str) else json.dumps(value, indent=1, ensure_ascii=False)
        data = text.encode()
        stem, _, suffix = name.rpartition(".")
        path = f"{stem}-{_new_attempt()}.{suffix}"
        with tempfile.TemporaryDirectory() as temporary:
            local = Path(temporary, "document")
            local.write_bytes(data)
            digest = sha256_of_file(local)
        self.store.write_bytes(f"{self.directory}/{path}", data)
        record = FileRecord(part=name, path=path, bytes=len(data), sha256=digest)
        _write_sidecar(self.store, self.directory, [record])

    def finished(self, part: str) -> bool:
        """Whether an earlier attempt already wrote this folder or document."""
        self._begin()
        return (part, 0) in finished_parts(self.store, self.directory)

    # State between attempts ---------------------------------------------------------------

    def settle(self, name: str, value: Any) -> Any:
        """Fix a value once for all attempts: the stored one if there is one, else `value`.

        What is settled before the first shard (a precision found by looking at the device) is
        obeyed by every later attempt on whatever machine, and ends in the manifest as `resolved`.
        """
        path = f"{self.directory}/{STATE}/{name}.json"
        self.store.create(path, json.dumps(value).encode())
        return self.store.read_json(path)

    def settled(self) -> dict[str, Any]:
        """All values settled so far."""
        names = self.store.list(f"{self.directory}/{STATE}")
        return {
            name.removesuffix(".json"): self.store.read_json(f"{self.directory}/{STATE}/{name}")
            for name in names
            if name.endswith(".json") and not name.startswith(".")
        }

    @property
    def checkpoint_directory(self) -> str:
        """Where training keeps its checkpoints, relative to the root."""
        return f"{self.directory}/{CHECKPOINTS}"

    @property
    def refresh_directory(self) -> str:
        """Where training keeps what its own weights have found, relative to the root."""
        return f"{self.directory}/{REFRESH}"

    def scratch(self) -> Path:
        """A folder on this node that later attempts at the same key on this node find again."""
        folder = cache_folder() / "scratch" / f"{self.stage}-{self.key[:32]}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    # Publishing ---------------------------------------------------------------------------

    def publish(
        self,
        key_inputs: Mapping[str, Any],
        outcome: Mapping[str, Any],
        code_digest: str = "",
        run: Mapping[str, Any] | None = None,
    ) -> Manifest:
        """Write the manifest over all finished parts, then the success marker.

        Where another driver, which took this one for dead, has published it meanwhile, nothing is
        written and its manifest is returned.

        Raises:
            ValueError: a table of the artifact has gaps in its shard numbers.
            ArtifactError: its parts were moved out of the way or deleted meanwhile.
            CorruptArtifact: another driver has published it, and its manifest is damaged.
        """
        parts = finished_parts(self.store, self.directory)
        # After the parts were listed: they are cleaned away only once the marker is there.
        if published := read_manifest(self.store, self.directory):
            self._clean()
            return published
        self._check_undisturbed()
        files = [record for key in sorted(parts) for record in parts[key]]
        self._check_complete(files)
        schemas = {
            table: dict(columns)
            for table, columns in self.kind.tables.items()
            if any(record.part == table for record in files)
        }
        manifest = Manifest(
            stage=self.stage,
            key=self.key,
            kind=self.kind.name,
            key_inputs=dict(key_inputs),
            files=files,
            schemas=schemas,
            outcome=dict(outcome),
            resolved=self.settled(),
            code_digest=code_digest,
            run=dict(run or {}),
        )
        write_manifest(self.store, self.directory, manifest)
        self._clean()
        return manifest

    def _check_undisturbed(self) -> None:
        if self._begun and not self.store.exists(self._mark):
            raise ArtifactError(
                f"what was made of artifact {self.store.full(self.directory)} was moved or deleted "
                "by another driver, which took this one for dead; run again"
            )

    def _check_complete(self, files: list[FileRecord]) -> None:
        for table in self.kind.tables:
            indices = sorted(record.index for record in files if record.part == table)
            if indices != list(range(len(indices))):
                raise ValueError(f"{self.stage}: table '{table}' has shards {indices}, with gaps")

    def _clean(self) -> None:
        left = [name for name in self.store.list(self.directory) if name.startswith(WRITING)]
        for name in (PARTS, STATE, REFRESH, *left):
            self.store.delete(f"{self.directory}/{name}")
        StoreCheckpoints(self.store, self.checkpoint_directory).clear()
        shutil.rmtree(cache_folder() / "scratch" / f"{self.stage}-{self.key[:32]}", True)
