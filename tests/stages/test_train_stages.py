from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder, SentenceTransformer

from pipeline.artifacts.checkpoints import StoreCheckpoints
from pipeline.artifacts.kinds import TOKENS, TRAINING_LISTS
from pipeline.models.base import BaseModelError
from pipeline.models.base_folder import ScratchSizes, write_scratch
from pipeline.models.cross_encoder import Ranker
from pipeline.models.joined_pairs import JoinedPairs
from pipeline.stages import exports, registry, tables
from pipeline.text.template import InputTemplate
from pipeline.training.batches import TooFewRows
from pipeline.training.joint import JointLoss
from pipeline.training.optimizer import OptimizerPlan
from tests.benches import EXACT, LENGTHS, SCRATCH, SHORT, contents

RETRIEVER = {"encoder": {"shared": False}, **SHORT}


def training(tiny, **changes):
    wired = {"base": tiny.base, "tokens": tiny.tokens, "dataset": tiny.dataset}
    return {**wired, "lists": tiny.lists, **changes}


@pytest.fixture(scope="module")
def retriever(tiny):
    return tiny.bench.run("train_retriever", RETRIEVER, **training(tiny))


def weights(artifact) -> dict[str, torch.Tensor]:
    folder = artifact.folder("model")
    return {
        f"{path.parent.relative_to(folder).as_posix()}/{name}": value
        for path in sorted(folder.rglob("*.safetensors"))
        for name, value in load_file(path).items()
    }


def test_training_changes_both_towers_and_tells_of_every_step(tiny, retriever):
    base = load_file(tiny.base.folder("model") / "model.safetensors")
    found = weights(retriever)
    for side in ("query", "passage"):
        moved = [
            name
            for name in base
            if not name.startswith("pooler")
            and not torch.equal(base[name], found[f"{side}/{name}"])
        ]
        assert "embeddings.word_embeddings.weight" in moved and len(moved) > 20
    journal = [json.loads(line) for line in retriever.text("training.jsonl").splitlines()]
    assert [line["step"] for line in journal] == [1, 2, 3, 4]
    outcome = tiny.bench.outcome(retriever)
    assert outcome.counts == {"rows": 16 * 2, "steps": 4} and outcome.rows_out == 16
    assert not any("checkpoints" in name for name, _ in tiny.bench.store.walk(retriever.directory))


@pytest.mark.parametrize("shared", [False, True])
def test_the_exported_retriever_gives_our_vectors_in_sentence_transformers(tiny, shared):
    params = {**RETRIEVER, "encoder": {"shared": shared, "pooling": "mean", "normalize": True}}
    trained = tiny.bench.run("train_retriever", params, **training(tiny))
    given = {"retriever": trained, "tokens": tiny.tokens, "dataset": tiny.dataset}
    vectors = tiny.bench.run("encode", {"dtype": "float32", "precision": "float32"}, **given)
    model = SentenceTransformer(str(trained.folder("model")), device="cpu")
    queries = tiny.dataset.read("queries", ["text"])["text"].to_pylist()
    np.testing.assert_allclose(
        model.encode_query(queries), tables.vectors(vectors.read("queries")), atol=1e-5
    )
    passages = tiny.dataset.read("passages").to_pylist()
    pairs = [(row["title"] or "-", row["text"]) for row in passages]
    np.testing.assert_allclose(
        model.encode_document(pairs), tables.vectors(vectors.read("passages")), atol=1e-5
    )


