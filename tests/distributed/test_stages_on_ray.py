"""Stages on Ray workers give what one process gives."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline.artifacts.reader import Artifact
from tests.benches import EXACT, Bench, TinyWorld, contents

pytestmark = pytest.mark.ray
TRAINING = {"global_batch_size": 8, "max_steps": 30, "checkpoint_steps": 2, **EXACT}


@pytest.mark.parametrize("name", ["encode", "mine", "score", "gradients"])
def test_two_workers_make_the_artifact_of_one_process(ray_cluster, tiny, tmp_path, s3_root, name):
    """The vectors are written to an object store, which the workers reach by themselves."""
    both = {"dataset": tiny.dataset, "tokens": tiny.tokens}
    depths = {"train": 12, "validation": 12, "dev": 12, "unlabelled": 12}
    params, inputs = {
        "encode": ({"queries_per_shard": 8, **EXACT}, {**both, "retriever": tiny.retriever}),
        "mine": (
            {"depths": depths, "queries_per_shard": 6},
            {**both, "embeddings": tiny.vectors},
        ),
        "score": ({"depth": 10, **EXACT}, tiny.scoring),
        "gradients": (
            {"depth": 8, "random_negatives": 2, "ranks_per_task": 3},
            {
                **both,
                "retriever": tiny.retriever,
                "candidates": tiny.candidates,
                "embeddings": tiny.vectors,
            },
        ),
    }[name]
    here = Bench(str(tmp_path / "here"))
    there = Bench(s3_root if name == "encode" else str(tmp_path / "there"))
    alone = here.run(name, params, **inputs)
    together = there.run(name, params, workers=2, **inputs)
    assert together.manifest.content_digest == alone.manifest.content_digest
    assert together.manifest.resolved == alone.manifest.resolved
    counted = [
        (outcome.rows_in, outcome.rows_out, dict(outcome.counts), dict(outcome.metrics))
        for outcome in (here.outcome(alone), there.outcome(together))
    ]
    assert counted[0] == counted[1]


def weights(artifact) -> dict[str, torch.Tensor]:
    return load_file(artifact.folder("model") / "model.safetensors")


def training(tiny: TinyWorld) -> dict:
    wired = {"base": tiny.base, "tokens": tiny.tokens, "dataset": tiny.dataset}
    return {**wired, "lists": tiny.lists}


SHARED = {**TRAINING, "encoder": {"shared": True}, "encoder_dropout": 0.0}


@pytest.fixture(scope="module")
def together(running_ray, tiny: TinyWorld, tmp_path_factory) -> Artifact:
    """A retriever trained by two ranks, undisturbed."""
    running_ray()
    bench = Bench(str(tmp_path_factory.mktemp("together")))
    made = bench.run("train_retriever", SHARED, workers=2, **training(tiny))
    assert bench.outcome(made).device.startswith("2 x cpu")
    return made


def test_two_ranks_train_the_retriever_of_one_process(together, tiny):
    alone = tiny.bench.run("train_retriever", SHARED, **training(tiny))
    start = load_file(tiny.base.folder("model") / "model.safetensors")
    moved, apart = [], []
    for name, value in weights(alone).items():
        torch.testing.assert_close(weights(together)[name], value, atol=5e-5, rtol=1e-3)
        if name in start:
            moved.append((value - start[name]).abs().mean())
            apart.append((weights(together)[name] - value).abs().mean())
    assert sum(apart) < 0.01 * sum(moved)


def matrices(folder: Path) -> dict[str, torch.Tensor]:
    """A model's weights, without the vectors: some of those move by rounding alone, since softmax
    takes no notice of them."""
    return {
        f"{path.parent.relative_to(folder).as_posix()}/{name}": value
        for path in sorted(folder.rglob("model.safetensors"))
        for name, value in load_file(path).items()
        if value.ndim > 1
    }


def test_two_ranks_train_the_two_models_of_one_process(ray_cluster, tiny, tmp_path):
    given = {"base": tiny.base, "tokens": tiny.tokens, "lists": tiny.lists}
    # Without dropout, which every rank draws for itself.
    ranker = tiny.bench.run("train_ranker", {**TRAINING, "max_steps": 2, "dropout": 0.0}, **given)
    wired = {**tiny.joining, "ranker": ranker}
    params = {**TRAINING, "max_steps": 6, "num_negatives": 2, "encoder_dropout": 0.0}
    params["preset"] = "paper"
    there = Bench(str(tmp_path / "there"))
    joint = there.run("train_joint", params, workers=2, **wired)
    assert there.outcome(joint).device.startswith("2 x cpu")
    alone = tiny.bench.run("train_joint", params, **wired)
    for part, start in (("retriever", tiny.retriever), ("ranker", ranker)):
        before = matrices(start.folder("model"))
        one, two = (matrices(each.folder("model") / part) for each in (alone, joint))
        assert before.keys() == one.keys() == two.keys() and len(one) > 10
        for name, value in one.items():
            assert (two[name] - value).norm() < 0.03 * (value - before[name]).norm(), name


class Killer(threading.Thread):
    """Kills a process of Ray's once a file is there.

    Args:
        root: where the file will be.
        file: its name, or the end of its path with wildcards.
        title: part of the title that Ray gives the process.
    """

    def __init__(self, root: Path, file: str, title: str = "TrainWorker") -> None:
        super().__init__(daemon=True)
        self.root, self.file, self.title = root, file, title
        self.killed: int | None = None

    def run(self) -> None:
        deadline = time.monotonic() + 240
        while self.killed is None and time.monotonic() < deadline:
            with suppress(FileNotFoundError):  # Folders come and go.
                if list(self.root.rglob(self.file)):
                    self.killed = next(iter(processes(self.title)), None)
            if self.killed is not None:
                os.kill(self.killed, signal.SIGKILL)
            time.sleep(0.02)


def processes(title: str) -> list[int]:
    """The processes below this one whose title Ray has set to something with `title`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if title in (entry / "cmdline").read_text() and is_below(int(entry.name)):
                found.append(int(entry.name))
    return sorted(found)


