"""Generated worlds, and the four steps run over them once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipeline.artifacts.cache import CACHE_VARIABLE
from tests.end_to_end.runs import Run
from tests.worlds import Sizes, generate

PLANTED = Sizes(
    topics=6,
    keys=2,
    topic_words=6,
    copies=6,
    unasked=6,
    train=40,
    validation=7,
    dev=7,
    unlabelled=7,
)
TINY = Sizes(topics=4, keys=2, topic_words=6, copies=2, unasked=2, train=2)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """All four steps on a world with planted false negatives: about a minute of one core."""
    folder = tmp_path_factory.mktemp("planted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(folder / "cache"))
        run = Run("planted.yaml", generate(folder / "world", PLANTED), str(folder / "root"))
        assert run() == 0
        yield run


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The same stages on a tiny world, undisturbed."""
    folder = tmp_path_factory.mktemp("tiny-run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(folder / "cache"))
        run = Run("tiny.yaml", generate(folder / "world", TINY), str(folder / "root"))
        assert run() == 0
        yield run


@pytest.fixture
def elsewhere(tiny_run: Run, tmp_path: Path) -> Run:
    """The tiny run over the same world below an empty root."""
    return tiny_run.below(tmp_path / "elsewhere")
