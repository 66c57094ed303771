from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.artifacts.reader import Artifact
from pipeline.artifacts.store import Store
from pipeline.dag.commands import Options, execute
from pipeline.dag.selection import Selection
from pipeline.dag.specification import read_pipeline
from pipeline.stages import registry
from pipeline.stages.question_search import QuestionSearch
from pipeline.stages.tables import Candidates

JOB = Path(__file__).parents[2] / "jobs" / "search.py"
TOPICS = ("rivers", "planets", "bridges", "violins", "glaciers", "markets")
THINGS = ("long", "old", "cold", "bright", "heavy", "quiet", "distant")
PIPELINE = """
name: tiny
root: {root}
stages:
  data: {{uses: ingest, params: {{source: {{format: beir, path: {data}}}, passages_per_shard: 16,
    validation_share: 0.3}}}}
  base: {{uses: base_model, inputs: {{dataset: data}}, params: {{model: scratch, scratch:
    {{vocab_size: 120, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2,
    intermediate_size: 32}}}}}}
  tokens: {{uses: tokenize, inputs: {{dataset: data, base: base}}}}
  first: {{uses: initial_retriever, inputs: {{base: base, tokens: tokens}}}}
  first_vectors: {{uses: encode, inputs: {{retriever: first, tokens: tokens, dataset: data}},
    params: {{precision: float32}}}}
  found: {{uses: mine, inputs: {{embeddings: first_vectors, dataset: data, tokens: tokens}},
    params: {{depths: {{train: 20, dev: 20}}}}}}
  lists: {{uses: sample, inputs: {{dataset: data, tokens: tokens, candidates: found}},
    params: {{depth: 20, num_negatives: 1}}}}
  ranker: {{uses: train_ranker, inputs: {{base: base, tokens: tokens, lists: lists}},
    params: {{max_steps: 2, global_batch_size: 4, learning_rate: 1.0e-3, precision: float32}}}}
  scored: {{uses: score, inputs: {{ranker: ranker, candidates: found, tokens: tokens,
    dataset: data}}, params: {{splits: [dev], depth: 12, precision: float32}}}}
  second: {{uses: train_retriever, inputs: {{base: first, tokens: tokens, dataset: data,
    lists: lists}}, params: {{max_steps: 1, global_batch_size: 4, precision: float32}}}}
  second_vectors: {{uses: encode, inputs: {{retriever: second, tokens: tokens, dataset: data}}}}
"""