def is_below(process: int) -> bool:
    while process > 1 and process != os.getpid():
        status = Path(f"/proc/{process}/status").read_text()
        process = int(status.partition("PPid:")[2].split()[0])
    return process == os.getpid()


def test_sigkill_of_a_training_worker_changes_nothing(together, tiny, tmp_path):
    bench = Bench(str(tmp_path / "killed"))
    killer = Killer(tmp_path / "killed", "step-2.json")
    killer.start()
    resumed = bench.run("train_retriever", SHARED, workers=2, **training(tiny))
    killer.join()
    assert killer.killed is not None
    assert any("resumed after step" in note for note in bench.progress.notes)
    assert contents(resumed) == contents(together)


def refreshing(bench: Bench, tiny: TinyWorld, cpus: float) -> Artifact:
    """Two ranks with a companion beside them."""
    params = {**SHARED, "num_negatives": 2, "max_steps": 8, "refresh": {"every": 4, "lag": 2}}
    wired = {**training(tiny), "lists": tiny.pools}
    return bench.run("train_retriever", params, workers=2, cpus=cpus, **wired)


@pytest.fixture(scope="module")
def refreshed(running_ray, tiny: TinyWorld, tmp_path_factory) -> Artifact:
    """A retriever whose negatives were made anew by two workers beside its ranks, undisturbed."""
    running_ray()
    bench = Bench(str(tmp_path_factory.mktemp("refreshed")))
    made = refreshing(bench, tiny, cpus=1)
    assert bench.outcome(made).metrics["refreshed"] == 1
    return made


@pytest.mark.parametrize(
    ("title", "file"),
    [
        ("_CompanionActor", "refresh/4/encode/*/passages/*.parquet"),
        ("TrainWorker", "refresh/4/encode/*/passages/*.parquet"),
    ],
)
def test_sigkill_of_either_side_of_a_refresh_changes_nothing(
    refreshed, tiny, tmp_path, title, file
):
    """Here the ranks hold the whole cluster, so that nothing is left to reserve for the others."""
    bench = Bench(str(tmp_path / "killed"))
    killer = Killer(tmp_path / "killed", file, title)
    killer.start()
    resumed = refreshing(bench, tiny, cpus=1.9)
    killer.join()
    assert killer.killed is not None
    assert contents(resumed) == contents(refreshed)
    # Ranks go on from their checkpoint, not from the beginning.
    again = [note for note in bench.progress.notes if "resumed after step" in note]
    assert bool(again) == (title == "TrainWorker")
    assert not processes("_CompanionActor")
