"""Training checkpoints below an unpublished artifact, on local disks and object stores alike."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.artifacts.cache import cache_folder, fetch_checked
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
        for step in reversed(self.steps()):
            try:
                entry = _Entry.model_validate(
                    self.store.read_json(f"{self.directory}/step-{step}.json")
                )
                return step, self._local(entry)
            except (ValueError, ValidationError, FileNotFoundError, CorruptArtifact) as error:
                self.note(f"checkpoint of step {step} is damaged, going back further: {error}")
        return None

    def _local(self, entry: _Entry) -> Path:
        target = cache_folder() / "checkpoints" / self.directory / f"step-{entry.step}"
        if self.store.is_local:
            target = self.store.local(f"{self.directory}/step-{entry.step}")
            for record in entry.files:
                path = target / record.name
                if not path.is_file() or sha256_of_file(path) != record.sha256:
                    raise CorruptArtifact(str(target), f"{record.name} has another hash")
            return target
        shutil.rmtree(target, ignore_errors=True)
        for record in entry.files:
            path = target / record.name
            path.parent.mkdir(parents=True, exist_ok=True)
            fetch_checked(self.store, self.directory, record, path)
        return target

    def clear(self) -> None:
        """Remove all checkpoints."""
        self.store.delete(self.directory)
