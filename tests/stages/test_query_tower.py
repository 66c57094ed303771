"""`train_retriever` with `refresh: every_step`: ADORE from artifacts to an exported retriever."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from pipeline.artifacts.kinds import DATASET, EMBEDDINGS, TRAINING_LISTS
from pipeline.models.dual_encoder import DualEncoder
from pipeline.stages import tables
from pipeline.stages.lineage import optimiser_steps
from pipeline.training.batches import Batches
from pipeline.training.query_tower import QueryTowerObjective
from tests.benches import EXACT, LENGTHS, SCRATCH, SHORT, Bench, contents, pair_table

DEPTH = 6
FULL = {"dtype": "float32", **EXACT}
ADORE = {
    **SHORT,
    "refresh": "every_step",
    "loss": "lambda_rank",
    "num_negatives": DEPTH,
    "learning_rate": 1e-3,
    "warmup_ratio": 0.0,
    "encoder_dropout": 0.0,
}
SHARED = {"shared": True, "pooling": "mean", "normalize": True, "temperature": 0.05}


class World:
    """A retriever, its vectors, and what ADORE is wired to."""

    def __init__(self, tiny, shared: bool) -> None:
        self.bench, self.tiny = tiny.bench, tiny
        encoder = {**SHARED, "shared": shared}
        given = {"base": tiny.base, "tokens": tiny.tokens}
        self.retriever = self.bench.run("initial_retriever", encoder, **given)
        self.vectors = self.encoded(self.retriever)

    def encoded(self, retriever):
        given = {"tokens": self.tiny.tokens, "dataset": self.tiny.dataset}
        return self.bench.run("encode", FULL, retriever=retriever, **given)

    @property
    def wired(self):
        made = {"base": self.retriever, "embeddings": self.vectors, "lists": self.tiny.lists}
        return {**made, "tokens": self.tiny.tokens, "dataset": self.tiny.dataset}

    def trained(self, bench: Bench | None = None, params=(), **changes):
        given = {**self.wired, **changes}
        return (bench or self.bench).run("train_retriever", {**ADORE, **dict(params)}, **given)


@pytest.fixture(scope="module")
def world(tiny):
    return World(tiny, shared=True)


def tower(retriever, name: str) -> dict[str, torch.Tensor]:
    folder = retriever.folder("model")
    own = folder / name
    return load_file((own if own.is_dir() else folder) / "model.safetensors")


@pytest.mark.parametrize("shared", [True, False])
def test_the_query_tower_alone_is_trained(tiny, shared):
    world = World(tiny, shared)
    trained = world.trained()
    before = {side: tower(world.retriever, side) for side in ("query", "passage")}
    after = {side: tower(trained, side) for side in ("query", "passage")}
    assert before["passage"].keys() == after["passage"].keys()
    for name, value in before["passage"].items():
        assert torch.equal(value, after["passage"][name]), name
    moved = [n for n, value in before["query"].items() if not torch.equal(value, after["query"][n])]
    assert "embeddings.word_embeddings.weight" in moved and len(moved) > 20
    outcome = tiny.bench.outcome(trained)
    assert outcome.counts == {"rows": 16, "steps": 4} and outcome.rows_out == 16
    assert optimiser_steps(trained, "retriever") == 4


def test_the_exported_retriever_has_the_vectors_that_were_searched(tiny, world):
    trained = world.trained()
    model = SentenceTransformer(str(trained.folder("model")), device="cpu")
    passages = tiny.dataset.read("passages").to_pylist()
    pairs = [(row["title"] or "-", row["text"]) for row in passages]
    frozen = tables.vectors(world.vectors.read("passages"))
    np.testing.assert_allclose(model.encode_document(pairs), frozen, atol=1e-5)
    queries = tiny.dataset.read("queries", ["text"])["text"].to_pylist()
    found = tables.vectors(world.encoded(trained).read("queries"))
    np.testing.assert_allclose(model.encode_query(queries), found, atol=1e-5)
    assert np.abs(found - tables.vectors(world.vectors.read("queries"))).max() > 1e-3


def test_the_first_step_compares_with_what_mine_finds(tiny, world):
    """The retriever is not trained yet then, so its candidates are those of its embeddings."""
    trained = world.trained(params={"loss": "softmax"})
    given = {"dataset": tiny.dataset, "tokens": tiny.tokens, "embeddings": world.vectors}
    mined = world.bench.run("mine", {"depths": {"train": DEPTH}}, **given).read("candidates")
    scores = dict(zip(mined["query_index"].to_pylist(), mined["score"].to_pylist(), strict=True))
    lists = tiny.lists.read("lists").to_pylist()
    queries = tables.vectors(world.vectors.read("queries"))
    passages = tables.vectors(world.vectors.read("passages"))
    rows = [(row["query_index"], p) for row in lists for p in row["positives"]]
    losses = []
    for at in Batches(len(rows), 8, seed=5).global_rows(0):
        query, positive = rows[at]
        own = float(queries[query] @ passages[positive])
        gaps = (np.array([own, *scores[query]]) - own) / SHARED["temperature"]
        losses.append(np.log(np.exp(gaps).sum()))
    journal = [json.loads(line) for line in trained.text("training.jsonl").splitlines()]
    assert journal[0]["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert journal[-1]["loss"] < journal[0]["loss"]


def test_negatives_of_lists_and_pools_play_no_part(tiny, world, bench):
    whole = world.trained()
    data = {"dataset": tiny.dataset, "tokens": tiny.tokens}
    other = bench.run("sample", {"source": "corpus", "num_negatives": 1}, **data)
    mined = {"candidates": tiny.candidates, "embeddings": tiny.vectors}
    pools = bench.run("pool", {"depth": 4, "num_negatives": 2, "positive": "each"}, **data, **mined)
    for lists in (other, pools):
        assert contents(world.trained(bench, lists=lists)) == contents(whole)


@pytest.fixture
def found(monkeypatch) -> set[tuple[int, int]]:
    """The queries with all passages that training has found for them, -1 for none."""
    pairs: set[tuple[int, int]] = set()
    nearest = QueryTowerObjective._nearest

    def seeing(self, query_vectors, batch):
        passages = nearest(self, query_vectors, batch)
        for query, row in zip(batch.query_indices.tolist(), passages.tolist(), strict=True):
            pairs.update((query, passage) for passage in row)
        return passages

    monkeypatch.setattr(QueryTowerObjective, "_nearest", seeing)
    return pairs


def best(world, depth: int) -> dict[int, list[int]]:
    """Each training query's first passages, without its positives."""
    given = {"dataset": world.tiny.dataset, "tokens": world.tiny.tokens}
    params = {"depths": {"train": depth}}
    mined = world.bench.run("mine", params, **given, embeddings=world.vectors)
    rows = mined.read("candidates").to_pylist()
    return {row["query_index"]: row["passage_index"] for row in rows}


