"""The node-local cache: hash-checked files of remote artifacts, and folders made from artifacts."""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.artifacts.keys import digest
from pipeline.artifacts.manifest import CorruptArtifact, FileRecord
from pipeline.artifacts.store import Store, sha256_of_file

CACHE_VARIABLE = "ROCKETQA_RAY_CACHE"


def cache_folder() -> Path:
    """`$ROCKETQA_RAY_CACHE`, or a folder below the user's cache directory."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "rocketqa-ray")


def build_once(target: Path, build: Callable[[Path], None]) -> Path:
    """Make folder `target` by `build(empty folder)` unless it is there; safe between processes.

    Processes of one machine wait for the one that builds. Where they cannot (no locks on that file
    system), each builds; the first to finish wins and another's copy is thrown away.
    """
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    with _one_at_a_time(target.with_name(f".{target.name}.lock")):
        if target.is_dir():
            return target
        temporary.mkdir()
        try:
            build(temporary)
            try:
                os.rename(temporary, target)
            except OSError:
                if not target.is_dir():
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return target


@contextmanager
def _one_at_a_time(file: Path) -> Iterator[None]:
    """Hold a lock that the system lets go when its process dies."""
    with file.open("w") as handle:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def fetch_checked(store: Store, directory: str, record: FileRecord, target: Path) -> None:
    """Copy one file of an artifact to `target` and compare its hash with the manifest's."""
    try:
        store.fetch(f"{directory}/{record.path}", target)
    except FileNotFoundError:
        raise CorruptArtifact(store.full(directory), f"{record.path} is gone") from None
    if sha256_of_file(target) != record.sha256:
        raise CorruptArtifact(store.full(directory), f"{record.path} has another hash")


def local_file(store: Store, directory: str, record: FileRecord) -> Path:
    """A local path with the bytes of `record`: in place for local roots, cached for remote ones."""
    where = f"{directory}/{record.path}"
    if store.is_local:
        if store.size(where) != record.bytes:
            found = "is gone" if store.size(where) is None else "has another size"
            raise CorruptArtifact(store.full(directory), f"{record.path} {found}")
        return store.local(where)
    target = cache_folder() / "files" / record.sha256[:2] / record.sha256

    def build(folder: Path) -> None:
        fetch_checked(store, directory, record, folder / "data")

    return build_once(target, build) / "data"


def local_folder(store: Store, directory: str, records: Sequence[FileRecord]) -> Path:
    """A local folder with the files of `records` under their names."""
    if store.is_local:
        for record in records:
            local_file(store, directory, record)
        first = records[0]
        return store.local(f"{directory}/{first.path.removesuffix(first.name).rstrip('/')}")
    return copied_folder(store, directory, records, cache_folder() / "folders")


def copied_folder(
    store: Store, directory: str, records: Sequence[FileRecord], parent: Path
) -> Path:
    """A folder below `parent` with hash-checked copies of the files of `records`, made once.

    It is named by what it holds: an artifact that is made again has the same key and may hold
    other bytes.
    """

    def build(folder: Path) -> None:
        for record in records:
            target = folder / record.name
            target.parent.mkdir(parents=True, exist_ok=True)
            fetch_checked(store, directory, record, target)

    contents = digest(sorted([record.name, record.sha256] for record in records))
    return build_once(parent / contents[:32], build)
