"""A method is the same stages at every size, and what is compared was trained on the same."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path

import pytest

from pipeline.dag.contract import Params
from pipeline.dag.specification import Pipeline, read_pipeline
from pipeline.stages import registry

RECIPES = Path(__file__).parents[2] / "recipes"

# The papers' ranker is larger than their retriever, so that v2 needs one of its size first.
ONLY_LARGE = {"ranker_base"}
# Depth and threshold are calibrated on the small data, and published on the large.
ONLY_SMALL = {"calibration"}
# What this tells of lists costs another reading of all vectors: seconds here, and long there.
ONLY_SMALL_OF_LISTS = {"embeddings"}


def own_stages(name: str, below: str) -> Mapping[str, tuple[str, Mapping[str, tuple[str, ...]]]]:
    """What a recipe adds to the one it extends: type and wiring of each stage."""
    extended = {stage.name for stage in recipe(below).stages}
    return {
        stage.name: (stage.type.name, stage.inputs)
        for stage in recipe(name).stages
        if stage.name not in extended
    }


def recipe(name: str) -> Pipeline:
    return read_pipeline(RECIPES / f"{name}.yaml", registry())


@pytest.mark.parametrize(
    ("small", "large", "base"),
    [
        ("pair", "paper/pair_msmarco", "paper/rocketqa_msmarco"),
        ("pair", "paper/pair_nq", "paper/rocketqa_nq"),
        ("rocketqav2", "paper/rocketqav2_msmarco", "paper/rocketqa_msmarco"),
        ("rocketqav2", "paper/rocketqav2_nq", "paper/rocketqa_nq"),
    ],
)
def test_sizes_differ_in_values_only(small: str, large: str, base: str) -> None:
    here, there = own_stages(small, "../pipeline"), own_stages(large, base)
    # The default run has BM25 already.
    assert set(there) - {"bm25"} - set(here) <= ONLY_LARGE
    assert set(here) <= set(there)
    for name, (stage, inputs) in here.items():
        other, wired = there[name]
        assert stage == other, name
        aside = ONLY_SMALL | (ONLY_SMALL_OF_LISTS if stage == "hybrid" else set())
        expected = {slot: made for slot, made in inputs.items() if slot not in aside}
        if name == "ranker_warm":
            expected["base"] = ("ranker_base",)
        assert {slot: made for slot, made in wired.items() if slot not in aside} == expected


def of_round(name: str, prefix: str, number: int) -> Mapping[str, object]:
    """Type and wiring of a round's stages, by name."""
    return {
        stage.name: (stage.type.name, stage.inputs)
        for stage in recipe(name).stages
        if stage.name.startswith(prefix) and stage.name.endswith(f"_{number}")
    }


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(
    ("method", "large"),
    [
        ("ance", "ance_msmarco"),
        ("ance", "ance_triviaqa"),
        ("ar2", "ar2_msmarco_doc"),
        ("ar2", "ar2_nq"),
    ],
)
def test_rounds_differ_in_values_only(method: str, large: str, number: int) -> None:
    here = of_round(method, f"{method}_", number)
    assert here == of_round(f"paper/{large}", f"{method}_", number)
    assert len(here) == {"ance": 4, "ar2": 6}[method]


OWN_LIST = {"negatives": "in_batch", "in_batch_group_size": 1, "num_negatives": 1}
# What makes each method at any size, by recipe and stage.
METHODS = {
    "ance": {"ance_pools_1": {"depth": 200, "sampler.name": "uniform"}, "ance_1": OWN_LIST},
    "ance_asynchronous": {"ance_pools": {"depth": 200, "sampler.name": "uniform"}},
    "adore": {"adore": {"refresh": "every_step", "loss": "lambda_rank"}},
    "ar2": {
        "ar2_pools_1": {"depth": 100, "sampler.name": "uniform"},
        "ar2_1": {
            "teacher": "dynamic",
            "ranker_loss": "listwise",
            "reward": "policy_gradient",
            "reward_weight": 1.0,
            "divergence_weight": 1.0,
            "contrastive_weight": 0.0,
        },
    },
    "simans_ar2": {
        "pools_simans_1": {"depth": 100, "sampler.name": "simans", "sampler.a": 0.5},
        "joint_simans_1": {"reward": "none", "divergence_weight": 1.0},
        "joint_longer_1": {"reward": "policy_gradient", "reward_weight": 1.0},
    },
    "simans_ance": {"simans_pools_1": {"depth": 200, "sampler.name": "simans"}},
    "simans_rocketqa": {"pools_1": {"depth": 100, "sampler.name": "simans", "positive": "each"}},
}


@pytest.mark.parametrize(
    ("name", "stage"), [(name, stage) for name, stages in METHODS.items() for stage in stages]
)
def test_small_recipes_are_what_they_are_called(name: str, stage: str) -> None:
    params = {each.name: each.params for each in recipe(name).stages}[stage]
    expected = METHODS[name][stage]
    assert {key: attrgetter(key)(params) for key in expected} == expected


