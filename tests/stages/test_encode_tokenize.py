from __future__ import annotations

import shutil
from functools import partial

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, ErnieConfig, ErnieModel

from pipeline.artifacts.keys import digest
from pipeline.artifacts.kinds import EMBEDDINGS
from pipeline.artifacts.writer import ArtifactWriter
from pipeline.dag.contract import Mismatch
from pipeline.distributed import shards
from pipeline.distributed.shards import run_shards
from pipeline.models.base import BaseModelError
from pipeline.models.base_folder import ScratchSizes, write_scratch
from pipeline.stages import exports, tables
from pipeline.text.tokenizer import load_tokenizer, tokenizer_digest
from tests.benches import EXACT, LENGTHS, SCRATCH, Bench, TinyWorld, contents
from tests.text.conftest import save_ernie

SIZES = {name: size for name, size in SCRATCH["scratch"].items() if name != "vocab_size"}


@pytest.fixture(scope="module")
def tokenizer(tiny: TinyWorld):
    return AutoTokenizer.from_pretrained(str(tiny.base.folder("model")))


def test_tokens_are_those_of_the_tokenizer(tiny, tokenizer):
    passages, tokens = tiny.dataset.read("passages"), tiny.tokens.read("passages")
    for column in ("title", "text"):
        expected = [
            tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in passages[column].to_pylist()
        ]
        limit = LENGTHS["pair_max_len"] - 3
        assert tokens[f"{column}_ids"].to_pylist() == [ids[:limit] for ids in expected]
    queries = tiny.dataset.read("queries", ["text"])["text"].to_pylist()
    assert tiny.tokens.read("queries")["ids"].to_pylist() == [
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in queries
    ]


def test_tokens_keep_the_shards_of_the_dataset(tiny):
    assert [s.rows for s in tiny.tokens.shards("passages")] == [10, 10, 4]
    whole = tiny.bench.run("ingest", {"source": tiny.world.source(), "passages_per_shard": 100})
    one = tiny.bench.run("tokenize", LENGTHS, dataset=whole, base=tiny.base)
    for table in ("queries", "passages"):
        assert one.read(table).equals(tiny.tokens.read(table).combine_chunks())


def test_truncation_is_counted(tiny, tokenizer):
    short = {**LENGTHS, "query_max_len": 4, "pair_max_len": 6}
    tokens = tiny.bench.run("tokenize", short, dataset=tiny.dataset, base=tiny.base)
    queries = tiny.dataset.read("queries", ["text"])["text"].to_pylist()
    lengths = np.array([len(tokenizer(text)["input_ids"]) - 2 for text in queries])
    metrics = tiny.bench.outcome(tokens).metrics
    assert metrics["query_cut_share"] == pytest.approx((lengths > 2).mean())
    lost = np.maximum(lengths - 2, 0).sum() / lengths.sum()
    assert metrics["query_tokens_lost_share"] == pytest.approx(lost)


def test_without_titles(tiny, tokenizer):
    params = {**LENGTHS, "title": False}
    tokens = tiny.bench.run("tokenize", params, dataset=tiny.dataset, base=tiny.base)
    assert not any(tokens.read("passages")["title_ids"].to_pylist())
    (one,) = tables.open_tokens(tokens).passage_batch(np.array([0])).input_ids
    text = tiny.dataset.read("passages")["text"][0].as_py()
    assert one.tolist() == tokenizer(text)["input_ids"]


def folder_base(bench, folder):
    """A base model from a folder."""
    return bench.run("base_model", {"model": str(folder)}, sources=[{"sha256": str(folder)}])


def test_a_bare_vocabulary_becomes_a_tokenizer_that_needs_no_model_beside_it(tiny, bench, tmp_path):
    folder = tmp_path / "ernie"
    folder.mkdir()
    save_ernie(folder)
    words = (folder / "vocab.txt").read_text().split()
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = ErnieConfig(**sizes, intermediate_size=8, vocab_size=len(words))
    ErnieModel(config).save_pretrained(folder)
    base = folder_base(bench, folder)
    tokens = bench.run("tokenize", LENGTHS, dataset=tiny.dataset, base=base)
    own, kept = (load_tokenizer(at) for at in (folder, tokens.folder("tokenizer")))
    assert tokenizer_digest(own) == tokenizer_digest(kept)
    retriever = bench.run("initial_retriever", {}, base=base, tokens=tokens)
    assert not (base.folder("model") / "tokenizer.json").exists()
    exports.check_retriever(retriever, tokens)


