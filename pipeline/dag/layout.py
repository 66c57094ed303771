"""Where the runner keeps its own files below a root, and where the root is."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

REFERENCES = "refs"
RUNS = "runs"
LOCKS = "locks"
ASIDE = "aside"
MEMORY = "memory"
RESERVED = frozenset({REFERENCES, RUNS, LOCKS, ASIDE, MEMORY})

# A scheme, a colon and fewer than two slashes.
ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(?!//)/*(.*)", re.DOTALL)

ROOT_VARIABLE = "ARTIFACT_ROOT"
# Ray sets the first for the entry point of a submitted job.
JOB_VARIABLES = ("RAY_JOB_CONFIG_JSON_ENV_VAR", "RAY_JOB_ID")


def reference_path(pipeline: str, stage: str) -> str:
    """The file that names the latest result of a pipeline's stage."""
    return f"{REFERENCES}/{pipeline}/{stage}.json"


def misspelt_root(root: str) -> str:
    """What was meant by an address without its two slashes, or "" where nothing is wrong.

    `s3:/bucket/prefix` would otherwise be a folder of that name.
    """
    hit = ADDRESS.match(root)
    return f"{hit[1]}://{hit[2]}" if hit else ""


def resolve_root(root: str, environment: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """The absolute root, and a warning or "".

    A relative root is taken against the working directory; under a Ray job, whose working directory
    vanishes with the cluster's session, against `$ARTIFACT_ROOT`, or else the home directory.
    """
    if "://" in root or os.path.isabs(os.path.expanduser(root)):
        return os.path.expanduser(root), ""
    if not any(variable in environment for variable in JOB_VARIABLES):
        return str(Path(root).absolute()), ""
    base = os.path.expanduser(environment.get(ROOT_VARIABLE, ""))
    if base.endswith("://"):
        return base, ""
    if "://" in base or os.path.isabs(base):
        return f"{base.rstrip('/')}/{root}", ""
    resolved = str(Path.home() / root)
    wrong = f"'{base}' is not absolute" if base else "is not set for this Ray job"
    return resolved, (
        f"${ROOT_VARIABLE} {wrong}: artifacts go to {resolved} on this node; "
        "on several nodes set it to a folder or bucket that all of them see"
    )
