from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.artifacts.kinds import DATASET
from pipeline.artifacts.reader import Artifact
from pipeline.artifacts.store import Store
from pipeline.artifacts.writer import ArtifactWriter, ShardWriter
from pipeline.dag.contract import Context, FileSource, Inputs, Outcome, Resources, ValueSource
from pipeline.sources.records import DataError
from pipeline.stages.ingest import IngestParams, ingest

KEY = "a" * 64


class Silent:
    def __init__(self) -> None:
        self.rows = 0

    def start(self, what: str, total: int | None, unit: str = "rows") -> None:
        pass

    def advance(self, amount: int) -> None:
        self.rows += amount

    def note(self, text: str) -> None:
        pass


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """A BEIR collection with 30 passages and a query for each."""
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)

    def lines(rows: Iterator[dict[str, str]]) -> str:
        return "".join(json.dumps(row) + "\n" for row in rows)

    passages = ({"_id": f"p{n}", "title": f"T{n}", "text": f"text {n}"} for n in range(30))
    (folder / "corpus.jsonl").write_text(lines(passages))
    (folder / "queries.jsonl").write_text(
        lines({"_id": f"q{n}", "text": f"question {n}"} for n in range(30))
    )
    for split, numbers in {"train": range(20), "dev": range(20, 30)}.items():
        rows = "".join(f"q{n}\tp{n}\t1\n" for n in numbers)
        (folder / f"qrels/{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{rows}")
    return folder


def parameters(folder: Path, **changes: object) -> IngestParams:
    source = {"format": "beir", "path": str(folder)}
    return IngestParams.model_validate({"source": source, "passages_per_shard": 8, **changes})


def run(store: Store, params: IngestParams, seed: int = 3) -> tuple[Outcome, Silent]:
    progress = Silent()
    writer = ArtifactWriter(store, "ingest", KEY, DATASET)
    context = Context("data", KEY, Resources(), progress, logging.getLogger("test"), seed)
    outcome = ingest.run(Inputs({}), params, writer, context)
    writer.publish({}, {})
    return outcome, progress


def test_writes_a_dataset(tmp_path, collection):
    store = Store(str(tmp_path / "root"))
    outcome, progress = run(store, parameters(collection))
    artifact = Artifact.open(store, "ingest", KEY)
    assert [shard.rows for shard in artifact.shards("passages")] == [8, 8, 8, 6]
    assert progress.rows == 30
    assert outcome.rows_in == outcome.rows_out == 90
    assert outcome.counts["validation queries"] == 2
    queries = artifact.read("queries").to_pylist()
    passages = artifact.read("passages")["passage_id"].to_pylist()
    assert [query["split"] for query in queries] == ["train"] * 18 + ["validation"] * 2 + [
        "dev"
    ] * 10
    for row in artifact.read("qrels").to_pylist():
        query = queries[row["query_index"]]["query_id"]
        assert query[1:] == passages[row["passage_index"]][1:]
    for table in DATASET.tables:
        assert artifact.has(table)


def test_a_second_attempt_keeps_finished_shards(tmp_path, collection, monkeypatch):
    params = parameters(collection)
    whole = Store(str(tmp_path / "whole"))
    run(whole, params)

    store = Store(str(tmp_path / "root"))
    real = ShardWriter.write
    written = []

    def write(self, index, table, info=None):
        if self.table == "passages" and index == 2 and not written.count(("passages", 2)):
            written.append((self.table, index))
            raise OSError("disk full")
        written.append((self.table, index))
        real(self, index, table, info)

    monkeypatch.setattr(ShardWriter, "write", write)
    with pytest.raises(OSError, match="disk full"):
        run(store, params)
    run(store, params)
    assert [index for table, index in written if table == "passages"] == [0, 1, 2, 2, 3]
    one, other = (Artifact.open(place, "ingest", KEY) for place in (whole, store))
    for table in DATASET.tables:
        assert one.read(table) == other.read(table)


def test_problems_fail_or_are_counted(tmp_path, collection):
    with (collection / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "p0", "text": "again"}\n{"_id": "p31"\n')
    store = Store(str(tmp_path / "root"))
    with pytest.raises(DataError, match=r"corpus.jsonl:3[12]: .*on_problem: skip"):
        run(store, parameters(collection))
    outcome, _ = run(store, parameters(collection, on_problem="skip"))
    assert outcome.dropped == {
        "repeated passage id": 1,
        "not JSON": 1,
        # Nobody knows which of its two texts was judged, and the query has no other label.
        "queries without a label": 1,
        "rows of queries left out": 1,
    }
    assert outcome.counts["positives of a passage with two texts, excluded"] == 1
    assert outcome.rows_in == outcome.rows_out + 4


def test_sources_name_the_files_read(collection):
    sources = ingest.sources(parameters(collection))
    files = [source.path for source in sources if isinstance(source, FileSource)]
    names = ["corpus.jsonl", "queries.jsonl", "qrels/train.tsv", "qrels/dev.tsv"]
    assert files == [str(collection / name) for name in names]
    assert ValueSource("parts", "corpus queries qrels.train qrels.dev") in sources


def test_mistakes_in_parameters(collection):
    for changes in (
        {"on_problem": "ignore"},
        {"validation_share": 1.0},
        {"passages_per_shard": 0},
        {"source": {"format": "beir"}},
        {"sauce": 1},
    ):
        with pytest.raises(ValidationError):
            parameters(collection, **changes)


def test_a_parameter_that_is_not_given_is_in_no_key(collection):
    assert "training_positives" not in parameters(collection).model_dump(mode="json")
    assert parameters(collection, training_positives=1).model_dump()["training_positives"] == 1
