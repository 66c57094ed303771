"""Byte-level storage under one root URI: a local folder, `s3://bucket/prefix`, `gs://…`.

Everything above speaks in paths relative to the root, joined with `/`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from glob import has_magic
from pathlib import Path
from typing import IO, Any

CHUNK_BYTES = 1 << 22
# How long a file that another process creates may be empty before it counts as abandoned.
FILLING_TRIES = 50
FILLING_SECONDS = 0.1
# Schemes whose address begins with a bucket.
BUCKETS = frozenset({"s3", "s3a", "gs", "gcs"})


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a local file's bytes, as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def wrong_root(uri: str) -> str:
    """What is wrong with the address of a root and what to do, or "" where nothing is.

    A variable that is not set leaves such addresses behind.
    """
    if not uri.strip():
        return "is empty: name a folder or an address"
    scheme, separator, rest = uri.partition("://")
    if not separator:
        scheme, rest = "file", uri
    if scheme != "file":
        if not rest.strip("/") or (scheme in BUCKETS and rest.startswith("/")):
            return f"names no bucket: write {scheme}://BUCKET/PREFIX"
    elif not rest.strip("/"):
        return "is no folder for artifacts: name one below it"
    return ""


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create_without_links(target: Path, data: bytes) -> bool:
    """As `Store.create`, on file systems that know no links (FUSE mounts, exFAT).

    The name is there a moment before the contents: who comes second waits for them.
    """
    try:
        with target.open("xb") as file:
            file.write(data)
    except FileExistsError:
        for _ in range(FILLING_TRIES):
            with suppress(FileNotFoundError):
                if not target.stat().st_size:
                    time.sleep(FILLING_SECONDS)
                    continue
            break
        return False
    return True


@dataclass(frozen=True)
class Store:
    """A root for artifacts. Cheap to create and to pickle; connects on first use.

    Args:
        uri: a local path (absolute, or relative to the working directory at creation) or a URL that
            fsspec knows.

    Raises:
        ValueError: it names no folder and no bucket.
    """

    uri: str

    def __post_init__(self) -> None:
        uri = self.uri
        if wrong := wrong_root(uri):
            raise ValueError(f"root '{uri}' {wrong}")
        if uri.startswith("file://"):
            uri = uri.removeprefix("file://")
        if "://" not in uri:
            uri = str(Path(uri).expanduser().absolute())
        object.__setattr__(self, "uri", uri.rstrip("/"))

    @property
    def is_local(self) -> bool:
        """Whether the root is a folder of this machine's file system."""
        return "://" not in self.uri

    @cached_property
    def _remote(self) -> Any:
        import fsspec

        filesystem, _ = fsspec.core.url_to_fs(self.uri, use_listings_cache=False)
        return filesystem

    def __reduce__(self) -> tuple[type[Store], tuple[str]]:
        return Store, (self.uri,)

    def full(self, path: str) -> str:
        """The whole address of `path`."""
        return f"{self.uri}/{path}" if path else self.uri

    def local(self, path: str) -> Path:
        """The file-system path of `path`; only for local roots."""
        if not self.is_local:
            raise ValueError(f"{self.full(path)} is not on this machine's file system")
        return Path(self.uri, path)

    # Reading ------------------------------------------------------------------------------

    def exists(self, path: str) -> bool:
        """Whether there is a file at `path`."""
        if self.is_local:
            return self.local(path).is_file()
        return bool(self._remote.isfile(self.full(path)))

    def size(self, path: str) -> int | None:
        """Bytes of the file at `path`, or None where there is none."""
        try:
            if self.is_local:
                return self.local(path).stat().st_size
            return int(self._remote.info(self.full(path))["size"])
        except FileNotFoundError:
            return None

    def modified(self, path: str) -> float:
        """When the file at `path` was written, in seconds by the store's own clock.

        Raises:
            FileNotFoundError: there is none.
            NotImplementedError: this kind of store does not tell.
        """
        if self.is_local:
            return self.local(path).stat().st_mtime
        when: datetime = self._remote.modified(self.full(path))
        return when.timestamp()

    def read_bytes(self, path: str) -> bytes:
        """The bytes at `path`; raises FileNotFoundError."""
        if self.is_local:
            return self.local(path).read_bytes()
        return bytes(self._remote.cat_file(self.full(path)))

    def read_json(self, path: str) -> Any:
        """The parsed JSON at `path`; raises FileNotFoundError or ValueError."""
        return json.loads(self.read_bytes(path))

    def read_json_if_any(self, path: str) -> Any | None:
        """The parsed JSON at `path`, or None where there is no such file."""
        try:
            return self.read_json(path)
        except FileNotFoundError:
            return None

    def open(self, path: str) -> IO[bytes]:
        """A stream over the bytes at `path`."""
        if self.is_local:
            return self.local(path).open("rb")
        stream: IO[bytes] = self._remote.open(self.full(path), "rb")
        return stream

    def list(self, path: str = "") -> list[str]:
        """Names (not paths) directly below `path`, sorted; empty where there is nothing."""
        if self.is_local:
            folder = self.local(path)
            return sorted(os.listdir(folder)) if folder.is_dir() else []
        try:
            found = self._remote.ls(self.full(path), detail=False, refresh=True)
        except FileNotFoundError:
            return []
        prefix = str(self._remote._strip_protocol(self.full(path))).rstrip("/") + "/"
        return sorted(str(name).rstrip("/").removeprefix(prefix) for name in found)

    def walk(self, path: str = "") -> Iterator[tuple[str, int]]:
        """All files below `path` as (path relative to the root, bytes)."""
        if self.is_local:
            base = self.local(path)
            for folder, _, names in os.walk(base):
                for name in sorted(names):
                    file = Path(folder, name)
                    yield str(file.relative_to(self.uri)), file.stat().st_size
            return
        prefix = self._remote._strip_protocol(self.uri) + "/"
        try:
            found = self._remote.find(self.full(path), detail=True)
        except FileNotFoundError:
            return
        for name, info in sorted(found.items()):
            yield str(name).removeprefix(prefix), int(info["size"])

    def fetch(self, path: str, target: Path) -> None:
        """Copy the file at `path` to a local file."""
        if self.is_local:
            shutil.copyfile(self.local(path), target)
        else:
            self._remote.get_file(self.full(path), str(target))

    # Writing ------------------------------------------------------------------------------

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write a file so that readers see all of it or none of it, replacing an older one."""
        if self.is_local:
            with self._replacing(path) as temporary:
                temporary.write_bytes(data)
        else:
            self._remote.pipe_file(self.full(path), data)

    def write_json(self, path: str, value: Any) -> None:
        """Write `value` as indented JSON, atomically."""
        text = json.dumps(value, indent=1, ensure_ascii=False)
        self.write_bytes(path, text.encode())

    def create(self, path: str, data: bytes) -> bool:
        """Write a file only if there is none, and tell whether it was written.

        Exclusive on local disks, and on object stores that take conditional writes (S3, GCS); on
        others two writers at the same instant may both be told yes.
        """
        if self.is_local:
            target = self.local(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
            temporary.write_bytes(data)
            try:
                # A link appears with its contents in one step, and fails where the name is taken.
                os.link(temporary, target)
            except FileExistsError:
                return False
            except OSError:
                return _create_without_links(target, data)
            finally:
                temporary.unlink()
            return True
        if self._remote.isfile(self.full(path)):
            return False
        try:
            self._remote.pipe_file(self.full(path), data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            if "PreconditionFailed" in str(error) or "412" in str(error):
                return False
            raise
        return True

    def put_file(self, source: Path, path: str) -> None:
        """Copy a local file to `path`, atomically."""
        if self.is_local:
            with self._replacing(path) as temporary:
                shutil.copyfile(source, temporary)
        else:
            self._remote.put_file(str(source), self.full(path))

    def adopt_file(self, source: Path, path: str) -> None:
        """Move a local file to `path`: a rename where the root is on the same file system."""
        if self.is_local:
            target = self.local(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            with source.open("rb") as file:
                os.fsync(file.fileno())
            try:
                os.replace(source, target)
            except OSError:
                self.put_file(source, path)
                source.unlink()
            else:
                _sync_folder(target.parent)
        else:
            self.put_file(source, path)
            source.unlink()

    def delete(self, path: str) -> None:
        """Remove the file or folder at `path`, if there is one.

        What cannot be removed of a local folder stays without an error: others may be writing to
        it. Who must know looks afterwards.
        """
        if self.is_local:
            target = self.local(path)
            if target.is_dir():
                shutil.rmtree(target, ignore_errors=True)
            else:
                target.unlink(missing_ok=True)
            return
        full = self.full(path)
        with suppress(FileNotFoundError):
            if not has_magic(full):
                self._remote.rm(full, recursive=True)
                return
            # `rm` would take it for a pattern, and delete what is not below this root.
            for name in self._remote.find(full):
                self._remote.rm_file(name)

    def take(self, path: str) -> bytes | None:
        """Remove the file at `path` and return its bytes; None where there is none.

        Of several that try on a local disk one gets it; on an object store all of them may.
        """
        try:
            if not self.is_local:
                data = self.read_bytes(path)
                self.delete(path)
                return data
            target = self.local(path)
            taken = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
            os.rename(target, taken)
        except FileNotFoundError:
            return None
        data = taken.read_bytes()
        taken.unlink()
        return data

    def move(self, path: str, target: str) -> None:
        """Move a folder; on object stores a copy of each file, then removal."""
        if self.is_local:
            destination = self.local(target)
            destination.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self.local(path), destination)
        else:
            for file, _ in list(self.walk(path)):
                moved = f"{target}/{file.removeprefix(path).lstrip('/')}"
                self._remote.cp_file(self.full(file), self.full(moved))
            self.delete(path)

    @contextmanager
    def _replacing(self, path: str) -> Iterator[Path]:
        target = self.local(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, target)
            _sync_folder(target.parent)
        finally:
            temporary.unlink(missing_ok=True)