def write_world(folder: Path) -> Path:
    passages = [
        {"_id": f"p{t}{n}", "title": topic, "text": f"{thing} {topic} are {thing} and {topic} too"}
        for t, topic in enumerate(TOPICS)
        for n, thing in enumerate(THINGS)
    ]
    queries = [
        {"_id": f"q{t}{n}", "text": f"which {topic} are {thing}"}
        for t, topic in enumerate(TOPICS)
        for n, thing in enumerate(THINGS)
    ]
    (folder / "qrels").mkdir(parents=True)
    for name, rows in (("corpus", passages), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for split, wanted in (("train", range(4)), ("dev", (4, 5))):
        lines = [f"q{t}{n}\tp{t}{n}\t1\n" for t in wanted for n in range(len(THINGS))]
        text = "query-id\tcorpus-id\tscore\n" + "".join(lines)
        (folder / "qrels" / f"{split}.tsv").write_text(text)
    return folder


def run(file: Path, until: str) -> int:
    options = Options(
        file=str(file),
        selection=Selection(until=until.split(",")),
        settings=("stages.*.resources.workers=0",),
    )
    return execute(options, registry())


@pytest.fixture(scope="module")
def job():
    spec = importlib.util.spec_from_file_location("search_job", JOB)
    module = importlib.util.module_from_spec(spec)
    sys.modules["search_job"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["search_job"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline file whose stages have run up to the scored candidates, but no further."""
    folder = tmp_path_factory.mktemp("world")
    file = folder / "tiny.yaml"
    file.write_text(PIPELINE.format(root=folder / "root", data=write_world(folder / "data")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROCKETQA_RAY_CACHE", str(folder / "cache"))
        assert run(file, "scored") == 0
    return file


def artifact(store: Store, stage: str) -> Artifact:
    reference = store.read_json(f"refs/tiny/{stage}.json")
    return Artifact.open(store, reference["type"], reference["key"])


def test_a_query_of_the_dataset_finds_what_the_pipeline_found(world):
    pipeline = read_pipeline(world, registry())
    store = Store(pipeline.root)
    dataset = artifact(store, "data")
    ids = np.array(dataset.read("passages", ["passage_id"])["passage_id"].to_pylist())
    texts = dataset.read("queries", ["text"])["text"].to_pylist()
    found = Candidates.read(artifact(store, "scored"))
    search = QuestionSearch(pipeline, store)
    for query in found.lists.query_indices[:5]:
        own = found.of_queries(np.array([query]))
        answer = search.search(texts[query], depth=12)
        expected = own.lists.passage_indices[:12]
        assert [hit.passage_id for hit in answer.retrieved] == ids[expected].tolist()
        np.testing.assert_allclose(
            [hit.score for hit in answer.retrieved], own.scores[:12], rtol=1e-3
        )
        order = np.argsort(-own.ranker_scores[:12], kind="stable")
        assert [hit.retrieved_rank for hit in answer.reranked] == (order + 1).tolist()
        np.testing.assert_allclose(
            [hit.score for hit in answer.reranked], own.ranker_scores[:12][order], atol=1e-4
        )


def test_the_last_retriever_with_vectors_and_the_last_ranker_are_taken(world):
    pipeline = read_pipeline(world, registry())
    search = QuestionSearch(pipeline, Store(pipeline.root))
    # `second` is not trained yet.
    assert (search.retriever_name, search.ranker_name) == ("first", "ranker")


def test_a_ranker_of_a_joint_training_reads_that_trainings_tokens(world, monkeypatch):
    monkeypatch.setenv("ROCKETQA_RAY_CACHE", str(world.parent / "cache"))
    file = world.parent / "joint.yaml"
    file.write_text(
        "extends: tiny.yaml\nstages:\n"
        "  joint: {uses: train_joint,\n"
        "    inputs: {retriever: first, ranker: ranker, tokens: tokens, lists: lists},\n"
        "    params: {num_negatives: 1, max_steps: 1, global_batch_size: 4, precision: float32}}\n"
        "  joint_ranker: {uses: joint_ranker, inputs: {joint: joint}}\n"
    )
    assert run(file, "first_vectors,joint_ranker") == 0
    pipeline = read_pipeline(file, registry())
    search = QuestionSearch(pipeline, Store(pipeline.root))
    assert search.ranker_name == "joint_ranker"
    assert len(search.search("which bridges are old?", depth=3).reranked) == 3


def test_prints_both_rankings(world, job, capsys):
    assert job.main(["which bridges\tare old?", str(world), "--top", "3", "--depth", "6"]) == 0
    lines = capsys.readouterr().out.splitlines()
    titles = [line for line in lines if line.startswith(("retrieved", "the first"))]
    assert titles == ["retrieved by first", "the first 6 re-ranked by ranker"]
    assert sum(line.lstrip().startswith(("1.", "2.", "3.")) for line in lines) == 6
    assert all("(was " in line for line in lines[9:] if line.lstrip()[1:2] == ".")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--retriever", "second"], 3, "stage 'second_vectors' has no result under"),
        (["--retriever", "secnod"], 3, "(did you mean 'second'?)"),
        (["--ranker", "first"], 3, "'first' is not one of the stages to choose (known: ranker)"),
        (["--set", "stages.first.params.pooling=max"], 2, "'pooling'"),
        (["--root", "elsewhere"], 3, "has no result under"),
        (["--root", __file__], 2, f"root {__file__}: "),
        (["--root", "s3:/bucket/x"], 2, "write s3://bucket/x"),
    ],
)
def test_says_what_is_missing(world, job, capsys, words, code, message):
    assert job.main(["what", str(world), *words]) == code
    assert message in capsys.readouterr().err


def test_an_empty_question_and_a_missing_file_are_mistakes(world, job, capsys):
    assert job.main([" ", str(world)]) == 2
    assert job.main(["what", str(world.with_name("other.yaml"))]) == 2
    error = capsys.readouterr().err
    assert "the question is empty" in error and "cannot read" in error
