from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.artifacts.store import Store
from pipeline.dag.contract import Resources
from pipeline.distributed.training import TrainingFailure, launch
from tests.benches import Counter
from tests.distributed.work import SumOfRanks, marks

TWO = Resources(workers=2, cpus_per_worker=1, gpus_per_worker=0, max_failures=1)


def test_without_ray_there_is_one_rank(tmp_path: Path):
    progress = Counter()
    store = Store(str(tmp_path / "root"))
    result = launch(SumOfRanks(tmp_path), Resources(workers=0), store, "sum", [1, 2], progress)
    assert result["total"] == 1 and result["size"] == 1
    assert progress.notes == ["rank 0 of 1"] and progress.rows == 1


@pytest.mark.ray
def test_ranks_form_a_group_and_rank_0_answers(ray_cluster, tmp_path: Path):
    progress = Counter()
    store = Store(str(tmp_path / "root"))
    result = launch(SumOfRanks(tmp_path), TWO, store, "sum", [1, 2], progress)
    assert result == {"total": 3.0, "size": 2, "threads": 1}
    assert progress.notes == ["rank 0 of 2"] and progress.rows == 1, "other ranks are silent"
    assert list(store.walk("runs")) == [], "Ray Train's own records are gone"


@pytest.mark.ray
def test_a_killed_rank_restarts_the_group(ray_cluster, tmp_path: Path):
    store = Store(str(tmp_path / "root"))
    result = launch(SumOfRanks(tmp_path, "death"), TWO, store, "sum", [1, 2], Counter())
    assert result["total"] == 3.0
    assert len(marks(tmp_path, "rank-0")) == len(marks(tmp_path, "rank-1")) == 2


@pytest.mark.ray
def test_what_would_go_wrong_again_is_not_tried_again(ray_cluster, tmp_path: Path):
    store = Store(str(tmp_path / "root"))
    resources = TWO.model_copy(update={"max_failures": 2})
    with pytest.raises(TrainingFailure, match=r"^ValueError: this cannot be trained$"):
        launch(SumOfRanks(tmp_path, "mistake"), resources, store, "sum", [1, 2], Counter())
    assert len(marks(tmp_path, "rank-0")) == len(marks(tmp_path, "rank-1")) == 1


@pytest.mark.ray
def test_an_error_in_a_rank_reaches_the_driver_in_its_own_words(ray_cluster, tmp_path: Path):
    store = Store(str(tmp_path / "root"))
    resources = TWO.model_copy(update={"max_failures": 0})
    with pytest.raises(TrainingFailure, match="RuntimeError: rank 1 has had enough"):
        launch(SumOfRanks(tmp_path, "error"), resources, store, "sum", [1, 2], Counter())