@pytest.mark.parametrize(
    ("titles", "row"),
    [
        ({"missing_title": "-"}, 'part of passages, a missing one is "-"'),
        ({"missing_title": ""}, 'part of passages, a missing one is ""'),
        ({"title": False}, "left out: a passage is its text alone"),
    ],
)
def test_the_cards_tell_how_passages_were_tokenised(tiny, bench, titles, row):
    """The lines of the card give the vectors that the pipeline has."""
    params = {**LENGTHS, **titles}
    tokens = bench.run("tokenize", params, dataset=tiny.dataset, base=tiny.base)
    wired = {"base": tiny.base, "tokens": tokens}
    retriever = bench.run("initial_retriever", {}, **wired)
    given = {"retriever": retriever, "tokens": tokens, "dataset": tiny.dataset}
    exact = {"dtype": "float32", "precision": "float32"}
    vectors = tables.vectors(bench.run("encode", exact, **given).read("passages"))
    card = card_of(retriever)
    assert f"| titles | {row} |" in card
    titled = titles.get("title", True)
    assert ('("a title", "the text of a passage")' in card) == titled
    passages = tiny.dataset.read("passages").to_pylist()
    missing = titles.get("missing_title")
    inputs = [(p["title"] or missing, p["text"]) if titled else p["text"] for p in passages]
    model = SentenceTransformer(str(retriever.folder("model")), device="cpu")
    np.testing.assert_allclose(model.encode_document(inputs), vectors, atol=1e-5)
    ranker = bench.run("train_ranker", SHORT, **wired, lists=tiny.lists)
    assert f"| titles | {row.split(',')[0]} |" in card_of(ranker)
    assert ('"a title the text of a passage"' in card_of(ranker)) == titled


def card_of(artifact) -> str:
    return (artifact.folder("model") / "README.md").read_text()


def test_the_cards_tell_where_hugging_face_cuts_otherwise(tiny, bench):
    """Only an odd room has an odd token, and only two sequences share a room."""
    for lengths, retrievers, rankers in (
        ({"passage_max_len": 16, "pair_max_len": 23}, "odd one of the 13", None),
        ({"passage_max_len": 17, "pair_max_len": 24}, None, "odd one of the 21"),
        ({"passage_max_len": 16, "pair_max_len": 23, "title": False}, None, None),
    ):
        params = {**LENGTHS, **lengths}
        tokens = bench.run("tokenize", params, dataset=tiny.dataset, base=tiny.base)
        wired = {"base": tiny.base, "tokens": tokens}
        retriever = bench.run("initial_retriever", {}, **wired)
        ranker = bench.run("train_ranker", SHORT, **wired, lists=tiny.lists)
        for artifact, told in ((retriever, retrievers), (ranker, rankers)):
            assert ("## Limits" in card_of(artifact)) == (told is not None)
            assert told is None or told in card_of(artifact)


@pytest.mark.parametrize("head", ["pooled_two_class", "cls_logit"])
def test_the_exported_ranker_gives_our_probabilities_in_sentence_transformers(tiny, head):
    given = {"base": tiny.base, "tokens": tiny.tokens, "lists": tiny.lists}
    loss = "pointwise" if head == "pooled_two_class" else "listwise"
    params = {**SHORT, "head": head, "loss": loss, "num_negatives": 2}
    ranker = tiny.bench.run("train_ranker", params, **given)
    scoring = {**tiny.scoring, "ranker": ranker}
    scored = tiny.bench.run("score", {"depth": 4, "precision": "float32"}, **scoring)
    queries = tiny.dataset.read("queries", ["text"])["text"].to_pylist()
    passages = tiny.dataset.read("passages").to_pylist()
    pairs, logits = [], []
    for row in scored.read("candidates").to_pylist():
        for passage, logit in zip(row["passage_index"][:4], row["ranker_score"], strict=False):
            title, text = passages[passage]["title"], passages[passage]["text"]
            pairs.append((queries[row["query_index"]], f"{title} {text}".strip()))
            logits.append(logit)
    model = CrossEncoder(str(ranker.folder("model")), device="cpu")
    expected = 1 / (1 + np.exp(-np.array(logits)))
    np.testing.assert_allclose(model.predict(pairs), expected, atol=1e-5)


