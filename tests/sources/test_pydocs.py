from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.sparse import csr_array

from pipeline.sources import pydocs
from pipeline.sources.near_duplicates import normalise, shingles
from pipeline.sources.pydocs import (
    PydocsParams,
    PydocsSource,
    package_names,
)
from pipeline.sources.pydocs_division import Collection, divide, entries
from pipeline.sources.pydocs_extract import Docstring, SourceFile
from pipeline.sources.records import DataError, Judgement, Pair, Problems

SIDES = ("train", "validation", "dev")


@pytest.fixture(scope="module")
def default() -> Collection:
    return PydocsSource(PydocsParams(), Problems()).collection


def generated_docstrings() -> list[Docstring]:
    """600 docstrings in 60 modules with equal summaries, copies and shared names across modules."""
    draw = random.Random(7)
    words = [f"word{number}" for number in range(2000)]
    bodies = [draw.choices(words, k=30) for _ in range(500)]
    docstrings = []
    for number in range(600):
        summary = " ".join([*draw.choices(words[:40], k=2), "does", "it"])
        body = list(bodies[number % 500])
        if draw.random() < 0.5:
            body[-1] = "changed"
        if draw.random() < 0.3:
            body = []
        module = f"pack.module{draw.randrange(60)}"
        text = f"{summary.capitalize()}.\n\n{' '.join(body)}"
        docstrings.append(Docstring(f"{module}.name{draw.randrange(300)}", module, text))
    return docstrings


@pytest.fixture(scope="module")
def generated() -> Collection:
    counts: Counter[str] = Counter()
    params = PydocsParams(max_passages=300, dev_share=0.2, validation_share=0.1)
    return divide(entries(generated_docstrings(), counts), params, counts)


@pytest.fixture(params=["default", "generated"])
def collection(request: pytest.FixtureRequest) -> Collection:
    found: Collection = request.getfixturevalue(request.param)
    return found


def labels(collection: Collection) -> list[tuple[str, str, str]]:
    """(side, query text, passage id) of all labels, hidden ones on the training side."""
    texts = {query.query_id: query for query in collection.queries}
    pairs = [*collection.judgements, *collection.hidden]
    return [
        (
            texts[pair.query_id].split.replace("unlabelled", "train"),
            texts[pair.query_id].text,
            pair.passage_id,
        )
        for pair in pairs
    ]


def test_sides_share_no_query_and_no_passage(collection: Collection) -> None:
    passages = {passage.passage_id: passage for passage in collection.passages}
    for part in (
        lambda text, _: normalise(text),
        lambda _, passage: normalise(passages[passage].text),
    ):
        sides = {
            side: {part(text, passage) for own, text, passage in labels(collection) if own == side}
            for side in SIDES
        }
        assert all(sides.values())
        assert len(set.union(*sides.values())) == sum(map(len, sides.values()))


def test_sides_share_no_near_copy(collection: Collection) -> None:
    # All similarities at once, as products of sparse matrices: not the way the code goes.
    texts = {passage.passage_id: passage.text for passage in collection.passages}
    column: dict[tuple[str, ...], int] = {}
    rows, matrices = {}, {}
    for side in SIDES:
        own = sorted({passage for at, _, passage in labels(collection) if at == side})
        rows[side] = [
            [column.setdefault(run, len(column)) for run in shingles(texts[passage])]
            for passage in own
        ]
    for side, runs in rows.items():
        ends = np.cumsum([0, *map(len, runs)])
        shape = (len(runs), len(column))
        matrices[side] = csr_array((np.ones(ends[-1]), np.concatenate(runs), ends), shape=shape)
    for one, other in (("train", "validation"), ("train", "dev"), ("validation", "dev")):
        shared = (matrices[one] @ matrices[other].T).toarray()
        sizes = matrices[one].sum(axis=1)[:, None] + matrices[other].sum(axis=1)[None, :]
        assert (shared / (sizes - shared)).max() < 0.8


