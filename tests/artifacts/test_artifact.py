"""Artifacts: published whole or not at all, resumed by part, damage found."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.artifacts.kinds import CANDIDATES, DATASET, EMBEDDINGS, RETRIEVER, SCORED_CANDIDATES
from pipeline.artifacts.manifest import ArtifactError, CorruptArtifact, directory_of
from pipeline.artifacts.reader import Artifact
from pipeline.artifacts.store import Store
from pipeline.artifacts.writer import WRITING, ArtifactWriter, finished_parts


def passages(first: int, count: int) -> pa.Table:
    numbers = [str(number) for number in range(first, first + count)]
    return pa.table({"text": numbers, "passage_id": numbers, "title": [""] * count})


def written(store: Store, key: str = "k" * 64) -> ArtifactWriter:
    writer = ArtifactWriter(store, "ingest", key, DATASET)
    shards = writer.shards("passages")
    shards.write(1, passages(3, 2), {"source": "b"})
    shards.write(0, passages(0, 3))
    return writer


def test_tables_read_back_in_row_order(any_store: Store) -> None:
    writer = written(any_store)
    writer.publish({"seed": 1}, {"rows_out": 5})
    artifact = Artifact.open(any_store, "ingest", "k" * 64)
    assert artifact.read("passages")["passage_id"].to_pylist() == list("01234")
    assert [shard.first_row for shard in artifact.shards("passages")] == [0, 3]
    assert artifact.rows("passages") == 5
    assert not artifact.has("queries")
    assert artifact.damage() == []
    assert any_store.list(f"{artifact.directory}/parts") == []


def test_nothing_is_visible_before_publishing(any_store: Store) -> None:
    written(any_store)
    with pytest.raises(ArtifactError, match="no artifact"):
        Artifact.open(any_store, "ingest", "k" * 64)


def test_finished_shards_are_found_by_the_next_attempt(any_store: Store) -> None:
    writer = written(any_store)
    assert sorted(writer.shards("passages").done()) == [0, 1]
    again = ArtifactWriter(any_store, "ingest", "k" * 64, DATASET)
    record = again.shards("passages").done()[0]
    any_store.delete(f"{again.directory}/{record.path}")
    assert sorted(again.shards("passages").done()) == [1]


def test_a_late_writer_spoils_nothing(any_store: Store) -> None:
    writer = written(any_store)
    writer.publish({}, {})
    late = ArtifactWriter(any_store, "ingest", "k" * 64, DATASET)
    late.shards("passages").write(0, passages(100, 7))
    artifact = Artifact.open(any_store, "ingest", "k" * 64)
    assert artifact.read("passages")["passage_id"].to_pylist() == list("01234")
    assert artifact.damage() == []


@pytest.mark.parametrize("left", [0, 1])
def test_who_lost_its_lock_spoils_nothing_by_publishing(any_store: Store, left: int) -> None:
    lost, other = written(any_store), written(any_store)
    made = other.publish({}, {"rows_out": 5})
    for index in range(left):
        lost.shards("passages").write(index, passages(100, 7))
    assert lost.publish({}, {"rows_out": 7}) == made
    artifact = Artifact.open(any_store, "ingest", "k" * 64)
    assert artifact.read("passages")["passage_id"].to_pylist() == list("01234")


def test_parts_taken_away_meanwhile_are_not_left_out_of_a_manifest(any_store: Store) -> None:
    writer = written(any_store)
    any_store.move(writer.directory, f"aside/{writer.directory}-run")
    with pytest.raises(ArtifactError, match="run again"):
        writer.publish({}, {})
    writer.shards("passages").write(0, passages(0, 3))
    with pytest.raises(ArtifactError, match="moved or deleted"):
        writer.publish({}, {})
    with pytest.raises(ArtifactError, match="no artifact"):
        Artifact.open(any_store, "ingest", "k" * 64)


def test_a_gap_between_shards_is_refused(any_store: Store) -> None:
    writer = ArtifactWriter(any_store, "ingest", "g" * 64, DATASET)
    writer.shards("passages").write(2, passages(0, 1))
    with pytest.raises(ValueError, match="gaps"):
        writer.publish({}, {})


def test_equal_contents_have_equal_digests(any_store: Store) -> None:
    one = written(any_store, "a" * 64).publish({}, {"seconds": 1})
    two = written(any_store, "b" * 64).publish({}, {"seconds": 2})
    assert one.content_digest == two.content_digest


def test_damage_is_found(any_store: Store) -> None:
    written(any_store).publish({}, {})
    artifact = Artifact.open(any_store, "ingest", "k" * 64)
    record = artifact.manifest.files[0]
    path = f"{artifact.directory}/{record.path}"
    data = any_store.read_bytes(path)
    any_store.write_bytes(path, data[:-1] + bytes([data[-1] ^ 1]))
    assert artifact.damage() == [f"{record.path} has another hash than its manifest says"]
    any_store.write_bytes(path, data[:-1])
    with pytest.raises(CorruptArtifact, match="bytes, not"):
        artifact.check_sizes()
    any_store.delete(path)
    with pytest.raises(CorruptArtifact, match="gone"):
        artifact.read("passages")
    any_store.write_bytes(f"{artifact.directory}/manifest.json", b"{}")
    with pytest.raises(CorruptArtifact, match="success marker"):
        Artifact.open(any_store, "ingest", "k" * 64)


def test_folders_and_documents_come_back(any_store: Store) -> None:
    writer = ArtifactWriter(any_store, "train_retriever", "f" * 64, RETRIEVER)
    with writer.folder("model") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "weights").write_bytes(b"w")
        (folder / "config.json").write_text("{}")
    writer.document("training.jsonl", "line\n")
    assert writer.finished("model")
    writer.publish({}, {})
    artifact = Artifact.open(any_store, "train_retriever", "f" * 64)
    assert (artifact.folder("model") / "sub" / "weights").read_bytes() == b"w"
    assert artifact.text("training.jsonl") == "line\n"
    with pytest.raises(ArtifactError, match="no folder"):
        artifact.folder("tokenizer")


def test_settled_values_are_obeyed_by_later_attempts(any_store: Store) -> None:
    first = ArtifactWriter(any_store, "encode", "e" * 64, EMBEDDINGS)
    assert first.settle("precision", "float32") == "float32"
    second = ArtifactWriter(any_store, "encode", "e" * 64, EMBEDDINGS)
    assert second.settle("precision", "bfloat16") == "float32"
    assert second.publish({}, {}).resolved == {"precision": "float32"}


def test_columns_are_checked(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    writer = ArtifactWriter(store, "encode", "e" * 64, EMBEDDINGS)
    loose = pa.table({"query_index": [0], "embedding": [[1.0, 2.0]]})
    with pytest.raises(ValueError, match="fixed-size"):
        writer.shards("queries").write(0, loose)
    with pytest.raises(ValueError, match="columns"):
        writer.shards("queries").write(0, loose.drop_columns(["embedding"]))
    with pytest.raises(ValueError, match="no table"):
        writer.shards("passengers")
    vectors = pa.FixedSizeListArray.from_arrays(pa.array([1.0, 2.0], pa.float32()), 2)
    writer.shards("queries").write(0, pa.table({"query_index": [0], "embedding": vectors}))
    assert list(finished_parts(store, directory_of("encode", "e" * 64))) == [("queries", 0)]


def test_kinds_stand_in_for_what_they_refine() -> None:
    assert SCORED_CANDIDATES.serves_as(CANDIDATES)
    assert not CANDIDATES.serves_as(SCORED_CANDIDATES)
    assert CANDIDATES.schema("candidates").field("score").type == pa.list_(pa.float32())


def test_remote_files_are_cached_and_checked(s3_root: str, own_cache: Path) -> None:
    store = Store(s3_root)
    written(store).publish({}, {})
    artifact = Artifact.open(store, "ingest", "k" * 64)
    artifact.read("passages")
    for record in artifact.manifest.files:
        store.delete(f"{artifact.directory}/{record.path}")
    assert artifact.read("passages").num_rows == 5
    derived = artifact.derived("flat", lambda folder: (folder / "x").write_text("made") and None)
    assert (derived / "x").read_text() == "made"
    assert own_cache in derived.parents


def test_a_model_that_was_made_again_is_not_taken_from_the_cache(any_store: Store) -> None:
    def made(text: str) -> Path:
        writer = ArtifactWriter(any_store, "train_retriever", "f" * 64, RETRIEVER)
        with writer.folder("model") as folder:
            (folder / "weights").write_text(text)
        writer.publish({}, {})
        return Artifact.open(any_store, "train_retriever", "f" * 64).folder("model")

    assert (made("old") / "weights").read_text() == "old"
    directory = directory_of("train_retriever", "f" * 64)
    any_store.move(directory, f"aside/{directory}-run")
    assert (made("new") / "weights").read_text() == "new"


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "../../../file"), ("name", "/file"), ("path", "../file"), ("sha256", "../" * 21)],
)
def test_a_foreign_manifest_reaches_no_other_folder(tmp_path: Path, field: str, value: str) -> None:
    store = Store(str(tmp_path))
    written(store).publish({}, {})
    directory = directory_of("ingest", "k" * 64)
    manifest = store.read_json(f"{directory}/manifest.json")
    manifest["files"][0][field] = value
    data = json.dumps(manifest).encode()
    store.write_bytes(f"{directory}/manifest.json", data)
    store.write_bytes(f"{directory}/_SUCCESS", hashlib.sha256(data).hexdigest().encode())
    with pytest.raises(CorruptArtifact, match=rf"files\.0\.{field}: "):
        Artifact.open(store, "ingest", "k" * 64)


def test_publishing_cleans_away_what_a_killed_writer_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))
    writer = written(store)
    with monkeypatch.context() as killed:
        killed.setattr("shutil.rmtree", lambda *_, **__: None)
        killed.setattr("tempfile.TemporaryDirectory.cleanup", lambda _: None)
        writer.shards("passages").write(2, passages(5, 1))
    assert any(name.startswith(WRITING) for name in store.list(writer.directory))
    writer.publish({}, {})
    assert store.list(writer.directory) == ["_SUCCESS", "manifest.json", "passages"]