def test_a_ranker_over_joined_inputs_scores_alike_in_sentence_transformers(tiny):
    shared = {"shared": True, "pooling": "mean", "normalize": True}
    wired = {"base": tiny.base, "tokens": tiny.tokens}
    retriever = tiny.bench.run("initial_retriever", shared, **wired)
    params = {**SHORT, "head": "interaction", "loss": "listwise", "num_negatives": 2}
    given = {**wired, "base": retriever, "lists": tiny.lists}
    ranker = tiny.bench.run("train_ranker", params, **given)
    scoring = {**tiny.scoring, "ranker": ranker}
    scored = tiny.bench.run("score", {"depth": 4, "precision": "float32"}, **scoring)
    queries = tiny.dataset.read("queries", ["text"])["text"].to_pylist()
    passages = tiny.dataset.read("passages").to_pylist()
    pairs, logits = [], []
    for row in scored.read("candidates").to_pylist():
        for passage, logit in zip(row["passage_index"][:4], row["ranker_score"], strict=False):
            title, text = passages[passage]["title"], passages[passage]["text"]
            pairs.append((queries[row["query_index"]], f"{title}\t{text}"))
            logits.append(logit)
    model = CrossEncoder(modules=[JoinedPairs.load(ranker.folder("model"))], device="cpu")
    found = model.predict(pairs, activation_fn=torch.nn.Identity())
    assert np.ptp(logits) > 0.1
    np.testing.assert_allclose(found, logits, atol=1e-4)


# What a model can read ------------------------------------------------------------------------


STAGES = {
    "initial_retriever": {},
    "train_retriever": RETRIEVER,
    "train_ranker": SHORT,
    "train_joint": {**SHORT, "num_negatives": 2},
}


def wiring(tiny, stage, base, tokens):
    """The inputs of a stage that starts from one model."""
    if stage == "initial_retriever":
        return {"base": base, "tokens": tokens}
    if stage == "train_ranker":
        return {"base": base, "tokens": tokens, "lists": tiny.lists}
    if stage == "train_joint":
        return {**tiny.joining, "tokens": tokens}
    return training(tiny, base=base, tokens=tokens)


@pytest.mark.parametrize("stage", STAGES)
def test_a_model_is_not_trained_on_tokens_of_another_tokenizer(tiny, bench, stage):
    words = bench.dataset(["one two three four five six seven"] * 9, ["train"], [(0, 0)])
    other = bench.run("base_model", SCRATCH, dataset=words)
    tokens = bench.run("tokenize", LENGTHS, dataset=tiny.dataset, base=other)
    start = tiny.retriever if stage == "train_joint" else tiny.base
    message = rf"the {start.kind_name} {start} has another tokenizer .* the Tokens {tokens}: .*Wire"
    with pytest.raises(BaseModelError, match=message):
        bench.run(stage, STAGES[stage], **wiring(tiny, stage, tiny.base, tokens))


@pytest.mark.parametrize("stage", ["encode", "score", "calibrate"])
def test_a_model_does_not_read_tokens_of_another_tokenizer(tiny, bench, stage):
    words = bench.dataset(["one two three four five six seven"] * 9, ["train"], [(0, 0)])
    other = bench.run("base_model", SCRATCH, dataset=words)
    tokens = bench.run("tokenize", LENGTHS, dataset=tiny.dataset, base=other)
    encoding = {"retriever": tiny.retriever, "dataset": tiny.dataset}
    wired = encoding if stage == "encode" else tiny.scoring
    with pytest.raises(BaseModelError, match="has another tokenizer"):
        bench.run(stage, EXACT, **{**wired, "tokens": tokens})


def test_tokens_without_the_tokenizers_digest_are_taken_as_they_are(tiny, bench):
    template = tiny.tokens.document("template.json")
    assert len(template.pop("tokenizer_digest")) == 64
    old = bench.given(TOKENS, documents={"template.json": template})
    other = bench.run("base_model", {**SCRATCH, "replicate": 3}, dataset=tiny.dataset)
    for start in (tiny.base, tiny.retriever, tiny.ranker, other):
        exports.check_retriever(start, old)
    assert InputTemplate.model_validate(template).tokenizer_digest is None


