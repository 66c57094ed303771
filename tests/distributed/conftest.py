"""One small Ray cluster for all tests of the room."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from pipeline.artifacts.cache import CACHE_VARIABLE
from pipeline.distributed import cluster


@pytest.fixture(scope="session")
def running_ray(
    s3_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], None]]:
    """Makes sure that Ray runs; it is left at the end of the session.

    With four CPUs, whatever the machine has, and a small object store. Its workers inherit the
    address of the S3-compatible server.
    """
    cache = str(tmp_path_factory.mktemp("cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        for name, value in {**cluster._QUIET, **cluster._PATIENCE}.items():
            patch.setenv(name, value)
        yield lambda: _start(cache)
        cluster.disconnect()


@pytest.fixture
def ray_cluster(running_ray: Callable[[], None]) -> None:
    """The Ray of the session, or another where that one has died."""
    running_ray()


def _start(cache: str) -> None:
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
        runtime_env={"env_vars": {"PYTHONPATH": path, CACHE_VARIABLE: cache}},
        log_to_driver=False,
        logging_level="ERROR",
    )
