"""Training checkpoints below an unpublished artifact, on local disks and object stores alike."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.artifacts.cache import cache_folder, copied_folder
from pipeline.artifacts.keys import digest
from pipeline.artifacts.manifest import CorruptArtifact, FileRecord
from pipeline.artifacts.store import Store, sha256_of_file


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    step: int
    files: list[FileRecord]


@dataclass(frozen=True)
class StoreCheckpoints:
    """Checkpoints as `step-N/` folders; a checkpoint exists once its `step-N.json` does.

    Attributes:
        directory: where they live, relative to the root.
        note: told of each damaged checkpoint that is passed over.
        keep: how many are kept. Two, so that a damaged latest one falls back to the one before.
    """

    store: Store
    directory: str
    note: Callable[[str], None] = print
    keep: int = 2

    def steps(self) -> list[int]:
        """The steps of the checkpoints that are kept, in order."""
        names = self.store.list(self.directory)
        return sorted(
            int(name.removeprefix("step-").removesuffix(".json"))
            for name in names
            if name.startswith("step-") and name.endswith(".json")
        )

    def save(self, step: int, folder: Path) -> None:
        """Keep the files of a local folder as the checkpoint of `step`."""
        records = []
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            inner = file.relative_to(folder).as_posix()
            record = FileRecord(
                part="checkpoint",
                name=inner,
                path=f"step-{step}/{inner}",
                bytes=file.stat().st_size,
                sha256=sha256_of_file(file),
            )
            self.store.put_file(file, f"{self.directory}/{record.path}")
            records.append(record)
        entry = _Entry(step=step, files=records)
        self.store.write_bytes(
            f"{self.directory}/step-{step}.json", entry.model_dump_json().encode()
        )
        for old in self.steps()[: -self.keep]:
            self.store.delete(f"{self.directory}/step-{old}.json")
            self.store.delete(f"{self.directory}/step-{old}")

    def latest(self) -> tuple[int, Path] | None:
        """The newest undamaged checkpoint as (step, local folder), or None."""
        steps = self.steps()
        self._forget_copies(steps)
        for step in reversed(steps):
            try:
                entry = _Entry.model_validate(
                    self.store.read_json(f"{self.directory}/step-{step}.json")
                )
                return step, self._local(entry)
            except (ValueError, ValidationError, FileNotFoundError, CorruptArtifact) as error:
                self.note(f"checkpoint of step {step} is damaged, going back further: {error}")
        return None

    def _local(self, entry: _Entry) -> Path:
        if not self.store.is_local:
            return self._copy(entry)
        target = self.store.local(f"{self.directory}/step-{entry.step}")
        for record in entry.files:
            path = target / record.name
            if not path.is_file() or sha256_of_file(path) != record.sha256:
                raise CorruptArtifact(str(target), f"{record.name} has another hash")
        return target

    def _copy(self, entry: _Entry) -> Path:
        """A folder that all processes of this node share, so nobody writes to it any more."""
        for record in entry.files:
            # This node may have a copy still where others, which must agree, find nothing whole.
            if self.store.size(f"{self.directory}/{record.path}") != record.bytes:
                where = self.store.full(self.directory)
                raise CorruptArtifact(where, f"{record.path} is gone or has another size")
        return copied_folder(
            self.store, self.directory, entry.files, self._copies / f"step-{entry.step}"
        )

    @property
    def _copies(self) -> Path:
        of_this_root = digest([self.store.uri, self.directory])[:32]
        return cache_folder() / "checkpoints" / of_this_root

    def _forget_copies(self, kept: Collection[int]) -> None:
        """Remove this node's copies of checkpoints that are no longer kept.

        Those that are may be in use: every rank of a node reads them, each at its own time.
        """
        names = {f"step-{step}" for step in kept}
        if self._copies.is_dir():
            for folder in self._copies.iterdir():
                if folder.name not in names:
                    shutil.rmtree(folder, ignore_errors=True)

    def clear(self) -> None:
        """Remove all checkpoints, and this node's copies of them."""
        self.store.delete(self.directory)
        shutil.rmtree(self._copies, ignore_errors=True)
