"""One small Ray cluster for all tests of the room."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from pipeline.artifacts.cache import CACHE_VARIABLE
from pipeline.distributed import cluster


@pytest.fixture(scope="session")
def ray_cluster(s3_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Ray with four CPUs, whatever the machine has, and a small object store.

    Its workers inherit the address of the S3-compatible server.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        for name, value in cluster._QUIET.items():
            patch.setenv(name, value)
        import ray

        path = os.pathsep.join(filter(None, [str(cluster.PROJECT_ROOT), os.getenv("PYTHONPATH")]))
        cache = str(tmp_path_factory.mktemp("cache"))
        ray.init(
            address="local",
            num_cpus=4,
            object_store_memory=100 * 2**20,
            include_dashboard=False,
            runtime_env={"env_vars": {"PYTHONPATH": path, CACHE_VARIABLE: cache}},
            log_to_driver=False,
            logging_level="ERROR",
        )
        yield
        cluster.disconnect()
