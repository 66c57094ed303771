"""What outside sources are, by content: file digests, package versions, hub commits."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any

from pipeline.artifacts.keys import digest
from pipeline.artifacts.store import CHUNK_BYTES, Store
from pipeline.dag.contract import (
    FileSource,
    HubSource,
    OutsideSource,
    PackageSource,
    Progress,
    ValueSource,
)
from pipeline.dag.layout import MEMORY
from pipeline.dag.roots import recall, remember

COMMIT = re.compile(r"[0-9a-f]{40}\Z")
MEMORY_FILE = f"{MEMORY}/files.json"
# A file changed again within the clock's grain would look the same: too fresh to be remembered.
SETTLED_SECONDS = 2.0
# Hashing this much takes long enough to be worth a progress line.
PROGRESS_BYTES = 64 << 20

Identity = Mapping[str, str]


class SourceMissing(Exception):
    """An outside source is not there, so that its identity cannot be known yet."""


@cache
def package_version(name: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def hub_cache() -> Path:
    """The folder in which the hub's client keeps downloaded models."""
    named = os.environ.get("HF_HUB_CACHE")
    if named:
        return Path(named)
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    return Path(home, "hub")


def cached_commit(model: str, revision: str | None) -> str | None:
    """The commit that the hub cache has for a branch or tag of `model`, or None."""
    if revision and COMMIT.match(revision):
        return revision
    name = "models--" + model.replace("/", "--")
    reference = hub_cache() / name / "refs" / (revision or "main")
    try:
        commit = reference.read_text().strip()
    except OSError:
        return None
    return commit if COMMIT.match(commit) else None


class Identities:
    """Identifies outside sources; remembers the digests of files below the root.

    Args:
        store: the root.
        progress: told about long hashing.
        online: whether the hub may be asked for the commit of a model that is not in its cache.
    """

    def __init__(
        self, store: Store, progress: Progress | None = None, online: bool = False
    ) -> None:
        self._store = store
        self._progress = progress
        self._online = online
        self._memory: dict[str, list[Any]] | None = None
        self._changed = False

    def identify(self, source: OutsideSource) -> Identity:
        """The identity of `source`; raises SourceMissing."""
        if isinstance(source, FileSource):
            return {"sha256": self._file(source.path)}
        if isinstance(source, PackageSource):
            version = package_version(source.name)
            if version is None:
                raise SourceMissing(f"package {source.name} is not installed")
            return {"package": source.name, "version": version}
        if isinstance(source, ValueSource):
            return {source.name: source.value}
        return self._hub(source)

    def save(self) -> None:
        """Keep newly hashed files in mind, where that can be."""
        if self._changed:
            remember(self._store, MEMORY_FILE, self._memory)
            self._changed = False

    # Models ---------------------------------------------------------------------------------------

    def _hub(self, source: HubSource) -> Identity:
        commit = cached_commit(source.model, source.revision)
        if commit is None and self._online:
            commit = _asked_commit(source)
        if commit is None:
            raise SourceMissing(f"model {source.model} is not in the hub cache ({hub_cache()})")
        return {"hub": source.model, "commit": commit}

    # Files ----------------------------------------------------------------------------------------

    def _file(self, path: str) -> str:
        try:
            return self._remote_file(path) if "://" in path else self._local_file(path)
        except SourceMissing:
            raise
        except Exception as error:
            # Anything from a folder's permissions to a bucket out of reach, by any client's name.
            raise SourceMissing(f"{path} cannot be read: {error}") from error

    def _local_file(self, path: str) -> str:
        found = Path(path).expanduser()
        if found.is_file():
            return self._digests([found])[found]
        if not found.is_dir():
            raise SourceMissing(f"{path} does not exist")
        files = sorted(_files_below(found))
        if not files:
            raise SourceMissing(f"folder {path} is empty")
        digests = self._digests(files)
        return digest([[file.relative_to(found).as_posix(), digests[file]] for file in files])

    def _digests(self, files: list[Path]) -> dict[Path, str]:
        known: dict[Path, str] = {}
        new: list[Path] = []
        for file in files:
            found = self._recalled(str(file.absolute()), _stamp(file))
            if found is None:
                new.append(file)
            else:
                known[file] = found
        total = sum(file.stat().st_size for file in new)
        progress = self._progress if total >= PROGRESS_BYTES else None
        if progress:
            progress.start("hashing new source files", total, "bytes")
        for file in new:
            stamp = _stamp(file)
            with file.open("rb") as stream:
                known[file] = _sha256(stream, progress)
            if time.time() - stamp[1] / 1e9 > SETTLED_SECONDS:
                self._remember(str(file.absolute()), stamp, known[file])
        return known

    def _remote_file(self, uri: str) -> str:
        import fsspec

        filesystem, path = fsspec.core.url_to_fs(uri)
        try:
            found = filesystem.find(path, detail=True)
        except FileNotFoundError:
            found = {}
        if not found:
            raise SourceMissing(f"{uri} does not exist")
        digests = []
        for name, info in sorted(found.items()):
            version = str(info.get("ETag") or info.get("etag") or info.get("mtime") or "")
            stamp = [int(info["size"]), version, 0]
            content = self._recalled(f"{uri}#{name}", stamp) if version else None
            if content is None:
                with filesystem.open(name, "rb") as stream:
                    content = _sha256(stream, None)
                self._remember(f"{uri}#{name}", stamp, content)
            digests.append((name.removeprefix(path).lstrip("/"), content))
        whole_file = len(digests) == 1 and not digests[0][0]
        return digests[0][1] if whole_file else digest(digests)

    def _recalled(self, name: str, stamp: list[Any]) -> str | None:
        if self._memory is None:
            self._memory = recall(self._store, MEMORY_FILE)
        entry = self._memory.get(name)
        return str(entry[-1]) if entry and entry[:-1] == stamp else None

    def _remember(self, name: str, stamp: list[Any], content: str) -> None:
        if self._memory is not None:
            self._memory[name] = [*stamp, content]
            self._changed = True


def _sha256(stream: IO[bytes], progress: Progress | None) -> str:
    hasher = hashlib.sha256()
    while chunk := stream.read(CHUNK_BYTES):
        hasher.update(chunk)
        if progress:
            progress.advance(len(chunk))
    return hasher.hexdigest()


def _stamp(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            yield Path(parent, name)


def _asked_commit(source: HubSource) -> str:
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(source.model, revision=source.revision, timeout=20)
    except Exception as error:
        # Anything from no network to no such model; the client's own exceptions vary by version.
        raise SourceMissing(f"model {source.model}: {error}") from error
    if not info.sha:
        raise SourceMissing(f"model {source.model} has no commit")
    return str(info.sha)
