"""One small Ray cluster for all tests of the room."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.artifacts.cache import CACHE_VARIABLE
from pipeline.distributed import cluster


@pytest.fixture(scope="session")
def ray_settings(s3_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Ray's environment for the whole session, and a cache folder; Ray is left at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        for name, value in {**cluster._QUIET, **cluster._PATIENCE}.items():
            patch.setenv(name, value)
        yield tmp_path_factory.mktemp("cache")
        cluster.disconnect()


@pytest.fixture
def ray_cluster(ray_settings: Path) -> None:
    """Ray with four CPUs, whatever the machine has, and a small object store.

    One for all tests, as long as it lives. Its workers inherit the address of the S3-compatible
    server.
    """
    import ray

    if ray.is_initialized():
        if not cluster.is_lost():
            return
        ray.shutdown()
    path = os.pathsep.join(filter(None, [str(cluster.PROJECT_ROOT), os.getenv("PYTHONPATH")]))
    ray.init(
        address="local",
        num_cpus=4,
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        runtime_env={"env_vars": {"PYTHONPATH": path, CACHE_VARIABLE: str(ray_settings)}},
        log_to_driver=False,
        logging_level="ERROR",
    )
