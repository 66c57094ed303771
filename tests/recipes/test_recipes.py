from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.dag.commands import Options, execute
from pipeline.dag.specification import Pipeline, read_pipeline
from pipeline.stages import registry

PROJECT = Path(__file__).parents[2]
PAPER = sorted((PROJECT / "recipes" / "paper").glob("*.yaml"))
ROCKETQA = [file for file in PAPER if file.stem.startswith(("rocketqa", "pair", "dureader"))]
# The file that each format reads first.
FIRST_FILES = {
    "rocketqa": "para.txt",
    "dureader": "passage-collection/part-00",
    "msmarco_passage": "collection.tsv",
    "msmarco_document": "msmarco-docs.tsv",
    "dpr": "psgs_w100.tsv",
    "parquet": "corpus.parquet",
}
FILES = [PROJECT / "pipeline.yaml", *sorted((PROJECT / "recipes").rglob("*.yaml"))]


def recipe(name: str) -> Pipeline:
    return read_pipeline(PROJECT / "recipes" / f"{name}.yaml", registry())


def of_type(pipeline: Pipeline, name: str) -> list:
    return [stage for stage in pipeline.stages if stage.type.name == name]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_file_is_right_and_its_stages_are_measured(file):
    pipeline = read_pipeline(file, registry())
    measured = [*of_type(pipeline, "evaluate"), *of_type(pipeline, "draws")]
    assert pipeline.above(stage.name for stage in measured)


@pytest.mark.parametrize(
    ("start", "method"),
    [("recipes/without_unlabelled", name) for name in ("ance", "ar2", "adore")]
    + [("pipeline", name) for name in ("pair", "rocketqav2", "simans_rocketqa")],
)
def test_recipes_run_on_other_data(start, method, tmp_path):
    mine, both = tmp_path / "mine.yaml", tmp_path / "both.yaml"
    source = "{format: beir, path: here}"
    mine.write_text(
        f"extends: {PROJECT / start}.yaml\nstages: {{data: {{params: {{source: {source}}}}}}}\n"
    )
    both.write_text(f"extends: [mine.yaml, {PROJECT / 'recipes' / method}.yaml]\n")
    pipeline = read_pipeline(both, registry())
    assert pipeline["data"].params.source.format == "beir"
    assert pipeline["evaluation"].params == recipe(method)["evaluation"].params
    labelled = ["lists_2"] if start == "pipeline" else []
    assert [stage.name for stage in of_type(pipeline, "pseudo_label")][:1] == labelled