def like(tiny, bench, folder, **sizes):
    """A base model with the tiny one's tokenizer and other sizes."""
    shutil.copytree(tiny.base.folder("model"), folder)
    shape = {**SCRATCH["scratch"], "vocab_size": 150, **sizes}
    write_scratch(folder, ScratchSizes(**shape), seed=4)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_max_length": 40}))
    return bench.run("base_model", {"model": str(folder)}, sources=[{"sha256": str(folder)}])


def test_a_larger_model_with_the_same_vocabulary_reads_the_same_tokens(tiny, bench, tmp_path):
    large = like(tiny, bench, tmp_path / "large", hidden_size=48)
    wired = wiring(tiny, "train_ranker", large, tiny.tokens)
    ranker = bench.run("train_ranker", SHORT, **wired)
    again = bench.run("train_ranker", {**SHORT, "fresh_head": True}, **{**wired, "base": ranker})
    for made in (ranker, again):
        config = json.loads((made.folder("model") / "config.json").read_text())
        assert config["hidden_size"] == 48


def test_a_model_without_the_rows_or_positions_for_the_tokens_is_not_trained(tiny, bench, tmp_path):
    few = like(tiny, bench, tmp_path / "few", vocab_size=60)
    short = like(tiny, bench, tmp_path / "short", max_position_embeddings=20)
    for stage in ("initial_retriever", "train_retriever", "train_ranker"):
        with pytest.raises(BaseModelError, match=f"{tiny.tokens}: .* embedding table has 60 rows"):
            bench.run(stage, STAGES[stage], **wiring(tiny, stage, few, tiny.tokens))
    # 20 positions hold the retriever's inputs, and the ranker's where it reads those.
    retriever = bench.run("initial_retriever", {"shared": True}, base=short, tokens=tiny.tokens)
    wired = wiring(tiny, "train_ranker", retriever, tiny.tokens)
    with pytest.raises(
        BaseModelError, match="at most 20 tokens, fewer than pair_max_len 24: lower"
    ):
        bench.run("train_ranker", SHORT, **wired)
    bench.run("train_ranker", {**SHORT, "head": "interaction"}, **wired)


# Going on ------------------------------------------------------------------------------------


def interrupted(monkeypatch, after: int):
    """Let the driver's process end after `after` checkpoints."""
    real = StoreCheckpoints.save
    saved = []

    def save(self, step, folder):
        real(self, step, folder)
        saved.append(step)
        if len(saved) == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(StoreCheckpoints, "save", save)
    return saved


