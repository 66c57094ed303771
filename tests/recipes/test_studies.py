"""The studies' recipes: a system is called what was varied, and differs in nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from pipeline.dag.specification import Pipeline
from pipeline.stages.pool_params import PoolParams
from tests.recipes.test_recipes import recipe

SPREAD = {"name": "simans", "standardised": True}
# What each system's pools differ in from the stage's defaults and one negative.
SAMPLERS = {
    "uniform": {"sampler": {"name": "uniform"}},
    "top": {"sampler": {"name": "top"}},
    "nearest": {"sampler": {"name": "nearest"}},
    "softmax": {"sampler": {"name": "softmax", "temperature": 0.05}},
    "SimANS": {"sampler": SPREAD},
    "SimANS, Laplace": {"sampler": {**SPREAD, "name": "simans_laplace"}},
    "SimANS by the positive": {"sampler": {**SPREAD, "name": "doc_sim"}},
    "TriSampler": {"sampler": {**SPREAD, "name": "trisampler"}, "filters": {"angle": 60}},
    "below 95 % of the positive": {
        "sampler": {"name": "top"},
        "filters": {"share_of_positive": 0.95},
    },
    "MarginMSE": {"sampler": SPREAD, "num_negatives": 3},
    "a = 0.1": {"sampler": {**SPREAD, "a": 0.1}},
    "a = 2": {"sampler": {**SPREAD, "a": 2.0}},
    "b = -1": {"sampler": {**SPREAD, "b": -1.0}},
    "b = 1": {"sampler": {**SPREAD, "b": 1.0}},
    "K = 20": {"sampler": SPREAD, "depth": 20},
    "K = 200": {"sampler": SPREAD, "depth": 200},
    "SimANS, 5 negatives": {"sampler": SPREAD, "num_negatives": 5},
    "SimANS, 11 negatives": {"sampler": SPREAD, "num_negatives": 11},
    "SimANS, 15 negatives": {"sampler": SPREAD, "num_negatives": 15},
}


def systems(pipeline: Pipeline, evaluation: str) -> Iterator[tuple[str, list]]:
    """The name of each run, and the stages that it comes from: training first, then its inputs."""
    stages = {stage.name: stage for stage in pipeline.stages}
    measured = stages[evaluation]
    names: list[str] = []
    for name in measured.params.names:
        ((name, seeds),) = name.items() if isinstance(name, dict) else [(name, 1)]
        names += [name] * seeds
    for name, run in zip(names, measured.inputs["runs"], strict=True):
        (vectors,) = stages[run].inputs["embeddings"]
        (model,) = stages[vectors].inputs["retriever"]
        (trained,) = stages[model].inputs.get("joint", (model,))
        yield name, [stages[trained], *(stages[one] for one in stages[trained].inputs["lists"])]


@pytest.mark.parametrize("name", ["negatives_study", "negatives_study_seeds"])
def test_samplers_are_compared_by_the_same_training(name: str) -> None:
    found = list(systems(recipe(name), "study_evaluation"))
    assert {system for system, _ in found} == set(SAMPLERS)
    alike = set()
    for system, (training, pools) in found:
        expected = PoolParams.model_validate({"num_negatives": 1, **SAMPLERS[system]})
        assert pools.params == expected, system
        assert pools.inputs["candidates"] == ("candidates_0",)
        assert pools.inputs["embeddings"] == ("vectors_0",)
        params = training.params
        alike.add((params.max_steps, params.learning_rate, params.encoder_dropout))
        if system == "MarginMSE":
            assert params.distillation == "margin_mse"
            assert training.inputs["retriever"] == ("retriever_0",)
            passages = params.global_batch_size * (1 + params.num_negatives)
        else:
            assert training.inputs["base"] == ("retriever_0",)
            own = params.model_dump(exclude={"num_negatives", "part"})
            assert own == found[0][1][0].params.model_dump(exclude={"num_negatives", "part"})
            passages = params.global_batch_size * 2
        # MarginMSE sees as many passages a step as one negative does.
        assert passages == 128
    assert len(alike) == 1


@pytest.mark.parametrize("name", ["negatives_study", "negatives_study_seeds"])
def test_the_course_is_one_training_in_parts(name: str) -> None:
    pipeline = recipe(name)
    samplers = {
        system: (training.params, pools)
        for system, (training, pools) in systems(pipeline, "study_evaluation")
    }
    for system, (training, pools) in systems(pipeline, "study_course"):
        sampler, steps = system.removesuffix(" steps").split(", ")
        params = training.params
        assert params.part.number * params.max_steps == int(steps)
        whole, own = samplers[sampler]
        assert params.model_dump(exclude={"part"}) == whole.model_dump(exclude={"part"})
        assert pools.params == own.params


@pytest.mark.parametrize("name", ["rocketqa_ablations", "rocketqa_ablations_seeds"])
def test_rocketqas_tricks_are_varied_one_by_one(name: str) -> None:
    found = list(systems(recipe(name), "rocketqa_evaluation"))
    apart = {"negatives", "in_batch_group_size"}
    batches = {training.params.global_batch_size for _, (training, *_) in found}
    (batch,) = batches
    for system, (training, *lists) in found:
        params = training.params
        assert params.num_negatives == 1
        assert params.model_dump(exclude=apart) == found[0][1][0].params.model_dump(exclude=apart)
        together = batch if params.negatives == "cross_batch" else params.in_batch_group_size
        seen = 2 * together - 1
        number = re.search(r"(\d+) negatives", system)
        assert seen == (int(number[1]) if number else 2 * batch - 1), system
        assert training.inputs["base"] == ("retriever_0" if "from M_D0" in system else "base",)
        kind = system.removesuffix(", from M_D0")
        expected = {"random negatives": "lists_0", "undenoised": "undenoised"}
        assert lists[0].name == expected.get(kind, "lists_1")
        share = re.match(r"(\d+) % of the labels", system)
        assert [100 * one.params.share for one in lists[1:]] == ([int(share[1])] if share else [])
    by_kind = {system: lists for system, (_, *lists) in found}
    ((undenoised,), (denoised,)) = (by_kind[kind] for kind in ("undenoised", "denoised"))
    for parameter in ("depth", "num_negatives"):
        assert getattr(undenoised.params, parameter) == getattr(denoised.params, parameter)
    assert undenoised.inputs["candidates"] == ("candidates_0",)


@pytest.mark.parametrize("name", ["negatives_study", "negatives_study_seeds"])
def test_steps_are_timed_for_the_numbers_of_negatives_that_are_named(name: str) -> None:
    stages = {stage.name: stage for stage in recipe(name).stages}
    report = stages["study_report"]
    told = zip(report.params.names.trainings, report.inputs["trainings"], strict=True)
    for called, training in told:
        assert int(called.split()[0]) == stages[training].params.num_negatives
    assert [called.split()[0] for called in report.params.names.trainings] == ["1", "5", "11", "15"]


@pytest.mark.parametrize(
    "name", ["false_negatives", "false_negatives_cranfield", "false_negatives_openqa"]
)
def test_false_negatives_are_counted_of_what_is_named(name: str) -> None:
    stages = {stage.name: stage for stage in recipe(name).stages}
    draws = stages["judged_draws"]
    names, pools = draws.params.names, draws.inputs["pools"]
    expected = {
        "top": {"sampler": {"name": "top"}},
        "uniform from the top 100": {"sampler": {"name": "uniform"}},
        "SimANS": {"sampler": {**SPREAD, "a": 0.5}},
        "margin 0.05, top": {"sampler": {"name": "top"}, "filters": {"margin": 0.05}},
        "below 95 % of the positive, top": {
            "sampler": {"name": "top"},
            "filters": {"share_of_positive": 0.95},
        },
    }
    for system, wired in zip(names, pools, strict=False):
        params = {"num_negatives": draws.params.num_negatives, **expected.pop(system)}
        assert stages[wired].params == PoolParams.model_validate(params)
    assert not expected
    assert names[len(pools) :] == ["denoised", "random from the corpus"]
    assert draws.inputs["lists"] == ("judged_denoised", "judged_lists_0")
    denoised, random = (stages[one] for one in draws.inputs["lists"])
    assert (denoised.type.name, random.params.source) == ("denoise", "corpus")
