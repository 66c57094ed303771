"""Stages without a DAG: run one, or write down its input by hand."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from pipeline.artifacts.keys import digest
from pipeline.artifacts.kinds import DATASET, EMBEDDINGS, Kind
from pipeline.artifacts.manifest import directory_of, read_manifest
from pipeline.artifacts.reader import Artifact
from pipeline.artifacts.store import Store
from pipeline.artifacts.writer import ArtifactWriter
from pipeline.dag.contract import Context, Inputs, Outcome, Resources
from pipeline.stages import registry
from pipeline.stages.tables import vector_column
from tests.worlds import GeneratedWorld, Sizes, generate

Given = Artifact | Sequence[Artifact]
JOURNAL = "training.jsonl"


class Counter:
    """A progress line that only counts."""

    def __init__(self) -> None:
        self.rows = 0
        self.notes: list[str] = []

    def start(self, what: str, total: int | None, unit: str = "rows") -> None:
        pass

    def advance(self, amount: int) -> None:
        self.rows += amount

    def note(self, text: str) -> None:
        self.notes.append(text)


@dataclass(frozen=True)
class Made:
    """How an artifact written by hand says it was made."""

    stage: str
    params: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Artifact] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    device: str = ""

    def key_inputs(self) -> dict[str, Any]:
        keys = {name: [artifact.key] for name, artifact in self.inputs.items()}
        return {"params": dict(self.params), "inputs": keys}


@dataclass
class Bench:
    """Runs stages below one root; what is published already is not made again."""

    root: str
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    progress: Counter = field(default_factory=Counter)

    @cached_property
    def store(self) -> Store:
        return Store(self.root)

    def run(
        self,
        name: str,
        params: Mapping[str, Any] | None = None,
        *,
        workers: int = 0,
        cpus: float = 1,
        gpus: float | Literal["auto"] = 0,
        seed: int = 5,
        max_failures: int = 3,
        sources: Sequence[Mapping[str, str]] = (),
        **inputs: Given,
    ) -> Artifact:
        """The artifact of a stage type with these parameters and inputs."""
        kind = registry()[name]
        given = {
            slot: (one,) if isinstance(one, Artifact) else tuple(one)
            for slot, one in inputs.items()
        }
        keys = {slot: [artifact.key for artifact in many] for slot, many in given.items()}
        shape = {"stage": name, "params": dict(params or {}), "seed": seed, "inputs": keys}
        key = digest({**shape, "gpus": gpus} if gpus else shape)
        if read_manifest(self.store, directory_of(name, key)) is None:
            writer = ArtifactWriter(self.store, name, key, kind.output)
            resources = Resources(
                workers=workers,
                cpus_per_worker=cpus,
                gpus_per_worker=gpus,
                max_failures=max_failures,
            )
            logger = logging.getLogger("test")
            context = Context(name, key, resources, self.progress, logger, seed, sources)
            read = kind.params.model_validate(params or {})
            outcome = self.outcomes[key] = kind.run(Inputs(given), read, writer, context)
            writer.publish(
                {"params": read.model_dump(mode="json"), "inputs": keys, "seed": seed},
                json.loads(json.dumps(asdict(outcome), default=lambda value: value.item())),
            )
        return Artifact.open(self.store, name, key)

    def outcome(self, artifact: Artifact) -> Outcome:
        """What the stage said when it made `artifact` here."""
        return self.outcomes[artifact.key]

    def given(
        self,
        kind: Kind,
        tables: Mapping[str, Sequence[pa.Table]] | None = None,
        documents: Mapping[str, Any] | None = None,
        info: Sequence[Mapping[str, Any]] | None = None,
        made: Made | None = None,
    ) -> Artifact:
        """An artifact written by hand: shards of each table, documents, and what made it."""
        stage = made.stage if made else f"given-{kind}"
        key = digest({"given": len(self.store.list(stage)), "kind": kind.name, "stage": stage})
        writer = ArtifactWriter(self.store, stage, key, kind)
        for table, shards in (tables or {}).items():
            for index, rows in enumerate(shards):
                said = info[index] if info and table == "queries" else None
                writer.shards(table).write(index, rows, said)
        for name, value in (documents or {}).items():
            writer.document(name, value)
        if made:
            run = {"device": made.device}
            writer.publish(made.key_inputs(), {"counts": made.counts}, run=run)
        else:
            writer.publish({}, {})
        return Artifact.open(self.store, stage, key)

    def dataset(
        self,
        passages: Sequence[str],
        splits: Sequence[str],
        qrels: Sequence[tuple[int, int]],
        *,
        rows_per_shard: int = 1000,
        texts: Sequence[str] | None = None,
        titles: Sequence[str] | None = None,
        answers: Mapping[int, Sequence[str]] | None = None,
        **pairs: Sequence[tuple[int, int]],
    ) -> Artifact:
        """A Dataset of given texts; `pairs` are the tables excluded, negatives, hidden_qrels."""
        ids = [f"p{number}" for number in range(len(passages))]
        named = list(titles) if titles else [""] * len(ids)
        body = pa.table({"passage_id": ids, "title": named, "text": list(passages)})
        names = [f"q{number}" for number in range(len(splits))]
        said = list(texts) if texts else names
        judged = pair_table(qrels).append_column(
            "relevance", pa.array([1] * len(qrels), pa.int32())
        )
        tables = {
            "passages": cut(body, rows_per_shard),
            "queries": [pa.table({"query_id": names, "text": said, "split": list(splits)})],
            "qrels": [judged],
        }
        for name in ("excluded", "negatives", "hidden_qrels"):
            tables[name] = [pair_table(pairs.get(name, []))]
        if answers:
            column = pa.array([list(one) for one in answers.values()], pa.list_(pa.string()))
            rows = {"query_index": pa.array(list(answers), pa.int32()), "answers": column}
            tables["answers"] = [pa.table(rows)]
        return self.given(DATASET, tables)


def pair_table(pairs: Sequence[tuple[int, int]]) -> pa.Table:
    both = np.asarray(pairs, np.int32).reshape(-1, 2)
    return pa.table({"query_index": both[:, 0], "passage_index": both[:, 1]})


def embeddings(
    bench: Bench,
    queries: np.ndarray,
    passages: np.ndarray,
    passages_per_shard: int,
    queries_per_shard: int,
) -> Artifact:
    """Vectors written straight into an artifact; products of integers are exact, ties plenty."""

    def table(name: str, values: np.ndarray) -> pa.Table:
        rows = pa.array(range(len(values)), pa.int32())
        column = vector_column(values.astype(np.float16))
        return pa.table({name: rows, "embedding": column})

    shards = cut(table("query_index", queries), queries_per_shard)
    info = [
        {"first": part["query_index"][0].as_py(), "last": part["query_index"][-1].as_py()}
        for part in shards
    ]
    found = {
        "queries": shards,
        "passages": cut(table("passage_index", passages), passages_per_shard),
    }
    return bench.given(EMBEDDINGS, found, info=info)


def cut(table: pa.Table, rows: int) -> list[pa.Table]:
    return [table.slice(first, rows) for first in range(0, len(table), rows)]


def contents(artifact: Artifact) -> list[Any]:
    """What an artifact holds, without the times that a training journal tells."""
    files = [f for f in artifact.manifest.files if f.part != JOURNAL]
    held: list[Any] = sorted([f.part, f.name, f.index, f.rows, f.sha256] for f in files)
    if artifact.has(JOURNAL):
        lines = [json.loads(line) for line in artifact.text(JOURNAL).splitlines()]
        times = ("rows_per_second", "seconds_waited")
        held += [{k: v for k, v in line.items() if k not in times} for line in lines]
    return held


TINY = Sizes(topics=4, keys=2, topic_words=6, copies=2, unasked=2, train=2)
SCRATCH = {
    "model": "scratch",
    "scratch": {
        "vocab_size": 120,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
    },
}
LENGTHS = {"query_max_len": 10, "passage_max_len": 16, "pair_max_len": 24}
EXACT = {"precision": "float32"}
SHORT = {"global_batch_size": 8, "max_steps": 4, "checkpoint_steps": 2, **EXACT}


class TinyWorld:
    """A tiny world with one artifact of each kind, each made when it is first asked for."""

    def __init__(self, folder: Path, root: str | None = None) -> None:
        self.bench = Bench(root or str(folder / "root"))
        self.world: GeneratedWorld = generate(folder / "world", TINY)

    @cached_property
    def dataset(self) -> Artifact:
        params = {"source": self.world.source(), "passages_per_shard": 10}
        return self.bench.run("ingest", params)

    @cached_property
    def base(self) -> Artifact:
        return self.bench.run("base_model", SCRATCH, dataset=self.dataset)

    @cached_property
    def tokens(self) -> Artifact:
        return self.bench.run("tokenize", LENGTHS, dataset=self.dataset, base=self.base)

    @cached_property
    def retriever(self) -> Artifact:
        return self.bench.run("initial_retriever", {}, base=self.base, tokens=self.tokens)

    @cached_property
    def vectors(self) -> Artifact:
        given = {"retriever": self.retriever, "tokens": self.tokens, "dataset": self.dataset}
        return self.bench.run("encode", EXACT, **given)

    @cached_property
    def candidates(self) -> Artifact:
        depths = {"train": 12, "validation": 12, "dev": 12, "unlabelled": 12}
        params = {"depths": depths, "queries_per_shard": 12}
        given = {"embeddings": self.vectors, "dataset": self.dataset, "tokens": self.tokens}
        return self.bench.run("mine", params, **given)

    @cached_property
    def lists(self) -> Artifact:
        given = {"dataset": self.dataset, "tokens": self.tokens, "candidates": self.candidates}
        return self.bench.run("sample", {"depth": 12, "num_negatives": 2}, **given)

    @cached_property
    def pools(self) -> Artifact:
        given = {"dataset": self.dataset, "tokens": self.tokens, "embeddings": self.vectors}
        params = {"depth": 6, "num_negatives": 2}
        return self.bench.run("pool", params, candidates=self.candidates, **given)

    @cached_property
    def hiding(self) -> Artifact:
        """The dataset with a hidden label for each query of the pools: its best candidate."""
        tables = {name: [self.dataset.read(name)] for name in DATASET.tables}
        best = {
            row["query_index"]: row["passage_index"][0]
            for row in self.pools.read("pools").to_pylist()
        }
        tables["hidden_qrels"] = [pair_table(list(best.items()))]
        return self.bench.given(DATASET, tables)

    @cached_property
    def ranker(self) -> Artifact:
        given = {"base": self.base, "tokens": self.tokens, "lists": self.lists}
        return self.bench.run("train_ranker", SHORT, **given)

    @cached_property
    def scored(self) -> Artifact:
        return self.bench.run("score", {"depth": 10, **EXACT}, **self.scoring)

    @property
    def scoring(self) -> dict[str, Artifact]:
        """The inputs of `score`."""
        wired = {"ranker": self.ranker, "candidates": self.candidates}
        return {**wired, "tokens": self.tokens, "dataset": self.dataset}

    @property
    def joining(self) -> dict[str, Artifact]:
        """The inputs of `train_joint`."""
        models = {"retriever": self.retriever, "ranker": self.ranker}
        return {**models, "tokens": self.tokens, "lists": self.lists}

    @cached_property
    def joint(self) -> Artifact:
        return self.bench.run("train_joint", {**SHORT, "num_negatives": 2}, **self.joining)

    @cached_property
    def agreeing(self) -> Artifact:
        """The dataset, its validation labels being what the hardly trained ranker likes best."""
        tables = {name: [self.dataset.read(name)] for name in DATASET.tables}
        split = tables["queries"][0]["split"].to_pylist()
        scored = self.scored.read("candidates").to_pylist()
        likes = [
            (row["query_index"], row["passage_index"][int(np.nanargmax(row["ranker_score"]))])
            for row in scored
            if split[row["query_index"]] == "validation"
        ]
        column = pa.array([1] * len(likes), pa.int32())
        liked = pair_table(likes).append_column("relevance", column)
        labels = tables["qrels"][0]
        others = [split[q] != "validation" for q in labels["query_index"].to_pylist()]
        tables["qrels"] = [pa.concat_tables([labels.filter(pa.array(others)), liked])]
        return self.bench.given(DATASET, tables)
