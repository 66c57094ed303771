"""Where a training run keeps its checkpoints."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.artifacts.store import sha256_of_file

DIGESTS = "digests.json"
TEMPORARY = ".writing"


class CheckpointStore(Protocol):
    """Keeps folders of files by step. Only rank 0 saves; every rank reads, and finds the same."""

    def save(self, step: int, folder: Path) -> None:
        """Keep a copy of the files of `folder` as the checkpoint after `step` steps."""

    def latest(self) -> tuple[int, Path] | None:
        """The newest undamaged checkpoint as (steps done, local folder), or None."""


@dataclass(frozen=True)
class FolderCheckpoints:
    """Checkpoints as folders `step-N` of a local (or mounted) folder.

    A checkpoint is written under a temporary name, flushed to the disk and then renamed, so that a
    crash leaves either all of it or nothing that is read.

    Attributes:
        path: the folder that holds them; created when needed.
        note: told about a checkpoint that is passed over because it is damaged.
        keep: how many are kept; with two, a damaged one falls back to the one before.
    """

    path: Path
    note: Callable[[str], None] = lambda _: None
    keep: int = 2

    def save(self, step: int, folder: Path) -> None:
        """Keep a copy of the files of `folder` as the checkpoint after `step` steps."""
        temporary, target = self.path / TEMPORARY, self._folder(step)
        for stale in (temporary, target):
            shutil.rmtree(stale, ignore_errors=True)
        shutil.copytree(folder, temporary)
        files = [path for path in temporary.rglob("*") if path.is_file()]
        digests = {str(path.relative_to(temporary)): sha256_of_file(path) for path in files}
        (temporary / DIGESTS).write_text(json.dumps(digests))
        for path in [*files, temporary / DIGESTS, temporary]:
            _flush(path)
        temporary.rename(target)
        _flush(self.path)
        for old in self._steps()[: -self.keep]:
            shutil.rmtree(self._folder(old))

    def latest(self) -> tuple[int, Path] | None:
        """The newest undamaged checkpoint as (steps done, folder), or None."""
        for step in reversed(self._steps()):
            folder = self._folder(step)
            if _is_whole(folder):
                return step, folder
            self.note(f"checkpoint {folder} is damaged; falling back to the one before it")
        return None

    def _folder(self, step: int) -> Path:
        return self.path / f"step-{step}"

    def _steps(self) -> list[int]:
        return sorted(int(found.name.removeprefix("step-")) for found in self.path.glob("step-*"))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_whole(folder: Path) -> bool:
    try:
        digests = json.loads((folder / DIGESTS).read_text())
        return all(sha256_of_file(folder / name) == digest for name, digest in digests.items())
    except (OSError, ValueError):
        return False
