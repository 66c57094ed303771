"""A crash at every write of every stage, then a rerun: the artifact is as if undisturbed."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifacts.manifest import SUCCESS
from pipeline.artifacts.store import Store
from pipeline.stages import NAMES, registry
from tests.benches import EXACT, LENGTHS, SCRATCH, Bench, TinyWorld, contents

WRITES = ("write_bytes", "adopt_file", "put_file", "create")
TRAINING = {"global_batch_size": 8, "max_steps": 2, "checkpoint_steps": 1, **EXACT}


class Crash(BaseException):
    """Not an Exception: no handler of the code under test may swallow it."""


def case(name: str, tiny: TinyWorld) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and inputs of a stage, several shards each."""
    data = {"dataset": tiny.dataset}
    both = {**data, "tokens": tiny.tokens}
    source = {"source": tiny.world.source(), "passages_per_shard": 10}
    depths = {"train": 5, "dev": 5}
    cases: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "ingest": (source, {}),
        "base_model": (SCRATCH, data),
        "tokenize": (LENGTHS, {**data, "base": tiny.base}),
        "initial_retriever": ({}, {"base": tiny.base, "tokens": tiny.tokens}),
        "bm25": ({"depths": depths, "queries_per_shard": 10}, both),
        "encode": ({"queries_per_shard": 20, **EXACT}, {**both, "retriever": tiny.retriever}),
        "mine": (
            {"depths": depths, "queries_per_shard": 10},
            {**both, "embeddings": tiny.vectors},
        ),
        "sample": ({"depth": 12}, {**both, "candidates": tiny.candidates}),
        "train_retriever": (TRAINING, {**both, "base": tiny.base, "lists": tiny.lists}),
        "train_retriever with refresh": (
            {**TRAINING, "num_negatives": 2, "refresh": {"every": 1, "lag": 0}},
            {**both, "base": tiny.base, "lists": tiny.pools},
        ),
        "train_ranker": (
            TRAINING,
            {"base": tiny.base, "tokens": tiny.tokens, "lists": tiny.lists},
        ),
        "score": ({"depth": 4, **EXACT}, tiny.scoring),
        "calibrate": ({"depth": 12, **EXACT}, {**tiny.scoring, "dataset": tiny.agreeing}),
        "denoise": ({"depth": 10, "threshold": 0.9}, {**both, "candidates": tiny.scored}),
        "pseudo_label": (
            {"depth": 10, "positive_above": 0.3, "negative_below": 0.3},
            {**data, "candidates": tiny.scored},
        ),
        "hybrid": (
            {"depth": 10, "num_negatives": 2, "negative_below": 0.9},
            {**both, "candidates": tiny.scored},
        ),
        "pool": (
            {"depth": 6, "num_negatives": 2},
            {**both, "candidates": tiny.candidates, "embeddings": tiny.vectors},
        ),
        "train_joint": ({**TRAINING, "num_negatives": 2}, tiny.joining),
        "joint_retriever": ({}, {"joint": tiny.joint}),
        "joint_ranker": ({}, {"joint": tiny.joint}),
        "gradients": (
            {"depth": 4, "random_negatives": 2, "ranks_per_task": 2, "max_queries": 4},
            {
                **both,
                "retriever": tiny.retriever,
                "candidates": tiny.candidates,
                "embeddings": tiny.vectors,
            },
        ),
        "evaluate": (
            {"names": ["one"], "measures": ["RR@10", "Success@5"]},
            {**data, "runs": [tiny.scored]},
        ),
        "draws": (
            {"names": ["pools", "lists"], "num_negatives": 2, "epochs": 2},
            {**both, "dataset": tiny.hiding, "pools": [tiny.pools], "lists": [tiny.lists]},
        ),
        "report": ({"names": {"trainings": ["ranker"]}}, {"trainings": [tiny.ranker]}),
    }
    return cases[name]


def crash_at(patch: pytest.MonkeyPatch, number: int, after: bool) -> None:
    """Crash at the `number`-th write, before or after it is done."""
    calls = count(1)

    def crashing(real):
        def write(self, *arguments):
            own = next(calls)
            if own == number and not after:
                raise Crash
            result = real(self, *arguments)
            if own == number:
                raise Crash
            return result

        return write

    for name in WRITES:
        patch.setattr(Store, name, crashing(getattr(Store, name)))


def crashes(bench: Bench, name: str, given, number: int, after: bool) -> bool:
    params, inputs = given
    with pytest.MonkeyPatch.context() as patch:
        crash_at(patch, number, after)
        try:
            bench.run(name, params, **inputs)
        except Crash:
            return True
    return False


def find_published(bench: Bench, name: str) -> list[str]:
    return [path for path, _ in bench.store.walk(name) if path.endswith(SUCCESS)]


@pytest.mark.parametrize("which", [*NAMES, "train_retriever with refresh"])
def test_a_crash_at_any_write_leaves_no_trace(tiny: TinyWorld, tmp_path: Path, which: str):
    given, name = case(which, tiny), which.partition(" ")[0]
    params, inputs = given
    whole = Bench(str(tmp_path / "whole")).run(name, params, **inputs)
    # What a refresh writes is mostly what stages write that have cases of their own.
    for number in count(1, 1 if which == name else 3):
        bench = Bench(str(tmp_path / f"crash-{number}"))
        if not crashes(bench, name, given, number, after=number % 2 == 0):
            break
        published = bool(find_published(bench, name))
        again = bench.run(name, params, **inputs)
        assert contents(again) == contents(whole), f"after a crash at write {number}"
        assert again.manifest.schemas == whole.manifest.schemas
        if not name.startswith("train_"):
            assert again.manifest.content_digest == whole.manifest.content_digest
            # Also where nothing was left to do: counts are of the artifact, not of the attempt.
            assert again.manifest.outcome == whole.manifest.outcome
        left = {
            folder for path, _ in bench.store.walk(again.directory) for folder in path.split("/")
        }
        # Once the marker stood, there was nothing to run again, so nobody tidied up either.
        assert published or not left & {"parts", "state", "checkpoints", "refresh"}
    # At least the data, its sidecar, the manifest and the marker.
    assert number > 4


def test_every_stage_has_its_case(tiny: TinyWorld):
    assert set(NAMES) == set(registry())
    for name in NAMES:
        case(name, tiny)


def test_a_run_that_crashes_again_and_again_gets_there(tiny: TinyWorld, tmp_path: Path):
    """Each attempt may write a little more than the one before, and all of it is kept."""
    given = case("encode", tiny)
    whole = Bench(str(tmp_path / "whole")).run("encode", given[0], **given[1])
    bench = Bench(str(tmp_path / "often"))
    attempts = 0
    while crashes(bench, "encode", given, 5, after=False):
        attempts += 1
        assert attempts < 10
    again = bench.run("encode", given[0], **given[1])
    assert attempts >= 2 and contents(again) == contents(whole)
