"""What the parameters of the stages refuse before anything runs, with file and nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.dag.commands import Options, execute
from pipeline.dag.contract import Resources
from pipeline.dag.specification import read_pipeline
from pipeline.dag.yaml_nodes import SpecificationError
from pipeline.stages import registry

DEFAULT = Path(__file__).parents[2] / "pipeline.yaml"
RECIPE = DEFAULT.parent / "recipes" / "openqa_fraction.yaml"


def refused(*settings: str, file: Path = DEFAULT) -> list[str]:
    """The mistakes that these settings make of a file."""
    with pytest.raises(SpecificationError) as caught:
        read_pipeline(file, registry(), [f"stages.{setting}" for setting in settings])
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("vectors_0.params.splits=[tran]", "'splits.0'"),
        ("scored_0.params.splits=[tran]", "'splits.0'"),
        ("lists_0.params.split=tran", "'split'"),
        ("lists_1.params.split=tran", "'split'"),
        ("candidates_0.params.depths={tran: 5}", "'depths'"),
        ("bm25.params.remove_positives=[dev, tran]", "'remove_positives.1'"),
        ("evaluation.params.splits=[tran]", "'splits.0'"),
    ],
)
def test_splits_have_names(setting, message):
    (line,) = refused(setting)
    assert line.startswith(f"--set stages.{setting}: stage ")
    assert message in line and "got \"tran\" (did you mean 'train'?)" in line


@pytest.mark.parametrize(
    "setting",
    [
        "calibration.params.split=validtion",
        "base_run.params.depths={dev: -5}",
        "base_run.params.depths={}",
        "bm25.params.depths={}",
        "evaluation.params.splits=[]",
        "evaluation.params.answer_depths=[0]",
        "retriever_0.params.max_steps=-5",
        "retriever_0.params.learning_rate=5",
        "retriever_0.params.max_grad_norm=.inf",
        "retriever_0.params.num_train_epochs=.nan",
        "retriever_0.params.replicate=-1",
        "ranker.params.adversarial=-1",
        "base.params.scratch.hidden_size=-4",
        "base.params.scratch.num_hidden_layers=0",
        "base.params.model=''",
        "data.params.source={format: trec, path: x, corpus: y, topics: {}, run_depth: 0}",
        "data.params.source={format: pydocs, dev_share: .nan}",
    ],
)
def test_values_have_bounds(setting):
    (line,) = refused(setting)
    assert line.startswith(f"--set stages.{setting}: stage ")


def test_all_wrong_values_of_a_mapping_are_told():
    found = refused("candidates_0.params.depths={tran: x, dev: 0}")
    assert len(found) == 3 and "'depths.dev'" in "".join(found)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("base.params.model=scratch", "wire `dataset`"),
        ("base.inputs.dataset=data", "input 'dataset' is wired and never read"),
        ("lists_0.params.source=top", "source 'top' draws from candidates: wire `candidates`"),
        ("lists_2.params.negative_below=0.95", "negative_below 0.95 lies above positive_above"),
        ("retriever_0.resources.workers=3", "3 workers cannot share a global batch of 64 rows"),
    ],
)
def test_what_does_not_fit_together(setting, message):
    (line,) = refused(setting)
    assert line.startswith(f"{DEFAULT}:") and message in line


@pytest.mark.parametrize("setting", ["source=corpus", "num_negatives=0"])
def test_lists_that_draw_from_no_candidates_read_no_input_about_them(setting):
    found = refused(f"ranker_lists.params.{setting}")
    for line, name in zip(found, ("candidates", "embeddings"), strict=True):
        assert line.startswith(f"{DEFAULT}:") and f"input '{name}' is wired and never read" in line


def test_sizes_of_a_base_from_scratch_go_together():
    sizes = "{model: scratch, scratch: {num_attention_heads: 3}}"
    (line,) = refused("base.inputs.dataset=data", f"base.params={sizes}")
    assert "num_attention_heads 3 does not divide hidden_size 256" in line


def test_the_passage_centric_loss_needs_hard_negatives():
    weight, none = "passage_centric_weight=0.1", "num_negatives=0"
    (line,) = refused(f"retriever_0.params.{weight}", f"retriever_0.params.{none}")
    assert "passage_centric_weight needs hard negatives" in line


def test_a_form_of_a_loss_without_weight_does_nothing():
    (line,) = refused("retriever_0.params.passage_centric_form=released")
    assert "passage_centric_form 'released' is not used" in line


def test_a_group_size_is_read_by_in_batch_negatives_alone():
    (line,) = refused("retriever_0.params.in_batch_group_size=4")
    assert "in_batch_group_size 4 is not used: negatives is 'cross_batch'" in line


EVERY_STEP = {"refresh": "every_step", "num_negatives": 200}


@pytest.mark.parametrize(
    ("params", "wired", "message"),
    [
        ({}, ["embeddings"], "input 'embeddings' is wired and never read"),
        (EVERY_STEP, [], "wire `embeddings`"),
        ({**EVERY_STEP, "num_negatives": 0}, ["embeddings"], "num_negatives passages, and it is 0"),
        ({**EVERY_STEP, "negatives": "in_batch"}, ["embeddings"], "negatives is not used"),
        (
            {**EVERY_STEP, "in_batch_group_size": 8},
            ["embeddings"],
            "in_batch_group_size is not used",
        ),
        (
            {**EVERY_STEP, "mask_known_positives": False},
            ["embeddings"],
            "mask_known_positives is not used",
        ),
        (
            {**EVERY_STEP, "passage_centric_weight": 0.1},
            ["embeddings"],
            "passage_centric_weight is not used",
        ),
        (
            {"loss": "pairwise", "passage_centric_weight": 0.1},
            [],
            "the passage-centric loss is a softmax, and loss is 'pairwise'",
        ),
    ],
)
def test_what_is_searched_in_every_step_takes_the_batchs_place(params, wired, message):
    read = registry()["train_retriever"].params.model_validate
    (found,) = read(params).mismatches(dict.fromkeys(wired, 1), Resources())
    assert message in found
    whole = read({**EVERY_STEP, "loss": "lambda_rank"})
    assert not whole.mismatches({"embeddings": 1}, Resources())


def test_what_is_not_given_is_in_no_key():
    params = registry()["train_retriever"].params
    later = {"part", "loss", "refresh"}
    assert not later & params().model_dump().keys()
    assert not later & params.model_validate({"loss": "softmax"}).model_dump().keys()
    given = {"loss": "pairwise", "refresh": "every_step"}
    assert given.items() <= params.model_validate(given).model_dump().items()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"preset": "paper"}, "so no gradient reaches it"),
        ({"teacher_gradient": True}, "so no gradient reaches it"),
        ({"ranker_loss": "pointwise"}, "ranker_loss 'pointwise' is not used"),
        ({"turns": {}}, "there are no turns to take"),
        ({"ranker_learning_rate": 1e-5}, "it has no ranker_learning_rate"),
    ],
)
def test_a_frozen_teacher_does_not_learn(params, message):
    read = registry()["train_joint"].params.model_validate
    (found,) = read({"teacher": "static", **params}).mismatches({}, Resources())
    assert message in found
    assert not read({"teacher": "dynamic", **params}).mismatches({}, Resources())
    own = read({"teacher": "static", "preset": "paper", "teacher_gradient": False})
    assert not own.mismatches({}, Resources())


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"turns": {}, "preset": "paper"}, "no gradient reaches the ranker"),
        ({"turns": {}, "divergence_weight": 0}, "the retriever learns nothing"),
        ({"turns": {"ranker": 10}, "max_steps": 10}, "the retriever would not be trained"),
    ],
)
def test_turns_in_which_a_model_would_not_learn(params, message):
    read = registry()["train_joint"].params.model_validate
    (found,) = read(params).mismatches({}, Resources())
    assert message in found
    reward = {"reward": "policy_gradient", "divergence_weight": 0}
    assert not read({"turns": {}, **reward}).mismatches({}, Resources())


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"direction": "student||teacher"}, "`direction` is of the divergence"),
        ({"reduction": "per_list"}, "`reduction` is of the divergence"),
        ({"divergence_weight": 0, "contrastive_weight": 1}, "'margin_mse' is not used"),
    ],
)
def test_margins_have_nothing_of_the_divergence(params, message):
    read = registry()["train_joint"].params.model_validate
    (found,) = read({"distillation": "margin_mse", **params}).mismatches({}, Resources())
    assert message in found
    assert not read(params).mismatches({}, Resources())


def test_the_divergence_is_in_no_key():
    read = registry()["train_joint"].params.model_validate
    assert "distillation" not in read({"distillation": "divergence"}).model_dump()
    assert read({"distillation": "margin_mse"}).model_dump()["distillation"] == "margin_mse"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"part": {"number": 3, "of": 2}, "max_steps": 4}, "part 3 of 2 parts"),
        ({"part": {"number": 1, "of": 2}}, "give `max_steps`"),
        ({"part": {"number": 1}, "max_steps": 4}, "schedule 'bert' ends"),
    ],
)
def test_parts_that_cannot_be(params, message):
    read = registry()["train_retriever"].params.model_validate
    (found,) = read(params).mismatches({}, Resources())
    assert message in found
    assert not read({"part": {"number": 1, "of": 2}, "max_steps": 4}).mismatches({}, Resources())


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("{denoised: 0}", "input 'calibration' is wired and never read"),
        ("{undenoised: 0, denoised: 0}", "there would be no lists"),
        ("{negative_below: 0.8, positive_above: 0.5}", "negative_below 0.8 lies above"),
        ("{depth: 30}", "denoised_depth 30 has fewer ranks than a list has negatives, 31"),
        ("{depth: 40, denoised_depth: 8}", "denoised_depth 8 has fewer ranks"),
    ],
)
def test_hybrid_lists_that_cannot_be(params, message):
    stage = "{uses: hybrid, inputs: {dataset: data, tokens: tokens, candidates: scored_0, "
    stage += f"calibration: calibration}}, params: {params}}}"
    assert message in "".join(refused(f"lists_0={stage}"))


def test_a_group_of_in_batch_negatives_stays_with_a_worker():
    found = refused("retriever_dpr_13.resources.workers=2", file=RECIPE)
    assert "evenly in whole groups of 64" in found[0]
    found = refused("retriever_dpr_13.params.in_batch_group_size=48", file=RECIPE)
    assert "global_batch_size 64 is no multiple of in_batch_group_size 48" in found[0]


def test_runs_are_not_counted_while_their_names_are_wrong():
    (line,) = refused(
        "evaluation.inputs.runs=[bm25, base_rn, candidates_0, candidates_1, reranked]"
    )
    assert "no stage is called 'base_rn' (did you mean 'base_run'?)" in line


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{format: bier, path: x}", "'source': unknown format 'bier' (did you mean 'beir'?)"),
        ("bier", "'source': unknown format 'bier' (did you mean 'beir'?)"),
        ("{path: x}", "'source.format' is required (known: parquet, beir,"),
        ("{format: squad}", "'source.path' is required"),
        ("{format: squad, path: x, exampels: {}}", "'source.exampels' (did you mean 'examples'?)"),
        ("{format: squad, path: x, examples: {dev: [a, 3]}}", "'source.examples.dev.1': input"),
        ("{format: squad, path: x, examples: {dve: a}}", "got \"dve\" (did you mean 'dev'?)"),
    ],
)
def test_sources_are_told_apart_by_format(source, message):
    (line,) = refused(f"data.params.source={source}")
    assert message in line


def test_a_format_is_wrong_where_it_stands(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("stages:\n  data:\n    uses: ingest\n    params: {source: {format: bier}}\n")
    (line,) = refused("data.resources.workers=0", file=file)
    assert line.startswith(f"{file}:4:31: ")


@pytest.mark.parametrize("model", ["./nofolder", "/no/folder", "one/two/three"])
def test_a_model_folder_that_does_not_exist(tmp_path, monkeypatch, capsys, model):
    monkeypatch.chdir(tmp_path)
    settings = (f"stages.base.params.model={model}",)
    assert execute(Options(verb="plan", file=str(DEFAULT), settings=settings), registry()) == 0
    assert f"{model} does not exist" in capsys.readouterr().out


def test_a_recipe_that_changes_a_stages_type_is_where_its_inputs_lack(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"extends: {DEFAULT}\n\nstages:\n"
        "  lists_0: {uses: denoise}\n"
        "  base_run: {inputs: {dataset: null}}\n"
        "  ranker_lists: {params: {source: corpus}}\n"
        "  evaluation: {params: {compared: RR@11}}\n"
    )
    found = refused("tokens.resources.workers=0", file=file)
    lines = sorted({int(line.removeprefix(f"{file}:").partition(":")[0]) for line in found})
    assert lines == [4, 5, 6, 7]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("retriever_0.params.encoder=mean", "'encoder': input should be a mapping, got"),
        ("vectors_0.params.splits=dev", "'splits': input should be a list, got"),
    ],
)
def test_what_is_expected_is_said_in_words_of_yaml(setting, message):
    (line,) = refused(setting)
    assert message in line


@pytest.mark.parametrize(("written", "meant"), [("on", True), ("off", False), ("false", False)])
def test_titles_are_on_or_off(written, meant):
    settings = [f"stages.tokens.params.title={written}"]
    assert read_pipeline(DEFAULT, registry(), settings)["tokens"].params.title is meant
    (line,) = refused("tokens.params.title=of")
    assert "should be a valid boolean" in line
