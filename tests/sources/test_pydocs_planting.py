from __future__ import annotations

from collections import Counter

import pytest

from pipeline.sources.pydocs_division import Collection
from pipeline.sources.pydocs_params import PydocsParams
from pipeline.sources.pydocs_planting import plant
from pipeline.sources.pydocs_text import sentences
from pipeline.sources.records import Judgement, Pair, Passage, Query

LONG = "First it opens. Then it reads. It checks the sum. At last it closes."


def collection() -> Collection:
    return Collection(
        passages=[Passage("a", "mod.a", LONG), Passage("b", "mod.b", "One. Two sentences only.")],
        queries=[
            Query("q-a", "how a file is read", "train"),
            Query("q-same", "reading a file", "train"),
            Query("q-b", "what b does", "train"),
            Query("q-dev", "asked on dev", "dev"),
        ],
        judgements=[
            Judgement("q-a", "a", 1),
            Judgement("q-same", "a", 1),
            Judgement("q-b", "b", 1),
            Judgement("q-dev", "a", 1),
        ],
        excluded=[],
        hidden=[Pair("q-old", "b")],
        counts=Counter(),
    )


def test_a_planted_passage_has_every_other_sentence_and_answers_all_queries_of_its_original():
    before = collection()
    found = plant(before, 1.0, seed=3)
    planted = found.passages[len(before.passages) :]
    assert [tuple(each[:3]) for each in planted] == [
        ("a#planted", "mod.a", "Then it reads. At last it closes.")
    ]
    assert found.passages[:2] == before.passages and found.judgements == before.judgements
    assert {pair[:2] for pair in found.hidden} == {
        ("q-old", "b"),
        ("q-a", "a#planted"),
        ("q-same", "a#planted"),
        ("q-dev", "a#planted"),
    }
    assert found.counts["planted false negatives"] == 1


def test_the_share_is_of_the_queries_with_long_passages():
    passages = [Passage(f"p{n}", "", LONG) for n in range(40)]
    many = collection()._replace(
        passages=passages,
        queries=[Query(f"q{n}", f"query {n}", "train") for n in range(40)],
        judgements=[Judgement(f"q{n}", f"p{n}", 1) for n in range(40)],
    )
    found = plant(many, 0.25, seed=0)
    assert len(found.passages) == 50
    assert plant(many, 0.25, seed=0).passages == found.passages
    assert plant(many, 0.25, seed=1).passages != found.passages


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", []), ("no end", ["no end"]), ("See e.g. A. Then B.", ["See e.g. A.", "Then B."])],
)
def test_sentences(text, expected):
    assert sentences(text) == expected


def test_without_planting_it_is_in_no_key():
    assert "planted_share" not in PydocsParams().model_dump(mode="json")
    assert PydocsParams(planted_share=0.5).model_dump(mode="json")["planted_share"] == 0.5
