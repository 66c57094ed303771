"""The stage `report`: everything that is wired is told, and equal inputs give equal files."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from pydantic import ValidationError

from pipeline.artifacts.kinds import DRAW_STUDY, EVALUATION, GRADIENT_STUDY, RETRIEVER
from pipeline.artifacts.reader import Artifact
from pipeline.dag.contract import Mismatch, Resources
from pipeline.stages import registry
from tests.benches import Bench, Made
from tests.reports.test_page import page_of

ODD = "<i>$\\frac$</i> & co"
SYSTEMS = {ODD: 0.5, "ours 1": 0.6, "ours 5": 0.75}


def evaluation(bench: Bench, systems=SYSTEMS) -> Artifact:
    values = {
        name: {"RR@10": {"mean": mean, "deviation": 0.0125, "seeds": 3}}
        for name, mean in systems.items()
    }
    names = list(systems)
    comparison = {"first": names[0], "second": names[-1], "difference": 0.1, "low": 0.05}
    comparison |= {"high": 0.2, "adjusted_p_value": 0.01, "verdict": "inconclusive"}
    split = {
        "judged_queries": 11,
        "systems": values,
        "groups": {"half": {"queries": 7, "systems": values}},
        "comparisons": [{**comparison, "reason": "a reason"}],
        "not_compared": [{"first": names[0], "second": "x", "reason": "another reason"}],
    }
    return bench.given(EVALUATION, documents={"metrics.json": {"splits": {"dev": split}}})


def training(bench: Bench, steps: int = 6) -> Artifact:
    rows = [
        {"step": step, "loss": 1 / step, "gradient_norm": 2.0, "rows_per_second": 8.0}
        for step in range(1, steps + 1)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    made = Made("train_retriever", {"global_batch_size": 4}, device="2 x a device")
    return bench.given(RETRIEVER, documents={"training.jsonl": text}, made=made)


def gradients(bench: Bench) -> Artifact:
    columns = {name: [1.0 / (1 + at) for at in range(7)] for name in GRADIENT_STUDY.tables["ranks"]}
    columns |= {"rank": list(range(7)), "queries": [9] * 7}
    document = {"depth": 6, "queries": 9, "temperature": 0.05}
    document["positive_rank"] = {"mean": 3.25, "median": 2.0}
    schema = GRADIENT_STUDY.schema("ranks")
    shards = {"ranks": [pa.table(columns, schema=schema)]}
    return bench.given(GRADIENT_STUDY, shards, {"gradients.json": document})


def draws(bench: Bench) -> Artifact:
    one = {"share": 0.125, "low": 0.1, "high": 0.2, "drawn": 80, "false_negatives": 10}
    one |= {"queries_with_false_negatives": 0.5, "pool_size": 4.0, "effective_size": 2.5}
    document = {"judge": "answers", "num_negatives": 2, "epochs": 3, "queries": 9}
    document["systems"] = {ODD: {**one, "mean_rank": 1.5}, "lists": {**one, "mean_rank": None}}
    asked = {"query_index": 3, "query_id": "q3", "text": f"what is {ODD}?", "positive": 1}
    document["sampled"] = [asked]
    columns = {
        "system": [ODD] * 3,
        "query_index": [3] * 3,
        "rank": [1, 2, 3],
        "probability": [0.5, 0.25, 0.25],
        "inclusion": [0.9, 0.6, 0.5],
        "positive_rank": [2] * 3,
    }
    empty = {name: [] for name in DRAW_STUDY.tables["shares"]}
    tables = {
        "shares": [pa.table(empty, schema=DRAW_STUDY.schema("shares"))],
        "probabilities": [pa.table(columns, schema=DRAW_STUDY.schema("probabilities"))],
    }
    return bench.given(DRAW_STUDY, tables, {"draws.json": document})


CURVE = {
    "title": f"curve of {ODD}",
    "x_label": f"number of {ODD}",
    "series": {"ours": {5.0: "ours 5", 1.0: "ours 1"}, "one": {1.0: ODD}},
}


def wired(bench: Bench):
    inputs = {
        "evaluations": [evaluation(bench)],
        "trainings": [training(bench), training(bench, 3)],
        "gradients": [gradients(bench)],
        "draws": [draws(bench)],
    }
    names = {
        slot: [f"{slot} {number} {ODD}" for number in range(len(many))]
        for slot, many in inputs.items()
    }
    return {"title": f"Report on {ODD}", "names": names, "curves": [CURVE]}, inputs


FIGURES = ["curve-1", "draws-1-probabilities", "draws-1-shares", "gradients-1"]
FIGURES += ["step-times", "training"]


def test_everything_that_is_wired_is_told(bench: Bench) -> None:
    params, inputs = wired(bench)
    made = bench.run("report", params, **inputs)
    text = made.text("report.html")
    page = page_of(text)
    words = "\n".join(page.words)
    told = [params["title"], CURVE["title"], CURVE["x_label"], f"what is {ODD}?"]
    told += [name for names in params["names"].values() for name in names]
    # The evaluated, the drawn, the trained, the gradient's rank, in this order.
    told += ["0.500 ± 0.013", "a reason", "another reason", "12.50% [10.00%, 20.00%]"]
    told += ["500 [500, 500]", "2 x a device", "3.2 in the mean"]
    assert [one for one in told if one not in words] == []
    assert ODD not in text and page.tags.count("img") == len(FIGURES) == text.count("<figcaption>")
    folder = made.folder("figures")
    files = sorted(path.name for path in folder.iterdir())
    assert files == sorted(f"{name}.{suffix}" for name in FIGURES for suffix in ("png", "svg"))
    assert all(f"`{name}`" in made.text("report.md") for name in FIGURES)
    outcome = bench.outcome(made)
    assert (outcome.rows_in, outcome.rows_out, outcome.counts["figures"]) == (5, 5, 6)


def test_the_numbers_are_told_as_they_are(bench: Bench) -> None:
    params, inputs = wired(bench)
    document = bench.run("report", params, **inputs).document("report.json")
    assert document["title"] == params["title"]
    points = document["curves"][0]["series"]
    assert [(point["x"], point["mean"]) for point in points["ours"]] == [(1, 0.6), (5, 0.75)]
    assert points["one"][0]["deviation"] == 0.0125
    first, second = document["trainings"].values()
    assert first["milliseconds_per_step"]["median"] == 500 and second["steps"] == 3
    for slot, names in params["names"].items():
        assert list(document["artifacts"][slot]) == names
    (study,) = document["gradients"].values()
    assert study["ranks"]["rank"] == list(range(7)) and study["depth"] == 6
    (study,) = document["draws"].values()
    assert study["systems"][ODD]["share"] == 0.125


def test_equal_inputs_give_equal_files(tmp_path) -> None:
    digests = []
    for name in ("one", "other"):
        bench = Bench(str(tmp_path / name))
        params, inputs = wired(bench)
        files = bench.run("report", params, **inputs).manifest.files
        digests.append(sorted((file.part, file.name, file.sha256) for file in files))
    assert digests[0] == digests[1] and len(digests[0]) == 3 + 2 * len(FIGURES)


def test_evaluations_alone_need_no_figures(bench: Bench) -> None:
    params = {"names": {"evaluations": ["ladder"]}}
    made = bench.run("report", params, evaluations=[evaluation(bench)])
    assert not made.has("figures") and "ladder" in made.text("report.html")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"series": {"a": {1.0: "our 1"}}}, "no system 'our 1' was evaluated on dev: there are <i"),
        ({"measure": "RR@9"}, "'ours 1' has no RR@9 on dev: there are RR@10"),
        ({"split": "test"}, "no system 'ours 1' was evaluated on test: there are none"),
    ],
)
def test_curves_of_what_was_not_evaluated(bench: Bench, change, message: str) -> None:
    params = {"names": {"evaluations": ["ladder"]}, "curves": [{**CURVE, **change}]}
    with pytest.raises(ValueError) as caught:
        bench.run("report", params, evaluations=[evaluation(bench)])
    assert message in str(caught.value)


def test_tables_without_columns_are_refused(bench: Bench) -> None:
    params = {"names": {"evaluations": ["ladder"]}, "shown": ["RR@77"]}
    with pytest.raises(Mismatch, match="'ladder' has nothing of `shown`, RR@77: there are RR@10"):
        bench.run("report", params, evaluations=[evaluation(bench)])


def test_a_system_of_two_evaluations_has_to_be_the_same(bench: Bench) -> None:
    params = {"names": {"evaluations": ["one", "two"]}, "curves": [CURVE]}
    alike = [evaluation(bench), evaluation(bench)]
    assert bench.run("report", params, evaluations=alike).has("figures")
    unlike = [evaluation(bench), evaluation(bench, {"ours 1": 0.1})]
    with pytest.raises(ValueError, match="several evaluations with unlike values"):
        bench.run("report", params, evaluations=unlike)


def test_what_was_not_trained_has_no_steps(bench: Bench) -> None:
    never = bench.given(RETRIEVER, made=Made("initial_retriever"))
    with pytest.raises(ValueError, match="wire to `trainings` what was trained"):
        bench.run("report", {"names": {"trainings": ["a"]}}, trainings=[never])


@pytest.mark.parametrize(
    ("params", "inputs", "message"),
    [
        ({}, {}, "there is nothing to report: wire evaluations, trainings, gradients or draws"),
        ({}, {"draws": 2}, "2 draws are wired and 0 names given below `names`"),
        (
            {"names": {"trainings": ["a"]}, "curves": [CURVE]},
            {"trainings": 1},
            "`curves` are of evaluated systems",
        ),
    ],
)
def test_what_does_not_fit_together(params, inputs, message: str) -> None:
    read = registry()["report"].params.model_validate
    (found,) = read(params).mismatches(inputs, Resources())
    assert message in found


def test_names_are_told_apart() -> None:
    read = registry()["report"].params.model_validate
    with pytest.raises(ValidationError, match="'a' is given twice"):
        read({"names": {"draws": ["a", "a"]}})


def test_the_numbers_of_a_curve_can_be_written_in_a_file() -> None:
    params = registry()["report"].params
    text = json.dumps({"curves": [{**CURVE, "series": {"a": {"-0.5": "x", "3": "y"}}}]})
    assert params.model_validate_json(text).curves[0].series == {"a": {-0.5: "x", 3.0: "y"}}
