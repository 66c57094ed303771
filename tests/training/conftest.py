"""A token store, and a group of worker processes, for all tests of training."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# Worker processes import the cases by name, which test modules have none of in importlib mode.
sys.path.insert(0, str(Path(__file__).parent))

from training_cases import WorkerGroup, build_store


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in the workers: sums over several threads would round differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokens")
    build_store(folder)
    return folder


@pytest.fixture(scope="session")
def workers() -> Iterator[WorkerGroup]:
    group = WorkerGroup()
    yield group
    group.close()
