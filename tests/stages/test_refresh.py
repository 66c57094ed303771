"""Pools that a training makes anew itself are those of rounds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from pipeline.artifacts.kinds import RETRIEVER
from pipeline.artifacts.reader import Artifact
from pipeline.artifacts.writer import ArtifactWriter
from pipeline.dag.contract import Inputs, Resources
from pipeline.methods.refresh import RefreshSchedule
from pipeline.stages.refresh import PoolRefresher, RefreshFailed
from pipeline.stages.train_retriever import TrainRetrieverParams
from pipeline.training.loop import _Run
from tests.benches import EXACT, LENGTHS, Bench, TinyWorld, contents

# Queries of one split, as a refresh encodes: other queries in a batch would round otherwise.
ENCODE = {"splits": ["train"], **EXACT}
MINE = {"depths": {"train": 8}, "queries_per_shard": 6}
POOL = {"depth": 6, "num_negatives": 2}
TRAIN = {
    "global_batch_size": 8,
    "checkpoint_steps": 2,
    "num_negatives": 2,
    "learning_rate": 0.01,
    "schedule": "constant",
    "warmup_ratio": 0.0,
    **EXACT,
}


def pools_of(bench: Bench, tiny: TinyWorld, retriever: Artifact, **changes: Any) -> Artifact:
    """What encode, mine and pool make with a retriever."""
    both = {"dataset": tiny.dataset, "tokens": tiny.tokens}
    vectors = bench.run("encode", ENCODE, **both, retriever=retriever)
    found = bench.run("mine", MINE, **both, embeddings=vectors)
    wired = {**both, "candidates": found, "embeddings": vectors}
    return bench.run("pool", {**POOL, **changes}, **wired)


def train(
    bench: Bench, tiny: TinyWorld, base: Artifact, lists: Any, workers: int = 0, **params: Any
) -> Artifact:
    wired = {"base": base, "tokens": tiny.tokens, "dataset": tiny.dataset, "lists": lists}
    return bench.run("train_retriever", {**TRAIN, **params}, workers=workers, **wired)


def journal(retriever: Artifact) -> list[dict[str, Any]]:
    return [json.loads(line) for line in retriever.text("training.jsonl").splitlines()]


def weights(retriever: Artifact) -> dict[str, torch.Tensor]:
    folder = retriever.folder("model")
    return {
        f"{path.parent.relative_to(folder).as_posix()}/{name}": value
        for path in sorted(folder.rglob("*.safetensors"))
        for name, value in load_file(path).items()
    }


def test_without_lag_it_is_a_training_in_rounds_bit_for_bit(bench: Bench, tiny: TinyWorld):
    start = tiny.retriever
    lists = pools_of(bench, tiny, start)
    refreshed = train(bench, tiny, start, lists, max_steps=9, refresh={"every": 3, "lag": 0})
    rounds, part, rounds_lists = start, start, lists
    for number in (1, 2, 3):
        part = train(bench, tiny, rounds, rounds_lists, max_steps=3, part={"number": number})
        rounds, rounds_lists = part, pools_of(bench, tiny, part)
    own, theirs = weights(refreshed), weights(rounds)
    assert own.keys() == theirs.keys()
    assert all(torch.equal(own[name], theirs[name]) for name in own)
    # And rounds with new negatives are not a training without.
    stale = train(bench, tiny, start, lists, max_steps=9)
    assert any(not torch.equal(own[name], value) for name, value in weights(stale).items())


def test_each_version_is_what_the_stages_make_of_its_weights(
    bench: Bench, tiny: TinyWorld, monkeypatch: pytest.MonkeyPatch
):
    lists = pools_of(bench, tiny, tiny.retriever)
    made, folders = keep_pools(monkeypatch)
    schedule = {"every": 3, "lag": 2}
    refreshed = train(bench, tiny, tiny.retriever, lists, max_steps=10, refresh=schedule)
    of_steps = [0] * 5 + [3] * 3 + [6] * 2
    assert [line["negatives_of_step"] for line in journal(refreshed)] == of_steps
    assert list(made) == [1, 2]
    # The weights after three and after six steps of the same training.
    after = {
        1: train(bench, tiny, tiny.retriever, lists, max_steps=3),
        2: train(bench, tiny, tiny.retriever, lists, max_steps=6, refresh=schedule),
    }
    for version in (1, 2):
        by_stages = pools_of(bench, tiny, after[version]).read("pools")
        assert made[version].equals(by_stages) and not by_stages.equals(lists.read("pools"))
    # The third version would be in force after the end. Vectors go when their pools are in force,
    # and weights and pools when no checkpoint needs them.
    assert folders == {
        1: {"3": {"pool", "retriever"}},
        2: {"3": {"pool", "retriever"}, "6": {"pool", "retriever"}},
    }
    metrics = bench.outcome(refreshed).metrics
    stale = [step - of_step for step, of_step in enumerate(of_steps)]
    assert metrics["refreshed"] == 2 and metrics["staleness_max"] == max(stale) == 2 + 3 - 1
    assert metrics["staleness_mean"] == sum(stale) / 10 and metrics["seconds_waited"] > 0
    own = [set(pairs(table)) for table in (lists.read("pools"), made[1], made[2])]
    shared = [len(new & old) / len(new) for old, new in pairwise(own)]
    assert metrics["overlap_with_previous"] == pytest.approx(sum(shared) / 2)
    assert 0 < metrics["overlap_with_previous"] < 1
    # What `pool` reports is there of each version: in the journal, and of the last in the outcome.
    told = [line["pools"] for line in journal(refreshed) if "pools" in line]
    by_stages = [bench.outcome(pools_of(bench, tiny, after[version])) for version in (1, 2)]
    assert told == [
        {"counts": each.counts, "metrics": each.metrics, "warnings": each.warnings}
        for each in by_stages
    ]
    last = {name: value for name, value in metrics.items() if name.startswith("last_")}
    assert last == {f"last_{name}": value for name, value in by_stages[1].metrics.items()}
    assert {"last_positives_by_rank", "last_difference_score", "last_effective_size"} <= set(last)


def pairs(pools: pa.Table) -> Iterator[tuple[int, int]]:
    """Queries with each of their candidates."""
    for row in pools.to_pylist():
        yield from ((row["query_index"], passage) for passage in row["passage_index"])


def keep_pools(patch: pytest.MonkeyPatch) -> tuple[dict[int, pa.Table], dict[int, Any]]:
    """Every version's pools, and what lies below each step's folder once it is in force."""
    made: dict[int, pa.Table] = {}
    folders: dict[int, Any] = {}
    retain = PoolRefresher.retain

    def keeping(self: PoolRefresher, versions: Any, current: int) -> None:
        pools, step = self._pools(current), self.schedule.encoder_step(current)
        assert pools.manifest.key_inputs == {"encoder_step": step}
        made[current] = pools.read("pools")
        retain(self, versions, current)
        found: dict[str, set[str]] = {}
        for path, _ in self.writer.store.walk(self.writer.refresh_directory):
            step, stage = path.removeprefix(self.writer.refresh_directory).split("/")[1:3]
            found.setdefault(step, set()).add(stage)
        folders[current] = found

    patch.setattr(PoolRefresher, "retain", keeping)
    return made, folders


def test_disk_is_bounded_by_what_two_checkpoints_need(
    bench: Bench, tiny: TinyWorld, monkeypatch: pytest.MonkeyPatch
):
    lists = pools_of(bench, tiny, tiny.retriever)
    _, folders = keep_pools(monkeypatch)
    train(bench, tiny, tiny.retriever, lists, max_steps=8, refresh={"every": 1})
    assert list(folders) == [1, 2, 3, 4, 5, 6]
    # At step 7 on weights of step 6; checkpoints of 4 and 6 steps, and what came before each.
    assert set(folders[6]) == {"2", "3", "4", "5", "6"}


SHORT_LAG = {"max_steps": 8, "refresh": {"every": 2, "lag": 1}}
FEW_CHECKPOINTS = {"max_steps": 10, "checkpoint_steps": 4, "refresh": {"every": 1}}


@pytest.mark.parametrize(
    ("params", "damaged"), [(SHORT_LAG, 1), (SHORT_LAG, 2), (FEW_CHECKPOINTS, 1)]
)
def test_a_training_goes_on_from_any_checkpoint(
    bench: Bench, tiny: TinyWorld, params: dict[str, Any], damaged: int
):
    """Also where the newest, or both, are damaged, so that earlier versions come back in force."""
    lists = pools_of(bench, tiny, tiny.retriever)
    whole = train(bench, tiny, tiny.retriever, lists, **params)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ArtifactWriter, "folder", fail_to_write_the_model(ArtifactWriter.folder))
        other = Bench(bench.root + "-other")
        with pytest.raises(RuntimeError, match="no room"):
            train(other, tiny, tiny.retriever, lists, **params)
    kept = sorted(Path(other.root).rglob("step-*/retriever.weights.safetensors"))
    assert len(kept) == 2
    for file in kept[-damaged:]:
        file.write_bytes(b"")
    done = int(kept[-1 - damaged].parent.name.removeprefix("step-")) if damaged == 1 else 0
    resumed: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Run, "resume", noting(_Run.resume, resumed))
        again = train(other, tiny, tiny.retriever, lists, **params)
    assert resumed == [done]
    assert contents(again) == contents(whole)
    assert not [path for path, _ in other.store.walk(again.directory) if "refresh" in path]


def noting(resume: Any, done: list[int]) -> Any:
    def noted(self: Any, moments: Any) -> int:
        done.append(resume(self, moments))
        return done[-1]

    return noted


def test_a_version_like_the_top_is_warned_of(bench: Bench, tiny: TinyWorld):
    sharp = {"sampler": {"name": "softmax", "temperature": 1e-6}}
    lists = pools_of(bench, tiny, tiny.retriever, **sharp)
    made = train(bench, tiny, tiny.retriever, lists, max_steps=6, refresh={"every": 2, "lag": 0})
    (warning,) = bench.outcome(made).warnings
    assert warning.startswith("negatives of step 4 (2 of 2 versions warn): ")
    assert "hardly differs from `top`" in warning


def fail_to_write_the_model(write: Any) -> Any:
    def folder(self: ArtifactWriter, name: str) -> Any:
        if self.stage == "train_retriever":
            raise RuntimeError("no room")
        return write(self, name)

    return folder


def test_versions_may_lie_in_an_object_store(bench: Bench, tiny: TinyWorld, s3_root: str):
    lists = pools_of(bench, tiny, tiny.retriever)
    params = {"max_steps": 5, "refresh": {"every": 2, "lag": 0}}
    local, there = (
        train(each, tiny, tiny.retriever, lists, **params) for each in (bench, Bench(s3_root))
    )
    assert contents(there) == contents(local)
    assert not [path for path, _ in Bench(s3_root).store.walk(there.directory) if "refresh" in path]


def test_ranks_hear_that_nothing_is_made_any_more(bench: Bench, tiny: TinyWorld):
    lists = pools_of(bench, tiny, tiny.retriever)
    given = {"tokens": tiny.tokens, "dataset": tiny.dataset, "lists": lists}
    inputs = Inputs({name: (artifact,) for name, artifact in given.items()})
    writer = ArtifactWriter(bench.store, "train_retriever", "0" * 64, RETRIEVER)
    arguments = (inputs, 2, 5, RefreshSchedule(2, 1), writer, Resources(workers=2))
    refresher: Any = PoolRefresher.open(*arguments)
    refresher.give_up("ShardFailure: out of memory")
    with pytest.raises(RefreshFailed, match="not made anew: ShardFailure: out of memory"):
        refresher.exchanged(None, 1)
    # Another attempt does not inherit the failure.
    assert not bench.store.exists(PoolRefresher.open(*arguments)._failure)


def test_what_cannot_be_made_anew_is_refused(tiny: TinyWorld):
    bench = tiny.bench
    refresh = {"max_steps": 4, "refresh": {"every": 2, "lag": 0}}
    lists = pools_of(bench, tiny, tiny.retriever)
    for wired in (tiny.lists, (lists, pools_of(bench, tiny, tiny.retriever, depth=5))):
        with pytest.raises(ValueError, match="wire exactly one stage `pool`"):
            train(bench, tiny, tiny.retriever, wired, **refresh)
    both = {"dataset": tiny.dataset, "tokens": tiny.tokens}
    scored = bench.run(
        "pool", {**POOL, "sampler": {"name": "uniform"}}, **both, candidates=tiny.scored
    )
    with pytest.raises(ValueError, match="candidates of their pool were made by `score`"):
        train(bench, tiny, tiny.retriever, scored, **refresh)
    others = bench.run("encode", ENCODE, **both, retriever=tiny.retriever)
    mixed = {**both, "candidates": tiny.candidates, "embeddings": others}
    with pytest.raises(ValueError, match="from other embeddings than their candidates"):
        train(bench, tiny, tiny.retriever, bench.run("pool", POOL, **mixed), **refresh)
    tokens = bench.run(
        "tokenize", {**LENGTHS, "title": False}, dataset=tiny.dataset, base=tiny.base
    )
    wired = {"base": tiny.retriever, "tokens": tokens, "dataset": tiny.dataset, "lists": lists}
    with pytest.raises(ValueError, match="another input `tokens` than this training"):
        bench.run("train_retriever", {**TRAIN, **refresh}, **wired)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"refresh": {"every": 4, "lag": 5}}, "refresh.lag 5 exceeds refresh.every 4"),
        ({"refresh": {"every": 6}}, "in force after 12 of 12 steps"),
        ({"refresh": {"every": 4}, "max_steps": None}, "give `max_steps`"),
        ({"refresh": {"every": 4}, "part": {"number": 1, "of": 2}}, "take `part` out"),
        ({"refresh": {"every": 4, "lag": 4}}, None),
        ({"refresh": {"every": 11, "lag": 0}}, None),
    ],
)
def test_what_does_not_fit_is_said_with_the_plan(params: dict[str, Any], said: str | None):
    read = TrainRetrieverParams.model_validate({"max_steps": 12, **params})
    found = read.mismatches({"lists": 1}, Resources(workers=0))
    assert (not found) if said is None else any(said in each for each in found)


def test_a_training_without_has_the_key_that_it_had():
    assert "refresh" not in TrainRetrieverParams().model_dump(mode="json")
    read = TrainRetrieverParams.model_validate({"refresh": {"every": 4}})
    assert read.model_dump(mode="json")["refresh"] == {"every": 4, "lag": None}