@pytest.mark.parametrize("data", ["msmarco", "nq"])
def test_simans_takes_ar2s_turns(data: str) -> None:
    name = f"paper/simans_ar2_{data}"
    simans, ar2 = (of_round(name, f"{method}_", 2) for method in ("simans", "ar2"))
    assert repr(sorted(simans.items())).replace("simans", "ar2") == repr(sorted(ar2.items()))


def own_params(name: str, mark: str) -> Mapping[str, Params]:
    """Parameters of the stages that have `mark` in their names, by what else they are called."""
    stages = recipe(name).stages
    return {s.name.replace(mark, "-"): s.params for s in stages if mark in f"_{s.name}"}


def differing(name: str, one: str, other: str) -> set[str]:
    first, second = own_params(name, one), own_params(name, other)
    assert first.keys() == second.keys()
    assert len(first) >= 12
    return {stage for stage in first if first[stage] != second[stage]}


def test_simans_is_compared_with_what_differs_in_the_sampler_alone() -> None:
    pools = {"pools-1", "pools-2"}
    assert differing("simans_ar2", "_simans_", "_uniform_") == pools
    assert differing("simans_ar2", "_longer_", "_uniform_") == {"joint-1", "joint-2"}
    stages = {stage.name: stage for stage in recipe("simans_ar2").stages}
    simans, uniform = (stages[f"pools_{name}_1"].params for name in ("simans", "uniform"))
    assert simans.model_copy(update={"sampler": uniform.sampler}) == uniform
    joint, longer = (stages[f"joint_{name}_1"].params for name in ("uniform", "longer"))
    assert longer.model_copy(update={"reward": "none"}) == joint
    assert ("SimANS", "AR2 longer without reward") in compared("simans_ar2")

    stages = {stage.name: stage for stage in recipe("simans_ance").stages}
    for number in (1, 2, 3):
        for kind in ("_pools", "", "_vectors", "_run"):
            ours, theirs = (stages[f"{m}{kind}_{number}"].params for m in ("simans", "ance"))
            if kind == "_pools":
                ours = ours.model_copy(update={"sampler": theirs.sampler})
            assert ours == theirs
        assert (f"SimANS round {number}", f"ANCE round {number}") in compared("simans_ance")


def test_simans_stands_in_rocketqa_where_denoising_does() -> None:
    stages = {stage.name: stage for stage in recipe("simans_rocketqa").stages}
    for number in (1, 2):
        simans, host = stages[f"simans_{number}"], stages[f"retriever_{number}"]
        stands_for = {"lists_1": "pools_1", "lists_2": "labels_2"}
        lists = [stands_for[each] for each in host.inputs["lists"]]
        assert simans.params == host.params
        assert simans.inputs == {**host.inputs, "lists": tuple(lists)}
        assert (f"M_D{number} by SimANS", f"M_D{number}") in compared("simans_rocketqa")
    assert stages["pools_1"].inputs["candidates"] == stages["scored_0"].inputs["candidates"]
    # A list gives a row for each of its negatives, and a pool gives one: pseudo-labels are as large
    # a part of the rows in both.
    assert stages["labels_2"].inputs == stages["lists_2"].inputs
    one = {"num_negatives": stages["pools_1"].params.num_negatives}
    assert stages["labels_2"].params == stages["lists_2"].params.model_copy(update=one)
    assert stages["lists_1"].params.num_negatives == stages["lists_2"].params.num_negatives


@pytest.mark.parametrize("variant", ["longer", "uniform", "simans"])
def test_what_goes_on_after_ar2_begins_with_its_last_round(variant: str) -> None:
    stages = {stage.name: stage for stage in recipe("simans_ar2").stages}
    last = max(int(name.removeprefix("ar2_run_")) for name in stages if "ar2_run_" in name)
    joint, pools = stages[f"joint_{variant}_1"].inputs, stages[f"pools_{variant}_1"].inputs
    assert joint["retriever"] == (f"ar2_retriever_{last}",)
    assert joint["ranker"] == (f"ar2_ranker_{last}",)
    assert pools["candidates"] == (f"ar2_run_{last}",)
    assert pools["embeddings"] == (f"ar2_vectors_{last}",)
    assert joint["lists"] == (f"pools_{variant}_1",)


def test_halves_are_scored_by_what_was_trained_on_the_other() -> None:
    stages = {stage.name: stage for stage in recipe("simans_cross_fitting").stages}
    pool = stages["cross_pools"]
    for number, (candidates, vectors) in enumerate(
        zip(pool.inputs["candidates"], pool.inputs["embeddings"], strict=True), 1
    ):
        assert stages[candidates].inputs["embeddings"] == (vectors,)
        inside = stages[candidates].params.fold
        (retriever,) = stages[vectors].inputs["retriever"]
        (lists,) = stages[retriever].inputs["lists"]
        outside = stages[lists].params.fold
        assert (inside.number, inside.of, inside.keep) == (number, 2, "inside")
        assert (outside.number, outside.of, outside.keep) == (number, 2, "outside")
        # As many passes over half of the lists as M_D0 makes over all.
        assert 2 * stages[retriever].params.max_steps == stages["retriever_0"].params.max_steps
    assert pool.params == stages["pools_1"].params
    assert stages["cross_1"].params == stages["simans_1"].params
    assert ("SimANS, cross-fitted scores", "SimANS, memorised scores") in compared(
        "simans_cross_fitting"
    )