def test_sides_share_no_last_name_and_no_module(generated: Collection) -> None:
    # A docstring is known again by its two texts. Hidden labels are left aside: they hold what was
    # cut off from unlabelled queries, too.
    queries = {query.query_id: query for query in generated.queries}
    texts = {passage.passage_id: normalise(passage.text) for passage in generated.passages}
    side_of = {
        (normalise(query.text), texts[label.passage_id]): query.split
        for label in generated.judgements
        for query in [queries[label.query_id]]
    }
    names: dict[str, set[str]] = {}
    modules: dict[str, set[str]] = {}
    for docstring in generated_docstrings():
        summary, _, body = docstring.text.partition("\n\n")
        side = side_of.get((normalise(summary), normalise(body)))
        if side is not None:
            names.setdefault(docstring.name.rpartition(".")[2], set()).add(side)
            modules.setdefault(docstring.module, set()).add(side)
    assert set.union(*names.values()) == set(SIDES)
    assert all(len(sides) == 1 for sides in names.values())
    assert all(len(sides) == 1 for sides in modules.values())


def test_unlabelled_queries_are_no_text_of_another_split(collection: Collection) -> None:
    texts = Counter(normalise(query.text) for query in collection.queries)
    assert max(texts.values()) == 1


def test_a_third_of_the_training_queries_loses_its_labels(collection: Collection) -> None:
    split = {query.query_id: query.split for query in collection.queries}
    hidden = {pair.query_id for pair in collection.hidden}
    train = {label.query_id for label in collection.judgements if split[label.query_id] == "train"}
    assert len(hidden) == round((len(hidden) + len(train)) / 3)
    assert {split[query] for query in hidden} == {"unlabelled"}
    assert "unlabelled" not in {split[label.query_id] for label in collection.judgements}
    one_line = [query for query in collection.queries if split[query.query_id] == "unlabelled"]
    assert len(one_line) > len(hidden)


def test_ids_are_unique_and_known(collection: Collection) -> None:
    passages = [passage.passage_id for passage in collection.passages]
    queries = [query.query_id for query in collection.queries]
    assert len(set(passages)) == len(passages)
    assert len(set(queries)) == len(queries)
    known = {*passages, *queries}
    for pair in [*collection.judgements, *collection.hidden, *collection.excluded]:
        assert pair.passage_id in known
        assert pair.query_id in known
    assert not any(" " in name for name in passages + queries)


def test_summary_is_left_out_of_its_passage(collection: Collection) -> None:
    passages = {passage.passage_id: normalise(passage.text) for passage in collection.passages}
    for _, text, passage in labels(collection):
        assert f" {normalise(text)} " not in f" {passages[passage]} "
        assert len(normalise(text).split()) >= 4
        assert len(passages[passage].split()) >= 8


def test_default_has_the_sizes_of_the_default_run(default: Collection) -> None:
    splits = Counter(query.split for query in default.queries)
    assert 2500 <= len(default.passages) <= 4000
    assert splits["train"] >= 800
    assert splits["dev"] >= 500
    assert splits["validation"] >= 150
    assert splits["unlabelled"] >= 1000
    tops = {passage.title.split(".")[0] for passage in default.passages}
    assert {"numpy", "pandas", "scipy", "json", "argparse"} <= tops


def collect(docstrings: list[Docstring], **params: object) -> Collection:
    counts: Counter[str] = Counter()
    shares = {"dev_share": 0.0, "validation_share": 0.0, "hidden_share": 0.0}
    chosen = PydocsParams.model_validate(shares | params)
    return divide(entries(docstrings, counts), chosen, counts)


BODY = "Some words that say how it is done in the end."


def test_equal_queries_become_one_and_equal_bodies_too() -> None:
    found = collect(
        [
            Docstring("a.one", "a", f"Read the whole file.\n\n{BODY}"),
            Docstring("b.two", "b", f"Read  the WHOLE file\n\nAnother: {BODY}"),
            Docstring("c.three", "c", f"Something else altogether here.\n\n{BODY.upper()}"),
        ]
    )
    assert [query.text for query in found.queries] == [
        "Read the whole file.",
        "Something else altogether here.",
    ]
    assert [passage.passage_id for passage in found.passages] == ["a.one", "b.two"]
    assert found.judgements == [
        Judgement("q-a.one", "a.one", 1),
        Judgement("q-a.one", "b.two", 1),
        Judgement("q-c.three", "a.one", 1),
    ]