def test_suspected_positives_are_never_found(tiny, world, found):
    """Here each query's best passage is suspected; no list names it."""
    suspected = [(query, passages[0]) for query, passages in best(world, 1).items()]
    held = {name: [tiny.dataset.read(name)] for name in DATASET.tables}
    dataset = tiny.bench.given(DATASET, {**held, "excluded": [pair_table(suspected)]})
    given = {"retriever": world.retriever, "tokens": tiny.tokens, "dataset": dataset}
    vectors = tiny.bench.run("encode", FULL, **given)
    world.trained(params={"max_steps": 2}, dataset=dataset, embeddings=vectors)
    assert len(found) > 8 * DEPTH and not found & set(suspected)


def test_copies_of_the_lists_own_positives_are_never_found(tiny, world, bench, found, monkeypatch):
    """Here passages are equal two by two, and lists name positives that have no label."""
    positives = {query: passages[2] for query, passages in best(world, 3).items()}
    rows = [{"query_index": q, "positives": [p], "negatives": []} for q, p in positives.items()]
    lists = pa.Table.from_pylist(rows, tiny.lists.read("lists").schema)
    passages = tiny.dataset.read("passages").num_rows
    monkeypatch.setattr(tables, "content_hashes", lambda _: np.arange(passages) // 2)
    given = bench.given(TRAINING_LISTS, {"lists": [lists]})
    world.trained(bench, {"max_steps": 2, "num_negatives": passages}, lists=given)
    assert {query for query, _ in found} == set(positives)
    assert not found & {(query, passage ^ 1) for query, passage in positives.items()}


def test_vectors_of_another_retriever_are_refused(tiny, world, bench):
    another = bench.run("base_model", {**SCRATCH, "replicate": 3}, dataset=tiny.dataset)
    retriever = bench.run("initial_retriever", SHARED, base=another, tokens=tiny.tokens)
    with pytest.raises(ValueError, match=r"not made with the Retriever .*whose `retriever` is"):
        world.trained(bench, base=retriever)
    with pytest.raises(ValueError, match="not made with the BaseModel"):
        world.trained(bench, base=tiny.base)
    params = {**LENGTHS, "query_max_len": 9}
    tokens = bench.run("tokenize", params, dataset=tiny.dataset, base=tiny.base)
    with pytest.raises(ValueError, match=f"not made with the Tokens {tokens}"):
        world.trained(bench, tokens=tokens)
    by_hand = bench.given(EMBEDDINGS)
    with pytest.raises(ValueError, match="not made with the Retriever"):
        world.trained(bench, embeddings=by_hand)


@pytest.mark.parametrize("loss", ["pairwise", "lambda_rank"])
def test_other_losses_train_on_lists_too(tiny, bench, loss):
    """STAR's, for instance; pairs have a smaller loss than a softmax over all candidates."""
    given = {"base": tiny.base, "tokens": tiny.tokens, "dataset": tiny.dataset, "lists": tiny.lists}
    params = {**SHORT, "encoder_dropout": 0.0, "max_steps": 2}
    own, softmax = (
        bench.run("train_retriever", {**params, **chosen}, **given)
        for chosen in ({"loss": loss}, {})
    )
    first = [json.loads(each.text("training.jsonl").splitlines()[0]) for each in (own, softmax)]
    assert first[0]["loss"] < first[1]["loss"]
    assert any(f"{loss} loss" in note for note in bench.progress.notes)
    models = [DualEncoder.load(each.folder("model")) for each in (own, softmax)]
    pairs = zip(*(model.parameters() for model in models), strict=True)
    assert not all(torch.equal(one, other) for one, other in pairs)