@pytest.mark.parametrize("stage", ["train_retriever", "train_ranker"])
def test_an_interrupted_training_ends_like_an_undisturbed_one(tiny, bench, monkeypatch, stage):
    given = training(tiny)
    if stage == "train_ranker":
        del given["dataset"]
    params = {**SHORT, "checkpoint_steps": 1}
    whole = tiny.bench.run(stage, params, **given)
    with monkeypatch.context() as patch:
        saved = interrupted(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            bench.run(stage, params, **given)
    assert saved == [1, 2, 3]
    resumed = bench.run(stage, params, **given)
    assert any("resumed after step 3" in note for note in bench.progress.notes)
    assert contents(resumed) == contents(whole)


def test_lists_are_merged_in_the_order_of_the_file(tiny, bench):
    more = {"source": "corpus", "num_negatives": 1, "per": "positive"}
    other = bench.run("sample", more, dataset=tiny.dataset, tokens=tiny.tokens)
    both = bench.given(
        TRAINING_LISTS,
        {"lists": [pa.concat_tables([tiny.lists.read("lists"), other.read("lists")])]},
    )
    merged, apart = (
        bench.run("train_retriever", RETRIEVER, **training(tiny, lists=lists))
        for lists in (both, [tiny.lists, other])
    )
    assert bench.outcome(apart).rows_in == 32
    assert bench.outcome(apart).counts["rows"] == 16 * 2 + 16
    assert contents(merged) == contents(apart)


def test_lists_with_too_few_negatives_are_dropped_and_counted(tiny, bench):
    table = tiny.lists.read("lists").to_pylist()
    table[0]["negatives"], table[1]["negatives"] = [], [3]
    lists = bench.given(
        TRAINING_LISTS,
        {"lists": [pa.Table.from_pylist(table, tiny.lists.read("lists").schema)]},
    )
    params = {**RETRIEVER, "num_negatives": 2}
    found = bench.run("train_retriever", params, **training(tiny, lists=lists))
    outcome = bench.outcome(found)
    assert outcome.dropped == {"fewer than 2 negatives": 2} and outcome.rows_out == 14


def test_training_goes_on_from_a_retriever_and_a_ranker(tiny, bench, retriever):
    """What is trained further keeps its own shape."""
    further = bench.run("train_retriever", SHORT, **training(tiny, base=retriever))
    assert (further.folder("model") / "query").is_dir()
    given = {"tokens": tiny.tokens, "lists": tiny.lists}
    rankers = [
        bench.run("train_ranker", SHORT, base=base, **given) for base in (retriever, tiny.ranker)
    ]
    assert not any(contents(ranker) == contents(tiny.ranker) for ranker in rankers)


def test_another_replicate_is_another_run(tiny, bench):
    one, other = (
        bench.run("train_retriever", {**RETRIEVER, "replicate": n}, **training(tiny))
        for n in (0, 1)
    )
    assert contents(one) != contents(other)


def test_more_rows_than_there_are_cannot_fill_a_batch(tiny, bench, monkeypatch):
    started = []
    monkeypatch.setattr("pipeline.distributed.training.launch", started.append)
    params = {**RETRIEVER, "global_batch_size": 64}
    with pytest.raises(TooFewRows, match=r"32 training rows are fewer than one global batch of 64"):
        bench.run("train_retriever", params, **training(tiny))
    assert not started


# Joint training ------------------------------------------------------------------------------


def test_a_joint_training_gives_two_models_like_any_others(tiny):
    retriever = tiny.bench.run("joint_retriever", joint=tiny.joint)
    ranker = tiny.bench.run("joint_ranker", joint=tiny.joint)
    journal = [json.loads(line) for line in retriever.text("training.jsonl").splitlines()]
    assert [line["step"] for line in journal] == [1, 2, 3, 4]
    assert {"divergence", "ranker_loss", "ranker_gradient_norm"} <= set(journal[0])
    wired = {"tokens": tiny.tokens, "dataset": tiny.dataset}
    exact = {"dtype": "float32", "precision": "float32"}
    vectors = tiny.bench.run("encode", exact, retriever=retriever, **wired)
    model = SentenceTransformer(str(retriever.folder("model")), device="cpu")
    queries = tiny.dataset.read("queries", ["text"])["text"].to_pylist()
    np.testing.assert_allclose(
        model.encode_query(queries), tables.vectors(vectors.read("queries")), atol=1e-5
    )
    before, after = weights(tiny.ranker), weights(ranker)
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    scored = tiny.bench.run("score", {"depth": 2}, **{**tiny.scoring, "ranker": ranker})
    assert tiny.bench.outcome(scored).rows_out > 0


def test_a_list_is_never_divided(tiny):
    longest = max(len(row["negatives"]) for row in tiny.lists.read("lists").to_pylist())
    params = {**SHORT, "num_negatives": longest - 1}
    with pytest.raises(ValueError, match=f"{longest} negatives, and num_negatives is"):
        tiny.bench.run("train_joint", params, **tiny.joining)


@pytest.mark.parametrize("number", [1, 3])
def test_pools_are_drawn_from_as_they_were_made_to_be(tiny, number):
    params, wired = {**SHORT, "num_negatives": number}, training(tiny, lists=tiny.pools)
    message = f"for draws of 2 negatives, and num_negatives is {number}"
    with pytest.raises(ValueError, match=message):
        tiny.bench.run("train_retriever", params, **wired)


def test_a_training_goes_on_in_another_part(tiny):
    params = {**RETRIEVER, "max_steps": 2, "part": {"number": 1, "of": 2}}
    first = tiny.bench.run("train_retriever", params, **training(tiny))
    assert first.has("moments")
    again = {**params, "part": {"number": 2, "of": 2}}
    second = tiny.bench.run("train_retriever", again, **{**training(tiny), "base": first})
    assert not second.has("moments")
    with pytest.raises(ValueError, match="wire the retriever of part 1"):
        tiny.bench.run("train_retriever", again, **training(tiny))
    whole = tiny.bench.run("train_retriever", {**RETRIEVER, "max_steps": 4}, **training(tiny))
    shown = [
        [json.loads(line)["learning_rate"] for line in each.text("training.jsonl").splitlines()]
        for each in (first, second, whole)
    ]
    assert shown[0] + shown[1] == pytest.approx(shown[2])
    assert not whole.has("moments")


def test_both_models_go_on_in_another_part(tiny):
    """A step takes all lists, so that nothing but the moments tells two parts from one training."""
    given = {"base": tiny.base, "tokens": tiny.tokens, "lists": tiny.lists}
    ranker = tiny.bench.run("train_ranker", {**SHORT, "dropout": 0.0}, **given)
    wired = {**tiny.joining, "ranker": ranker}
    params = {
        **SHORT,
        "global_batch_size": 16,
        "num_negatives": 2,
        "encoder_dropout": 0.0,
        "learning_rate": 1e-3,
        "turns": {"ranker": 1, "retriever": 1},
    }
    whole = tiny.bench.run("train_joint", {**params, "max_steps": 8}, **wired)
    parts = []
    for number in (1, 2):
        part = {"max_steps": 4, "part": {"number": number, "of": 2}}
        parts.append(tiny.bench.run("train_joint", {**params, **part}, **wired))
        wired |= {
            name: tiny.bench.run(f"joint_{name}", joint=parts[-1])
            for name in ("retriever", "ranker")
        }
    assert [part.has("moments") for part in parts] == [True, False]
    first, second, expected = (weights(each) for each in (*parts, whole))
    for model in ("retriever", "ranker"):
        names = [name for name in expected if model in name and expected[name].ndim > 1]
        apart, moved = (
            sum(float((one[name] - other[name]).norm()) for name in names)
            for one, other in ((second, expected), (expected, first))
        )
        assert len(names) > 10 and apart < 0.01 * moved


def test_models_take_turns_at_rates_of_their_own(tiny):
    params = {**JOINT, "max_steps": 6, "schedule": "linear", "learning_rate": 1e-3}
    params |= {"turns": {"ranker": 1, "retriever": 2}, "ranker_learning_rate": 2e-4}
    joint = tiny.bench.run("train_joint", params, **tiny.joining)
    journal = [json.loads(line) for line in joint.text("training.jsonl").splitlines()]
    assert ["ranker_loss" in line for line in journal] == [True, False, False] * 2
    assert ["divergence" in line for line in journal] == [False, True, True] * 2
    for model, rates in (
        ("ranker", [2e-4, 1e-4]),
        ("retriever", [1e-3, 7.5e-4, 5e-4, 2.5e-4]),
    ):
        name = f"{model}_learning_rate"
        assert [line[name] for line in journal if name in line] == pytest.approx(rates)


def test_an_epoch_that_ends_before_the_retrievers_turn_is_refused(tiny):
    params = {**JOINT, "max_steps": None, "turns": {"ranker": 500, "retriever": 2}}
    with pytest.raises(ValueError, match="end before the first turn of the retriever"):
        tiny.bench.run("train_joint", params, **tiny.joining)


def test_a_static_teacher_stays_as_it_came(tiny):
    params = {**SHORT, "num_negatives": 2, "teacher": "static"}
    joint = tiny.bench.run("train_joint", params, **tiny.joining)
    ranker = tiny.bench.run("joint_ranker", joint=joint)
    before, after = weights(tiny.ranker), weights(ranker)
    assert all(torch.equal(before[name], after[name]) for name in before)
    # A part keeps moments for the next one, and a ranker that stood still has none.
    first = {**params, "max_steps": 2, "part": {"number": 1, "of": 2}}
    joint = tiny.bench.run("train_joint", first, **tiny.joining)
    retriever, ranker = (tiny.bench.run(f"joint_{m}", joint=joint) for m in ("retriever", "ranker"))
    assert [each.has("moments") for each in (retriever, ranker)] == [True, False]


def test_presets_fill_in_what_is_not_given():
    read = registry()["train_joint"].params.model_validate
    paper, released, stable = (read({"preset": name}) for name in ("paper", "released", "stable"))
    assert paper.terms() == JointLoss("student||teacher", "per_list", teacher_gradient=True)
    assert released.terms() == JointLoss("teacher||student", "per_element")
    assert stable.terms() == JointLoss()
    assert released.chosen("query_per_row") and not stable.chosen("query_per_row")
    own = read({"preset": "paper", "teacher_gradient": False, "direction": "teacher||student"})
    assert own.terms() == JointLoss()
    more = read({"ranker_loss": "pointwise", "contrastive_weight": 0.5})
    assert more.terms() == JointLoss(ranker_loss="pointwise", contrastive_weight=0.5)
    reward = {"reward": "reward_weighted", "reward_weight": 0.3, "divergence_weight": 0.5}
    assert read(reward).terms() == JointLoss(**reward)


# Without dropout in the encoders, so that equal losses are equal numbers.
JOINT = {**SHORT, "num_negatives": 2, "max_steps": 2, "encoder_dropout": 0.0}


def first_step(joint) -> dict[str, float]:
    return json.loads(joint.text("training.jsonl").splitlines()[0])


def differ(one, other, part: str) -> bool:
    """Whether two joint trainings gave two models of a kind."""
    before, after = (weights(joint) for joint in (one, other))
    return any(not torch.equal(before[name], after[name]) for name in before if part in name)


def test_each_preset_is_trained_by_its_own_divergence(tiny):
    stable, paper, released = (
        tiny.bench.run("train_joint", {**JOINT, "preset": name}, **tiny.joining)
        for name in ("stable", "paper", "released")
    )
    found = [first_step(joint) for joint in (stable, paper, released)]
    assert len({step["ranker_loss"] for step in found}) == 1
    # A list has 3 passages, over which the released code takes the mean.
    assert found[2]["divergence"] == pytest.approx(found[0]["divergence"] / 3, rel=1e-4)
    assert found[1]["divergence"] != pytest.approx(found[0]["divergence"], rel=1e-4)
    for one, other in ((stable, paper), (stable, released), (paper, released)):
        assert differ(one, other, "retriever/")
        # The divergence reaches the ranker under `paper` alone.
        assert differ(one, other, "ranker/") is (paper in (one, other))


def test_margins_are_distilled_in_place_of_the_divergence(tiny):
    plain, margins, reaching = (
        tiny.bench.run("train_joint", {**JOINT, **own}, **tiny.joining)
        for own in (
            {},
            {"distillation": "margin_mse"},
            {"distillation": "margin_mse", "teacher_gradient": True},
        )
    )
    found = [first_step(joint) for joint in (plain, margins, reaching)]
    assert ["margin_mse" in step for step in found] == [False, True, True]
    assert ["divergence" in step for step in found] == [True, False, False]
    assert found[1]["loss"] == pytest.approx(found[1]["margin_mse"] + found[1]["ranker_loss"])
    assert differ(plain, margins, "retriever/") and not differ(plain, margins, "ranker/")
    assert differ(margins, reaching, "ranker/")


def test_a_query_is_encoded_per_passage_where_it_is_asked_for(tiny):
    params = {**JOINT, "preset": "released", "encoder_dropout": 0.1}
    per_passage, once = (
        tiny.bench.run("train_joint", {**params, **own}, **tiny.joining)
        for own in ({}, {"query_per_row": False})
    )
    assert differ(per_passage, once, "retriever/query/")


def test_the_rankers_own_loss_and_the_retrievers_are_chosen(tiny):
    plain, pointwise, contrastive = (
        tiny.bench.run("train_joint", {**JOINT, **own}, **tiny.joining)
        for own in ({}, {"ranker_loss": "pointwise"}, {"contrastive_weight": 0.5})
    )
    found = [first_step(joint) for joint in (plain, pointwise, contrastive)]
    assert len({step["divergence"] for step in found}) == 1
    assert found[1]["ranker_loss"] != pytest.approx(found[0]["ranker_loss"], rel=1e-3)
    assert ["contrastive" in step for step in found] == [False, False, True]
    summed = sum(found[2][name] for name in ("divergence", "ranker_loss", "contrastive"))
    assert found[2]["loss"] == pytest.approx(summed, rel=1e-5)
    assert differ(plain, pointwise, "ranker/") and differ(plain, contrastive, "retriever/")
    assert not differ(plain, contrastive, "ranker/")


def test_the_passage_centric_loss_is_trained_in_the_form_asked_for(tiny):
    forms = [
        {},
        {"passage_centric_weight": 0.1, "passage_centric_form": "paper"},
        {"passage_centric_weight": 0.1, "passage_centric_form": "released"},
    ]
    params = {**RETRIEVER, "max_steps": 2, "encoder_dropout": 0.0}
    found = [
        weights(tiny.bench.run("train_retriever", {**params, **form}, **training(tiny)))
        for form in forms
    ]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        pairs = zip(found[one].values(), found[other].values(), strict=True)
        assert not all(torch.equal(left, right) for left, right in pairs)


@pytest.mark.parametrize("stage", ["train_retriever", "train_ranker", "train_joint"])
def test_every_model_is_optimised_as_the_parameters_say(stage):
    chosen = {
        "learning_rate": 2e-4,
        "optimizer": "lamb",
        "weight_decay": 0.03,
        "max_grad_norm": 0.7,
        "schedule": "linear",
        "warmup_ratio": 0.2,
    }
    plan = registry()[stage].params.model_validate(chosen).plan(5, "one", "other")
    expected = OptimizerPlan(
        2e-4, "lamb", 0.03, max_gradient_norm=0.7, schedule="linear", warmup_ratio=0.2
    )
    assert plan.optimizers == {"one": expected, "other": expected}


def test_a_ranker_may_start_from_anothers_encoder_with_a_head_of_its_own(tiny):
    given = {"base": tiny.ranker, "tokens": tiny.tokens, "lists": tiny.lists}
    params = {**SHORT, "learning_rate": 1e-12, "weight_decay": 0.0, "loss": "listwise"}
    params |= {"num_negatives": 2, "head": "cls_logit"}
    kept = tiny.bench.run("train_ranker", params, **given)
    fresh = tiny.bench.run("train_ranker", {**params, "fresh_head": True}, **given)
    heads = [Ranker.read(each.folder("model")).config.head for each in (kept, fresh)]
    assert heads == ["pooled_two_class", "cls_logit"]
    before = {k.split("bert.")[-1]: v for k, v in weights(tiny.ranker).items()}
    after = {k.split("/")[-1]: v for k, v in weights(fresh).items()}
    same = [name for name in after if name in before and before[name].shape == after[name].shape]
    assert len(same) > 20
    for name in same:
        torch.testing.assert_close(after[name], before[name], atol=1e-6, rtol=0, msg=name)