def test_what_is_left_out_is_counted() -> None:
    found = collect(
        [
            Docstring("a.one", "a", "Too short."),
            Docstring("a.two", "a", f"Read the whole %(what)s.\n\n{BODY}"),
            Docstring("a.three", "a", f"Read the whole file.\n\nRead the whole file. {BODY}"),
            Docstring("a.four", "a", f"Short one.\n\n{BODY}"),
            Docstring("a.five", "a", "Only with an example.\n\n>>> a b c d e f g h i j k"),
            Docstring("a.six", "a", "Only with AN example"),
        ]
    )
    assert [passage.title for passage in found.passages] == ["a.three", "a.four"]
    assert [(query.text, query.split) for query in found.queries] == [
        ("Only with an example.", "unlabelled")
    ]
    assert +found.counts == {
        "docstrings too short": 1,
        "templated docstrings": 1,
        "summaries repeated in the body": 1,
        "one-line docstrings with the text of another query": 1,
    }


def test_a_training_query_excludes_its_answers_on_other_sides() -> None:
    # Two modules share one query: with one of them on the dev side, its answer there is cut off.
    docstrings = [
        Docstring(f"{module}.{name}", module, f"{summary}\n\n{f'{name} ' * 8}")
        for module in "ab"
        for name, summary in [
            (f"shared_{module}", "Read the whole file."),
            (f"own_{module}", f"Only asked in {module}."),
        ]
    ]
    found = collect(docstrings, dev_share=0.5)
    dev = next(query for query in found.queries if query.split == "dev")
    train = next(query for query in found.queries if query.text == "Read the whole file.")
    side = dev.text[-2]
    assert found.excluded == [Pair(train.query_id, f"{side}.shared_{side}")]
    assert len(found.judgements) == 3
    assert found.counts["labelled pairs cut off between sides"] == 1


def test_the_cap_keeps_the_same_passages_whatever_else_there_is() -> None:
    docstrings = generated_docstrings()
    few = {passage.text for passage in collect(docstrings[:300], max_passages=100).passages}
    many = {passage.text for passage in collect(docstrings, max_passages=100).passages}
    every = {passage.text for passage in collect(docstrings[:300], max_passages=None).passages}
    assert len(few) == len(many) == 100
    assert many & every <= few
    other = {passage.text for passage in collect(docstrings, max_passages=100, seed=1).passages}
    assert other != many


def test_a_file_that_does_not_parse_is_named_or_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bad.py"
    path.write_text("\nprint 1\n", encoding="utf-8")
    monkeypatch.setattr(pydocs, "standard_library_files", lambda: [SourceFile(path, "bad")])
    params = PydocsParams(packages=())
    with pytest.raises(DataError, match=r"bad\.py:2: not valid Python"):
        _ = PydocsSource(params, Problems()).collection
    skipping = Problems("skip")
    assert not PydocsSource(params, skipping).collection.passages
    assert skipping.counts == {"not valid Python": 1}


def test_parameters_are_strict_but_take_lists() -> None:
    params = PydocsParams.model_validate({"format": "pydocs", "packages": ["scipy", "numpy"]})
    assert package_names(params) == ("numpy", "scipy")
    for bad in ({"package": []}, {"max_passages": "10"}, {"max_passages": 0}, {"packages": [1]}):
        with pytest.raises(ValidationError):
            PydocsParams.model_validate(bad)
    with pytest.raises(ValidationError, match="nothing to train on"):
        PydocsParams(dev_share=0.6, validation_share=0.4)


def test_streams_agree_with_the_collection(default: Collection) -> None:
    source = PydocsSource(PydocsParams(), Problems())
    source.__dict__["collection"] = default
    streams = (source.passages, source.queries, source.judgements, source.excluded, source.hidden)
    for stream, expected in zip(streams, default, strict=False):
        assert list(stream()) == expected
    assert not list(source.answers())
    assert not list(source.negatives())