def compared(name: str, evaluation: str = "evaluation") -> list[tuple[str, ...]]:
    (stage,) = (stage for stage in recipe(name).stages if stage.name == evaluation)
    return [tuple(pair) for pair in stage.params.comparisons]


def test_what_a_recipe_is_about_is_compared() -> None:
    assert ("PAIR", "M_D2") in compared("pair")
    assert ("v2", "M_D0") in compared("rocketqav2")
    for run in ("BM25", "M_D2", "v2"):
        pair = (f"{run}, v2's ranker + ranker", f"{run}, M_C + ranker")
        assert pair in compared("rocketqav2", "rankers")
    series = compared("openqa", "series")
    assert {("PAIR", "M_D2, labels above 0.5"), ("v2", "M_D1 from M_D0"), ("v2", "PAIR")} <= {
        *series
    }


@pytest.mark.parametrize("name", ["openqa", "openqa_fraction"])
def test_what_is_compared_learns_from_the_same_lists(name: str) -> None:
    stages = {stage.name: stage for stage in recipe(name).stages}
    pair, same = stages["pair_2_13"], stages["more_13"]
    assert pair.inputs["lists"] == same.inputs["lists"] == ("lists_1_13", "lists_pair_13")
    assert stages["pair_1_13"].inputs["lists"] == ("lists_pair_13",)
    assert stages["control_13"].inputs["lists"] == ("lists_1_13",)
    joint, control = stages["joint_13"].params, stages["control_13"].params
    passages = joint.global_batch_size * (1 + joint.num_negatives)
    assert passages == control.global_batch_size * (1 + control.num_negatives)


def test_a_static_teacher_is_the_ranker_that_the_dynamic_one_starts_as() -> None:
    stages = {stage.name: stage for stage in recipe("rocketqav2_ablations").stages}
    static, dynamic = stages["joint_static_teacher_13"], stages["joint_stable_13"]
    assert static.inputs == dynamic.inputs
    assert static.inputs["ranker"] == ("ranker_warm",)
    warm = stages["ranker_warm"].params
    assert warm.fresh_head
    assert warm.loss == "listwise"
    assert warm.max_steps


def test_lists_without_denoised_ones_are_drawn_from_the_same_ranks() -> None:
    stages = {stage.name: stage for stage in recipe("rocketqav2_ablations").stages}
    with_them, without = stages["lists_hybrid"], stages["lists_undenoised"]
    assert with_them.inputs["candidates"] == without.inputs["candidates"]
    assert with_them.params.depth == without.params.depth
    assert with_them.params.denoised_depth is None


def test_all_queries_are_searched_with_their_positives_left_in() -> None:
    stages = {stage.name: stage for stage in recipe("pair_all_queries").stages}
    lists = stages["lists_pair"]
    assert lists.params.splits == ("unlabelled", "train")
    searched = stages[stages[lists.inputs["candidates"][1]].inputs["candidates"][0]]
    assert searched.params.remove_positives == []


def test_rounds_that_are_done_stay_when_more_are_added() -> None:
    """What is in a stage's key: type, parameters, and what it is wired to."""

    def rounds(count: int) -> dict[str, tuple[str, Params, Mapping[str, tuple[str, ...]]]]:
        names = ["BM25", "base", "M_D0", *(f"round {number}" for number in range(count))]
        settings = [f"repeat.rounds={count}", f"stages.evaluation.params.names={names}"]
        settings.append("stages.evaluation.params.untrained=[BM25]")
        pipeline = read_pipeline(RECIPES / "ance.yaml", registry(), settings)
        return {
            stage.name: (stage.type.name, stage.params, stage.inputs)
            for stage in pipeline.stages
            if stage.name.startswith("ance_")
        }

    few, more = rounds(3), rounds(5)
    assert len(more) == len(few) + 2 * 4
    assert {name: more[name] for name in few} == few


def test_ance_side_by_side_is_the_training_of_the_rounds_in_one() -> None:
    rounds, whole = (
        {stage.name: stage for stage in recipe(name).stages}
        for name in ("ance", "ance_asynchronous")
    )
    assert whole["ance_pools"].inputs == rounds["ance_pools_1"].inputs
    assert whole["ance_pools"].params == rounds["ance_pools_1"].params
    parts = [
        stage.params for name, stage in rounds.items() if name in ("ance_1", "ance_2", "ance_3")
    ]
    own = whole["ance"].params
    assert own.max_steps == sum(part.max_steps for part in parts)
    assert own.refresh.every == parts[0].max_steps
    apart = {"max_steps", "part", "refresh"}
    assert own.model_dump(exclude=apart) == parts[0].model_dump(exclude=apart)
