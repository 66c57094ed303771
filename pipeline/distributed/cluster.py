"""Getting a Ray cluster: the one a job or an address names, or an own one on this machine."""

from __future__ import annotations

import logging
import os
import secrets
from pathlib import Path
from typing import Any, Protocol

import pipeline
from pipeline.artifacts.cache import CACHE_VARIABLE

# Ray sets it for the entry point of a submitted job.
JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
PROJECT_ROOT = Path(pipeline.__file__).resolve().parent.parent

# A machine of its own that is busy for a minute has not failed: Ray would end the node for it.
_PATIENCE = {"RAY_health_check_failure_threshold": "20"}

_AUTHENTICATION = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")

# What Ray prints about itself would bury the pipeline's own lines.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class HasResources(Protocol):
    """The resources of a stage, as `pipeline.dag.contract.Resources` spells them."""

    @property
    def workers(self) -> int | str:
        """Number of workers, or `auto`."""

    @property
    def cpus_per_worker(self) -> float:
        """CPUs per worker."""

    @property
    def gpus_per_worker(self) -> float | str:
        """GPUs per worker, or `auto`."""

    @property
    def max_failures(self) -> int:
        """Restarts of a training run."""


def is_given() -> bool:
    """Whether a job or `RAY_ADDRESS` names a cluster."""
    return JOB_VARIABLE in os.environ or bool(os.environ.get("RAY_ADDRESS"))


def connect() -> None:
    """Join the cluster that `RAY_ADDRESS` or the surrounding job names, else start one here.

    Does nothing when this process is connected to a node that lives; leaves one that died, as the
    work that is left may find another. Workers find the project on their import path and
    the node-local cache of this driver's setting; under a job both are the job's and the nodes' own
    affair: Ray unpacks the working directory on every node.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        if not is_lost():
            return
        ray.shutdown()
    if JOB_VARIABLE in os.environ:
        ray.init(log_to_driver=False, logging_level="ERROR")
        return
    for name, value in _PATIENCE.items():
        os.environ.setdefault(name, value)
    if not is_given():
        _authenticate()
    path = os.pathsep.join(filter(None, [str(PROJECT_ROOT), os.environ.get("PYTHONPATH")]))
    variables = {"PYTHONPATH": path}
    if CACHE_VARIABLE in os.environ:
        variables[CACHE_VARIABLE] = os.environ[CACHE_VARIABLE]
    ray.init(
        # Without an address Ray would join whatever cluster it finds running on this machine.
        address=os.environ.get("RAY_ADDRESS") or "local",
        runtime_env={"env_vars": variables},
        include_dashboard=None if os.environ.get("RAY_ADDRESS") else False,
        log_to_driver=False,
        logging_level="ERROR",
    )


def _authenticate() -> None:
    """A token of its own for a cluster that this process starts, unless one was given.

    Ray turns authentication on by itself, and would keep the token in the home directory, readable
    by every user of the machine. The mode is left to it: once imported, it does not look again.
    """
    if not any(name in os.environ for name in _AUTHENTICATION):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def is_lost() -> bool:
    """Whether the node that this driver is connected to has left the cluster, or died.

    Calls then fail at first, and later ones wait for ever.
    """
    import ray

    here = ray.get_runtime_context().get_node_id()
    return not any(node["NodeID"] == here and node["Alive"] for node in ray.nodes())


def quieten(*libraries: str) -> None:
    """Keep a Ray library's own log lines off the terminal; failures reach us as exceptions."""
    for library in libraries:
        logging.getLogger(library).setLevel(logging.CRITICAL)


def disconnect() -> None:
    """Leave the cluster, and end it if this process started it."""
    import sys

    if "ray" in sys.modules:
        import ray

        ray.shutdown()


def gpus_per_worker(resources: HasResources, accompanied: bool = False) -> float:
    """GPUs to reserve for each worker; `auto` is one where the cluster has any.

    Where ranks are accompanied by other work and there is only one GPU, `auto` is half of it.
    """
    import ray

    if isinstance(resources.gpus_per_worker, str):
        found = int(ray.cluster_resources().get("GPU", 0))
        return 0.5 if accompanied and found == 1 else float(found >= 1)
    return resources.gpus_per_worker


def worker_count(resources: HasResources, accompanied: bool = False) -> int:
    """Number of workers; `auto` fills the GPUs of the nodes that are up, or else their CPUs.

    Those of `accompanied` ranks and what works beside them together.
    """
    import ray

    if isinstance(resources.workers, int):
        return resources.workers
    found: dict[str, Any] = ray.cluster_resources()
    gpus = gpus_per_worker(resources, accompanied)
    room = int(found.get("CPU", 0) // resources.cpus_per_worker)
    if gpus:
        room = min(room, int(found.get("GPU", 0) / gpus))
    return max(1, room)


def wanted_room(workers: int, cpus: float, gpus: float) -> str:
    """What so many workers need, in words."""
    each = f"{cpus:g} CPU" + (f" and {gpus:g} GPU" if gpus else "")
    return f"workers wanted {workers}, each with {each}"


def free_room() -> str:
    """What the cluster has left, in words."""
    import ray

    found, free = ray.cluster_resources(), ray.available_resources()
    left = [
        f"{free.get(name, 0):g} of {found[name]:g} {name}"
        for name in ("CPU", "GPU")
        if found.get(name)
    ]
    return f"free {' and '.join(left) or 'nothing'} (`ray status` shows what holds the rest)"
