"""The manifest: what an artifact holds and what its key was made of."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from pipeline.artifacts.keys import digest
from pipeline.artifacts.store import Store

MANIFEST = "manifest.json"
SUCCESS = "_SUCCESS"
FORMAT_VERSION = 1
DIGEST = re.compile(r"[0-9a-f]{64}")


class ArtifactError(Exception):
    """An artifact cannot be used; the message says which one, why, and what to do."""


class CorruptArtifact(ArtifactError):
    """A published artifact does not hold what its manifest says."""

    def __init__(self, directory: str, what: str) -> None:
        super().__init__(
            f"artifact {directory} is damaged: {what}; run again to rebuild it "
            "(`verify` re-hashes every artifact)"
        )
        self.directory = directory
        self.what = what

    def __reduce__(self) -> tuple[type[CorruptArtifact], tuple[str, str]]:
        return CorruptArtifact, (self.directory, self.what)


class FileRecord(BaseModel):
    """A data file of an artifact.

    Attributes:
        part: what it belongs to: a table, a folder or a document.
        name: the path inside a folder; empty otherwise.
        path: where it lies, relative to the artifact's directory.
        index: the shard's number within its table, from 0.
        rows: rows of a table's shard.
        info: what the worker that wrote a shard said of it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    part: str
    path: str
    bytes: int
    sha256: str
    name: str = ""
    index: int = 0
    rows: int | None = None
    info: dict[str, Any] = {}

    @field_validator("path", "name")
    @classmethod
    def _stays_below(cls, value: str) -> str:
        # Copies are written where these say: a foreign manifest must not reach other folders.
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"'{value}' leads out of the artifact's folder")
        return value

    @field_validator("sha256")
    @classmethod
    def _is_a_digest(cls, value: str) -> str:
        if not DIGEST.fullmatch(value):
            raise ValueError(f"'{value}' is no SHA-256 of 64 hex digits")
        return value


class Manifest(BaseModel):
    """Everything known of a published artifact, in one JSON file.

    `key_inputs` is what the key was hashed from; `outcome` what the stage reported; `run` holds
    what may differ between two equal artifacts (times, host, versions, world size).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = FORMAT_VERSION
    stage: str
    key: str
    kind: str
    key_inputs: dict[str, Any]
    files: list[FileRecord]
    schemas: dict[str, dict[str, str]] = {}
    outcome: dict[str, Any] = {}
    resolved: dict[str, Any] = {}
    code_digest: str = ""
    run: dict[str, Any] = {}

    @property
    def content_digest(self) -> str:
        """SHA-256 over what the artifact holds; equal artifacts have equal digests."""
        return digest(sorted([f.part, f.name, f.index, f.rows, f.sha256] for f in self.files))


def directory_of(stage: str, key: str) -> str:
    """Where the artifact of a stage type and key lives, relative to the root."""
    return f"{stage}/{key[:32]}"


def write_manifest(store: Store, directory: str, manifest: Manifest) -> None:
    """Publish: the manifest, then the marker that names its hash."""
    data = manifest.model_dump_json(indent=1).encode()
    store.write_bytes(f"{directory}/{MANIFEST}", data)
    store.write_bytes(f"{directory}/{SUCCESS}", hashlib.sha256(data).hexdigest().encode())


def read_manifest(store: Store, directory: str) -> Manifest | None:
    """The manifest of a published artifact, or None where none was published.

    Raises:
        CorruptArtifact: the marker is there and the manifest is not what it names, or is none.
    """
    try:
        marker = store.read_bytes(f"{directory}/{SUCCESS}")
    except FileNotFoundError:
        return None
    where = store.full(directory)
    try:
        data = store.read_bytes(f"{directory}/{MANIFEST}")
    except FileNotFoundError:
        raise CorruptArtifact(where, "its manifest is gone") from None
    if hashlib.sha256(data).hexdigest().encode() != marker.strip():
        raise CorruptArtifact(where, "its manifest does not match its success marker")
    # Before the fields are looked at: another format may have others.
    version = json.loads(data).get("format_version")
    if version != FORMAT_VERSION:
        raise CorruptArtifact(where, f"manifest format {version} is not known")
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = ".".join(map(str, first["loc"]))
        raise CorruptArtifact(where, f"its manifest at {at or 'its top'}: {first['msg']}") from None