def test_names_are_unique():
    names = [read_pipeline(file, registry()).name for file in FILES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("file", PAPER, ids=lambda file: file.stem)
def test_a_plan_without_the_data_says_what_is_missing(file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert execute(Options(verb="plan", file=str(file)), registry()) == 0
    out = capsys.readouterr().out
    (data,) = of_type(read_pipeline(file, registry()), "ingest")
    assert f"{FIRST_FILES[data.params.source.format]} does not exist; key not known yet" in out


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_texts_are_cut_for_mining_as_they_are_for_training(file):
    stages = read_pipeline(file, registry()).stages
    reading = [stage.inputs for stage in stages if "tokens" in stage.inputs]
    tokens = {each["dataset"]: each["tokens"] for each in reading if "dataset" in each}
    for each in reading:
        assert each["tokens"] == tokens.get(each.get("dataset"), each["tokens"])
        assert each["tokens"] in tokens.values()


@pytest.mark.parametrize("file", PAPER, ids=lambda file: file.stem)
def test_paper_recipes_mask_nothing_and_share_their_batches_evenly(file):
    for stage in of_type(read_pipeline(file, registry()), "train_retriever"):
        assert not stage.params.mask_known_positives
        assert stage.params.global_batch_size % stage.resources.workers == 0


@pytest.mark.parametrize("file", ROCKETQA, ids=lambda file: file.stem)
def test_paper_recipes_follow_the_released_code(file):
    pipeline = read_pipeline(file, registry())
    for stage in of_type(pipeline, "train_retriever"):
        if stage.name.startswith("pair"):
            continue
        assert stage.inputs["base"] == ("base",) and stage.params.negatives == "cross_batch"
        assert not stage.params.encoder.shared and stage.params.encoder.temperature == 1
    for stage in of_type(pipeline, "train_ranker"):
        assert stage.params.schedule == "constant" and stage.params.warmup_ratio == 0
        if stage.name != "ranker_warm":
            assert (stage.params.head, stage.params.adversarial) == ("pooled_two_class", 0.01)
    for stage in (*of_type(pipeline, "denoise"), *of_type(pipeline, "pseudo_label")):
        assert "calibration" not in stage.inputs


# What the papers and the released scripts say, by stage.
LENGTHS = {"query_max_len": 32, "passage_max_len": 128, "pair_max_len": 160, "missing_title": "-"}
RETRIEVER = {
    "num_negatives": 1,
    "learning_rate": 3e-5,
    "schedule": "bert",
    "warmup_ratio": 0.1,
    "weight_decay": 0.0,
    "optimizer": "adamw",
}
RANKER = {"num_train_epochs": 2, "learning_rate": 1e-5, "weight_decay": 0.01}
SURE = {"positive_above": 0.9, "negative_below": 0.1, "depth": 50}
SEPARATE = {"shared": False, "pooling": "cls", "normalize": False, "temperature": 1.0}
PAIR = {**RETRIEVER, "num_train_epochs": 10}
LAMB = {"optimizer": "lamb", "weight_decay": 0.01}
FIRST = {
    "encoder": {**SEPARATE, "shared": True},
    "passage_centric_weight": 0.1,
    "passage_centric_form": "released",
}
JOINT = {
    "preset": "released",
    "teacher": "dynamic",
    "ranker_loss": "listwise",
    "contrastive_weight": 0.0,
    "global_batch_size": 96,
    "learning_rate": 1e-5,
    "schedule": "constant",
    "warmup_ratio": 0.0,
    "optimizer": "adamw",
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "max_steps": None,
}
OWN_LIST = {"negatives": "in_batch", "in_batch_group_size": 1, "num_negatives": 1}
ANCE = {**OWN_LIST, "optimizer": "lamb", "global_batch_size": 64, "max_steps": 10_000}
UNIFORM = {"name": "uniform", "a": None, "b": 0.0, "standardised": False, "temperature": 1.0}
SIMANS = {**UNIFORM, "name": "simans", "a": 0.5}
TURNS = {
    "teacher": "dynamic",
    "ranker_loss": "listwise",
    "num_negatives": 15,
    "schedule": "linear",
    "warmup_ratio": 0.1,
    "optimizer": "adamw",
    "weight_decay": 0.0,
    "max_grad_norm": 2.0,
    "divergence_weight": 1.0,
}
AR2 = {
    **TURNS,
    "reward": "policy_gradient",
    "turns": {"ranker": 500, "retriever": 1500},
    "global_batch_size": 64,
    "max_steps": 2000,
}
AR2_RANKER = {
    "head": "cls_logit",
    "loss": "listwise",
    "num_negatives": 15,
    "learning_rate": 1e-5,
    "schedule": "linear",
}
ON_ANSWERS = {"splits": ["validation", "dev", "test"], "compared": "answer@20"}
ON_MORE_ANSWERS = {**ON_ANSWERS, "answer_depths": [1, 5, 10, 20, 100]}
ONE_LOGIT = {"head": "cls_logit", "dropout": 0.1}
PUBLISHED = {
    "rocketqa_msmarco": {
        "tokens": LENGTHS,
        "lists_0": {"source": "corpus", "num_negatives": 4, "per": "positive"},
        "retriever_0": {**RETRIEVER, "global_batch_size": 4096, "num_train_epochs": 40},
        "candidates_0": {"depths": {"train": 1000, "validation": 1000, "dev": 1000}},
        "ranker_lists": {"source": "candidates", "depth": 1000, "num_negatives": 4, "per": "query"},
        "ranker": {**RANKER, "global_batch_size": 256},
        "calibration": {"split": "validation", "depth": 1000, "num_negatives": 4},
        "scored_0": {"splits": ["train"], "depth": 50},
        "lists_1": {
            "threshold": 0.1,
            "depth": 50,
            "fill_depth": 1000,
            "num_negatives": 4,
            "per": "positive",
        },
        "retriever_1": {**RETRIEVER, "global_batch_size": 4096, "num_train_epochs": 10},
        "candidates_1": {"depths": {"validation": 1000, "dev": 1000, "unlabelled": 50}},
        "scored_1": {"splits": ["unlabelled"], "depth": 50},
        "lists_2": {**SURE, "splits": ("unlabelled",), "num_negatives": 4},
        "retriever_2": {**RETRIEVER, "global_batch_size": 4096, "num_train_epochs": 10},
        "reranked": {"depth": 50},
    },
    "rocketqa_nq": {
        "tokens": LENGTHS,
        "bm25": {"depths": {"train": 100, "validation": 100, "dev": 100, "test": 100}},
        "lists_0": {"source": "top", "depth": 100, "num_negatives": 1},
        "retriever_0": {**RETRIEVER, "global_batch_size": 1024, "num_train_epochs": 30},
        "candidates_0": {"depths": {"train": 100, "validation": 100, "dev": 100, "test": 100}},
        "ranker_lists": {"source": "candidates", "depth": 100, "num_negatives": 1, "per": "query"},
        "ranker": {**RANKER, "global_batch_size": 64},
        "calibration": {"split": "validation", "depth": 100, "num_negatives": 1},
        "scored_0": {"splits": ["train"], "depth": 100},
        "lists_1": {"threshold": 0.1, "depth": 100, "fill_depth": 100, "num_negatives": 1},
        "retriever_1": {**RETRIEVER, "global_batch_size": 1024, "num_train_epochs": 30},
        "scored_1": {"splits": ["unlabelled"], "depth": 50},
        "lists_2": {**SURE, "splits": ("unlabelled",), "num_negatives": 1},
        "retriever_2": {**RETRIEVER, "global_batch_size": 1024, "num_train_epochs": 30},
        "reranked": {"depth": 50},
        "evaluation": {
            "splits": ["validation", "dev", "test"],
            "compared": "answer@20",
            "answer_depths": [5, 20, 100],
        },
    },
    "pair_msmarco": {
        "tokens": {"query_max_len": 32, "passage_max_len": 128},
        "pair_1": {
            **PAIR,
            **LAMB,
            **FIRST,
            "negatives": "cross_batch",
            "global_batch_size": 8 * 512,
        },
        "pair_2": {
            **PAIR,
            **LAMB,
            "passage_centric_weight": 0.0,
            "negatives": "cross_batch",
            "global_batch_size": 8 * 512,
        },
    },
    "pair_nq": {
        "tokens": {"query_max_len": 32, "passage_max_len": 128},
        "pair_1": {
            **PAIR,
            **FIRST,
            "negatives": "in_batch",
            "in_batch_group_size": 512,
            "global_batch_size": 8 * 512,
        },
        "pair_2": {
            **PAIR,
            "passage_centric_weight": 0.0,
            "negatives": "in_batch",
            "in_batch_group_size": 512,
            "global_batch_size": 512,
        },
    },
    "rocketqav2_msmarco": {
        "tokens": {"query_max_len": 32, "passage_max_len": 128},
        "lists_joint": {"num_negatives": 127, "undenoised": 1, "denoised": 1, "split": "train"},
        "ranker_base": {**RANKER, "global_batch_size": 256},
        "ranker_warm": ONE_LOGIT,
        "joint": {**JOINT, "num_negatives": 127, "num_train_epochs": 2},
        "reranked_v2": {"depth": 50},
        "bm25": {"depths": {"dev": 1000}},
        "bm25_by_ranker_v2": {"depth": 1000},
        "rocketqa_by_ranker_v2": {"depth": 50},
    },
    "rocketqav2_nq": {
        "tokens": {"query_max_len": 32, "passage_max_len": 128},
        "lists_joint": {"num_negatives": 31, "undenoised": 1, "denoised": 1, "split": "train"},
        "ranker_base": {**RANKER, "global_batch_size": 64},
        "ranker_warm": ONE_LOGIT,
        "joint": {**JOINT, "num_negatives": 31, "num_train_epochs": 3},
        "reranked_v2": {"depth": 50},
    },
    "ance_msmarco": {
        "tokens": {"passage_max_len": 512},
        "retriever_0": {
            **OWN_LIST,
            "optimizer": "lamb",
            "learning_rate": 2e-4,
            "global_batch_size": 32,
            "max_steps": 60_000,
            "warmup_ratio": 0.016667,
        },
        "ance_pools_1": {"depth": 200, "num_negatives": 1, "sampler": UNIFORM},
        "ance_60": {
            **ANCE,
            "learning_rate": 1e-6,
            "warmup_ratio": 0.005,
            "part": {"number": 60, "of": 100},
        },
    },
    "ance_msmarco_doc": {"ance_21": {**ANCE, "learning_rate": 5e-6, "warmup_ratio": 0.003}},
    "ance_nq": {
        "tokens": {"passage_max_len": 256},
        "retriever_0": {
            "in_batch_group_size": 128,
            "num_negatives": 1,
            "global_batch_size": 128,
            "num_train_epochs": 40,
            "learning_rate": 2e-5,
            "warmup_ratio": 0.07,
            "max_grad_norm": 2.0,
            "optimizer": "adamw",
        },
        "ance_pools_14": {"depth": 100, "num_negatives": 1, "sampler": UNIFORM},
        "ance_14": {
            **ANCE,
            "learning_rate": 1e-5,
            "warmup_ratio": 0.001,
            "global_batch_size": 128,
        },
        "evaluation": ON_ANSWERS,
    },
    "ance_triviaqa": {
        "ance_10": {"learning_rate": 1e-5, "warmup_ratio": 0.001},
        "evaluation": ON_ANSWERS,
    },
    "ar2_msmarco": {
        "tokens": {"query_max_len": 32, "passage_max_len": 128},
        "retriever_0": {
            "in_batch_group_size": 64,
            "num_negatives": 1,
            "learning_rate": 1e-4,
            "num_train_epochs": 3,
        },
        "ranker": {**AR2_RANKER, "global_batch_size": 256, "max_steps": 4000},
        "ar2_pools_10": {"depth": 100, "num_negatives": 15, "sampler": UNIFORM},
        "ar2_10": {**AR2, "learning_rate": 5e-6, "ranker_learning_rate": 5e-7},
    },
    "ar2_msmarco_doc": {"ar2_10": {**AR2, "learning_rate": 5e-6}},
    "ar2_nq": {
        "retriever_0": {
            "in_batch_group_size": 128,
            "num_negatives": 1,
            "learning_rate": 1e-5,
            "num_train_epochs": 40,
        },
        "ranker": {**AR2_RANKER, "global_batch_size": 64, "max_steps": 2000},
        "ar2_10": {**AR2, "learning_rate": 1e-5, "ranker_learning_rate": 1e-6},
        "evaluation": ON_MORE_ANSWERS,
    },
    "ar2_triviaqa": {
        "ar2_10": {**AR2, "learning_rate": 1e-5, "ranker_learning_rate": 1e-6},
        "evaluation": ON_MORE_ANSWERS,
    },
    "simans_ar2_msmarco": {
        "simans_pools_12": {"depth": 200, "num_negatives": 15, "sampler": SIMANS},
        "simans_12": {
            **TURNS,
            "reward": "none",
            "turns": {"ranker": 500, "retriever": 4500},
            "global_batch_size": 256,
            "max_steps": 5000,
            "learning_rate": 5e-6,
            "ranker_learning_rate": 5e-7,
            "part": {"number": 12, "of": 12},
        },
    },
    "simans_ar2_msmarco_doc": {
        "tokens": {"query_max_len": 128, "passage_max_len": 512},
        "simans_pools_8": {"depth": 200, "num_negatives": 15, "sampler": SIMANS},
        "simans_8": {
            **TURNS,
            "reward": "none",
            "turns": {"ranker": 1000, "retriever": 4000},
            "global_batch_size": 256,
            "max_steps": 5000,
            "learning_rate": 5e-6,
            "ranker_learning_rate": 1e-6,
            "part": {"number": 8, "of": 8},
        },
    },
    "simans_ar2_nq": {
        # One below the positive, as the released code has it.
        "simans_pools_15": {"depth": 100, "num_negatives": 15, "sampler": {**SIMANS, "b": -1.0}},
        "simans_15": {
            **AR2,
            "reward": "none",
            "learning_rate": 1e-5,
            "ranker_learning_rate": 1e-6,
            "part": {"number": 15, "of": 15},
        },
        "evaluation": ON_MORE_ANSWERS,
    },
    "simans_ar2_triviaqa": {
        "simans_pools_5": {"depth": 100, "num_negatives": 15, "sampler": SIMANS},
        "simans_5": {
            **AR2,
            "reward": "none",
            "learning_rate": 5e-6,
            "ranker_learning_rate": 1e-6,
            "part": {"number": 5, "of": 5},
        },
        "evaluation": ON_MORE_ANSWERS,
    },
    "simans_industrial": {
        "top_pools": {"depth": 5, "num_negatives": 5},
        "top": {"learning_rate": 1e-5, "global_batch_size": 128, "max_steps": 100_000},
        "simans_pools": {"depth": 100, "num_negatives": 5, "sampler": {**SIMANS, "a": 1.0}},
        "simans": {"learning_rate": 1e-5, "global_batch_size": 128, "num_negatives": 5},
    },
    "dureader": {
        "tokens": {"query_max_len": 32, "passage_max_len": 384, "pair_max_len": 384},
        "lists": {"source": "given"},
        "retriever": {
            **RETRIEVER,
            "encoder": SEPARATE,
            "negatives": "cross_batch",
            "global_batch_size": 4 * 128,
            "num_train_epochs": 10,
        },
        "candidates": {"depths": {"train": 50, "validation": 50, "dev": 50}},
        "ranker_lists": {"source": "candidates", "depth": 50},
        # As the maintainers trained it; the script has 4 x 32.
        "ranker": {**RANKER, "num_train_epochs": 3, "global_batch_size": 4 * 64},
        "reranked": {"depth": 50},
        "evaluation": {"shown": ["RR@10", "Success@1", "Success@50"]},
    },
}
# Processes that train, as many as there were GPUs.
WORKERS = {
    "rocketqa_msmarco": {"retriever_0": 8, "ranker": 4, "retriever_1": 8, "retriever_2": 8},
    "rocketqa_nq": {"retriever_0": 2, "ranker": 1, "retriever_1": 2, "retriever_2": 2},
    "pair_msmarco": {"pair_1": 8, "pair_2": 8},
    "pair_nq": {"pair_1": 8, "pair_2": 1},
    "rocketqav2_msmarco": {"joint": 32},
    "rocketqav2_nq": {"joint": 8},
    "ance_msmarco": {"ance_1": 4},
    "ance_nq": {"ance_1": 8},
    "simans_ar2_msmarco": {"ar2_1": 8, "simans_1": 8},
    "dureader": {"retriever": 4, "ranker": 4},
}


@pytest.mark.parametrize(
    ("name", "stage"), [(name, stage) for name, stages in PUBLISHED.items() for stage in stages]
)
def test_paper_recipes_are_at_the_published_sizes(name, stage):
    stages = {one.name: one.params.model_dump() for one in recipe(f"paper/{name}").stages}
    published = PUBLISHED[name][stage]
    assert {key: stages[stage][key] for key in published} == published


@pytest.mark.parametrize("name", WORKERS)
def test_paper_recipes_train_on_as_many_workers_as_the_authors(name):
    stages = {stage.name: stage.resources.workers for stage in recipe(f"paper/{name}").stages}
    assert {stage: stages[stage] for stage in WORKERS[name]} == WORKERS[name]


def test_white_space_is_taken_out_of_chinese_texts():
    (data,) = of_type(recipe("paper/dureader"), "ingest")
    assert data.params.source.remove_spaces


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_lists_are_as_long_as_the_joint_training_takes_them(file):
    pipeline = read_pipeline(file, registry())
    lists = (*of_type(pipeline, "hybrid"), *of_type(pipeline, "pool"))
    made = {stage.name: stage.params.num_negatives for stage in lists}
    for stage in of_type(pipeline, "train_joint"):
        assert {made[name] for name in stage.inputs["lists"]} == {stage.params.num_negatives}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_pools_are_made_for_as_many_negatives_as_are_drawn(file):
    pipeline = read_pipeline(file, registry())
    made = {stage.name: stage.params.num_negatives for stage in of_type(pipeline, "pool")}
    for stage in pipeline.stages:
        wired = (*stage.inputs.get("lists", ()), *stage.inputs.get("pools", ()))
        drawn = {made[name] for name in wired if name in made}
        assert drawn <= {getattr(stage.params, "num_negatives", None)}


@pytest.mark.parametrize(
    ("stage", "defaults"),
    [
        ("sample", {"depth": 1000, "num_negatives": 4}),
        ("calibrate", {"depth": 1000, "negative_below": 0.1, "positive_above": 0.9}),
        ("denoise", {"threshold": 0.1, "depth": 50, "fill_depth": 1000, "num_negatives": 4}),
        ("pseudo_label", {**SURE, "num_negatives": 4}),
        ("hybrid", {"negative_below": 0.1, "positive_above": 0.9}),
        ("pool", {"depth": 100, "num_negatives": 15, "positive": "random"}),
    ],
)
def test_defaults_are_the_papers(stage, defaults):
    params = registry()[stage].params().model_dump()
    assert {key: params[key] for key in defaults} == defaults


@pytest.mark.parametrize("name", ["rocketqa_nq", "pair_nq", "rocketqav2_nq"])
def test_nq_is_measured_on_the_test_questions_that_the_release_has_answers_of(name):
    stages = recipe(f"paper/{name}").stages
    (data,) = (stage.params.source for stage in stages if stage.name == "data")
    assert set(data.answers) == {"train", "test"} and set(data.queries) == {"train", "dev", "test"}
    (evaluation,) = (stage for stage in stages if stage.name == "evaluation")
    by_name = {stage.name: stage for stage in stages}
    for run in evaluation.inputs["runs"]:
        stage = by_name[run]
        if stage.type.name == "score":
            assert not stage.params.splits
            stage = by_name[stage.inputs["candidates"][0]]
        assert stage.params.depths["test"] == 100
        for vectors in stage.inputs.get("embeddings", ()):
            assert "test" in by_name[vectors].params.splits


@pytest.mark.parametrize("name", ["pair_msmarco", "pair_nq"])
def test_pair_has_its_loss_in_the_first_stage_alone(name):
    stages = {stage.name: stage for stage in recipe(f"paper/{name}").stages}
    first, second = stages["pair_1"], stages["pair_2"]
    assert first.params.encoder.shared and first.params.passage_centric_weight == 0.1
    assert first.params.passage_centric_form == "released"
    assert second.params.passage_centric_weight == 0 and second.inputs["base"] == ("pair_1",)
    assert first.params.optimizer == ("lamb" if name == "pair_msmarco" else "adamw")


@pytest.mark.parametrize(("name", "passages", "per_gpu"), [("msmarco", 128, 3), ("nq", 32, 12)])
def test_v2_trains_on_384_rows_a_gpu(name, passages, per_gpu):
    stages = {stage.name: stage for stage in recipe(f"paper/rocketqav2_{name}").stages}
    joint = stages["joint"]
    assert joint.params.num_negatives + 1 == passages and joint.params.preset == "released"
    assert joint.params.global_batch_size == 96 == joint.resources.workers * per_gpu
    assert passages * per_gpu == 384
    assert stages["lists_joint"].params.num_negatives == joint.params.num_negatives
    assert joint.params.learning_rate == 1e-5 and joint.params.schedule == "constant"
    warm = stages["ranker_warm"].params
    assert (warm.head, warm.fresh_head, warm.loss) == ("cls_logit", True, "listwise")


@pytest.mark.parametrize(
    "name",
    [
        "pair",
        "rocketqav2",
        "pair_ablations",
        "adore",
        "ance",
        "ance_asynchronous",
        "simans_ance",
        "ar2",
        "simans_ar2",
        "simans_rocketqa",
        "simans_cross_fitting",
    ],
)
def test_recipes_use_the_default_runs_stages_as_they_are(name):
    default, own = recipe("../pipeline"), {s.name: s for s in recipe(name).stages}
    for stage in default.stages:
        if stage.name != "evaluation":
            assert own[stage.name].params == stage.params
            assert own[stage.name].inputs == stage.inputs


def test_pair_takes_as_many_steps_as_what_it_is_compared_with():
    stages = {stage.name: stage for stage in recipe("pair").stages}
    both = stages["pair_1"].params.max_steps + stages["pair_2"].params.max_steps
    assert both == stages["retriever_2"].params.max_steps
    ablations = {stage.name: stage for stage in recipe("pair_ablations").stages}
    for variant in ("no_first_stage", "no_pseudo_labels"):
        stage = ablations[f"pair_2_{variant}_13"]
        assert stage.params.max_steps == both and stage.inputs["base"] == ("base",)
        assert f"pair_1_{variant}_13" not in ablations


@pytest.mark.parametrize("name", ["openqa", "openqa_fraction"])
@pytest.mark.parametrize("seed", [13, 14, 15])
def test_retrievers_that_are_compared_take_equally_many_steps(name, seed):
    stages = {stage.name: stage.params for stage in recipe(name).stages}
    alone = ("retriever_dpr", "retriever_0", "retriever_1", "retriever_2", "control", "joint")
    steps = {stages[f"{one}_{seed}"].max_steps for one in alone}
    steps.add(stages[f"pair_1_{seed}"].max_steps + stages[f"pair_2_{seed}"].max_steps)
    assert len(steps) == 1 and None not in steps
    batches = {
        stages[f"{one}_{seed}"].global_batch_size for one in (*alone[:-1], "pair_1", "pair_2")
    }
    assert len(batches) == 1


@pytest.mark.parametrize(
    ("name", "rounds", "steps"),
    [
        ("ance_msmarco", "ance", 600_000),
        ("ance_msmarco_doc", "ance", 210_000),
        ("ance_nq", "ance", 140_000),
        ("ance_triviaqa", "ance", 100_000),
        ("ar2_msmarco", "ar2", 20_000),
        ("ar2_nq", "ar2", 20_000),
        ("simans_ar2_msmarco", "simans", 60_000),
        ("simans_ar2_msmarco_doc", "simans", 40_000),
        ("simans_ar2_nq", "simans", 30_000),
        ("simans_ar2_triviaqa", "simans", 10_000),
    ],
)
def test_rounds_sum_up_to_the_published_steps(name, rounds, steps):
    pipeline = recipe(f"paper/{name}")
    parts = [s for s in pipeline.stages if s.name.removeprefix(f"{rounds}_").isdigit()]
    assert sum(stage.params.max_steps for stage in parts) == steps
    # What is measured is the last of them.
    (evaluation,) = of_type(pipeline, "evaluate")
    assert {f"{rounds}_run_{len(parts)}", f"{rounds}_reranked"} & {*evaluation.inputs["runs"]}


@pytest.mark.parametrize("data", ["msmarco", "msmarco_doc", "nq", "triviaqa"])
def test_simans_goes_on_from_ar2_as_it_is(data):
    alone = recipe(f"paper/ar2_{data}").stages
    both = {stage.name: stage for stage in recipe(f"paper/simans_ar2_{data}").stages}
    for stage in alone:
        if stage.name != "evaluation":
            assert (both[stage.name].params, both[stage.name].inputs) == (
                stage.params,
                stage.inputs,
            )
    first = both["simans_1"].inputs
    assert (first["retriever"], first["ranker"]) == (("ar2_retriever_10",), ("ar2_ranker_10",))


@pytest.mark.parametrize("name", ["ance_nq", "ance_triviaqa", "ar2_nq", "simans_ar2_triviaqa"])
def test_passages_with_answers_are_no_negatives_of_questions(name):
    for stage in of_type(recipe(f"paper/{name}"), "pool"):
        assert stage.params.filters.without_answer