def test_a_base_whose_tokenizer_cannot_be_loaded_is_refused_at_once(tiny, bench, tmp_path):
    folder = shutil.copytree(tiny.base.folder("model"), tmp_path / "broken")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(BaseModelError, match=f"{folder}: .* cannot be loaded .*: fetch its files"):
        folder_base(bench, folder)


@pytest.mark.parametrize(
    ("positions", "longer"),
    [(9, "query_max_len 10 and passage_max_len 16 and pair_max_len 24"), (23, "pair_max_len 24")],
)
def test_lengths_beyond_the_models_positions_are_refused(tiny, bench, positions, longer):
    scratch = {**SCRATCH["scratch"], "max_position_embeddings": positions}
    small = bench.run("base_model", {**SCRATCH, "scratch": scratch}, dataset=tiny.dataset)
    with pytest.raises(BaseModelError, match=rf"at most {positions} tokens, fewer than {longer}:"):
        bench.run("tokenize", LENGTHS, dataset=tiny.dataset, base=small)
    fitting = {name: min(length, positions) for name, length in LENGTHS.items()}
    bench.run("tokenize", fitting, dataset=tiny.dataset, base=small)


def test_a_vocabulary_beyond_the_models_embedding_table_is_refused(tiny, bench, tmp_path):
    folder = shutil.copytree(tiny.base.folder("model"), tmp_path / "few")
    write_scratch(folder, ScratchSizes(vocab_size=50, **SIZES), seed=1)
    few = folder_base(bench, folder)
    with pytest.raises(BaseModelError, match="embedding table has 50 rows"):
        bench.run("tokenize", LENGTHS, dataset=tiny.dataset, base=few)


def test_vectors_are_those_of_the_model_called_one_by_one(tiny, tokenizer):
    folder = tiny.retriever.folder("model")
    queries, documents = (
        AutoModel.from_pretrained(str(folder / side)).eval() for side in ("query", "passage")
    )
    vectors = tables.vectors(tiny.vectors.read("passages"))
    assert vectors.dtype == np.float16
    passages = tiny.dataset.read("passages").to_pylist()
    with torch.inference_mode():
        for passage, vector in zip(passages, vectors, strict=True):
            title = passage["title"] or "-"
            inputs = tokenizer(
                title,
                passage["text"],
                return_tensors="pt",
                truncation=True,
                max_length=LENGTHS["passage_max_len"],
            )
            direct = documents(**inputs).last_hidden_state[0, 0]
            np.testing.assert_allclose(vector, direct.numpy(), atol=2e-3)
        texts = tiny.dataset.read("queries", ["text"])["text"].to_pylist()
        found = tables.query_vectors(tiny.vectors, np.arange(len(texts)))
        for text, vector in zip(texts, found, strict=True):
            inputs = tokenizer(
                text, return_tensors="pt", truncation=True, max_length=LENGTHS["query_max_len"]
            )
            direct = queries(**inputs).last_hidden_state[0, 0]
            np.testing.assert_allclose(vector, direct.numpy(), atol=2e-3)


def test_shards_and_batches_change_nothing(tiny):
    given = {"retriever": tiny.retriever, "tokens": tiny.tokens, "dataset": tiny.dataset}
    parts = {"queries_per_shard": 7, "token_budget": 40, "dtype": "float32", **EXACT}
    whole = {"dtype": "float32", **EXACT}
    many, one = (tiny.bench.run("encode", params, **given) for params in (parts, whole))
    assert [s.rows for s in many.shards("queries")] == [7, 7, 7, 7, 7, 5]
    assert many.resolved == {"precision": "float32"}
    for table in ("queries", "passages"):
        rows = [artifact.read(table) for artifact in (many, one)]
        assert rows[0].column(0).to_pylist() == rows[1].column(0).to_pylist()
        np.testing.assert_allclose(*map(tables.vectors, rows), atol=1e-6)


def test_only_the_wanted_splits_are_encoded(tiny):
    given = {"retriever": tiny.retriever, "tokens": tiny.tokens, "dataset": tiny.dataset}
    params = {"splits": ["dev", "validation"], "queries_per_shard": 5, **EXACT}
    some = tiny.bench.run("encode", params, **given)
    wanted = tables.queries_of(tiny.dataset, ["validation", "dev"])
    assert some.read("queries")["query_index"].to_pylist() == wanted.tolist()
    order = wanted[::-1]
    np.testing.assert_allclose(
        tables.query_vectors(some, order), tables.query_vectors(tiny.vectors, order), atol=2e-3
    )
    with pytest.raises(ValueError, match=r"vectors of 0 of 1 wanted queries: give the encode"):
        tables.query_vectors(some, tables.queries_of(tiny.dataset, ["train"])[:1])
    with pytest.raises(ValueError, match="no queries of split 'test': it has dev, train"):
        tiny.bench.run("encode", {"splits": ["test"]}, **given)
    labelled = tiny.bench.dataset(["water boils"], ["train"], [(0, 0)])
    with pytest.raises(Mismatch, match=r"'unlabelled': it has train; .*without_unlabelled\.yaml"):
        tables.queries_of(labelled, ["unlabelled"])


def test_a_scratch_base_is_drawn_from_its_seed(tiny):
    def digests(**changes):
        return contents(tiny.bench.run("base_model", {**SCRATCH, **changes}, dataset=tiny.dataset))

    assert digests() != digests(replicate=1)
    with pytest.raises(ValueError, match="wire `dataset`"):
        tiny.bench.run("base_model", SCRATCH)


def test_the_commit_that_was_planned_is_the_one_that_is_read(bench, monkeypatch):
    class Read(Exception):
        pass

    def write_base(folder, model, revision):
        raise Read(model, revision)

    monkeypatch.setattr("pipeline.models.base_folder.write_base", write_base)
    commit = "0123456789" * 4
    for source, revision in (
        ({"hub": "owner/model", "commit": commit}, commit),
        ({"package": "some-model", "version": "1"}, "main"),
    ):
        params = {"model": "owner/model", "revision": "main"}
        with pytest.raises(Read) as found:
            bench.run("base_model", params, sources=[source])
        assert found.value.args == ("owner/model", revision)


def test_what_was_settled_is_obeyed_by_a_later_attempt(tiny, tmp_path):
    """A first attempt on a machine with bfloat16, a second on one without."""
    inputs = {"retriever": tiny.retriever, "tokens": tiny.tokens, "dataset": tiny.dataset}
    keys = {slot: [artifact.key] for slot, artifact in inputs.items()}
    key = digest({"stage": "encode", "params": {}, "seed": 5, "inputs": keys})
    made = {}
    for settled in ("float32", "bfloat16"):
        bench = Bench(str(tmp_path / settled))
        ArtifactWriter(bench.store, "encode", key, EMBEDDINGS).settle("precision", settled)
        made[settled] = bench.run("encode", {}, **inputs)
        assert made[settled].resolved == {"precision": settled}
    exact = tiny.bench.run("encode", EXACT, **inputs)
    assert contents(made["float32"]) == contents(exact) != contents(made["bfloat16"])


def test_only_work_with_models_and_vectors_takes_gpus(tmp_path, monkeypatch):
    asked = {}

    def recorded(make, tasks, resources, *rest):
        stage = make.writer.stage
        asked[stage] = resources.gpus_per_worker
        return run_shards(make, tasks, resources, *rest)

    monkeypatch.setattr(shards, "run_shards", recorded)
    tiny = TinyWorld(tmp_path)
    run = partial(tiny.bench.run, gpus="auto")
    texts = {"dataset": tiny.dataset, "base": tiny.base}
    tokens = run("tokenize", LENGTHS, **texts)
    wired = {"dataset": tiny.dataset, "tokens": tokens}
    run("bm25", {"depths": {"dev": 5}}, **wired)
    vectors = run("encode", EXACT, retriever=tiny.retriever, **wired)
    candidates = run("mine", {"depths": {"train": 12, "dev": 12}}, embeddings=vectors, **wired)
    params = {"depth": 6, "num_negatives": 2}
    run("pool", params, embeddings=vectors, candidates=candidates, **wired)
    cpus = {"tokenize": 0, "bm25": 0, "pool": 0}
    assert asked == {**cpus, "encode": "auto", "mine": "auto"}
