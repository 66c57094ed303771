from __future__ import annotations

import pytest

from pipeline.methods.answers import contains, first_matches, matching, tokens
from pipeline.methods.lists import PassageLists


def test_tokens_are_runs_of_letters_digits_and_marks_or_single_symbols():
    assert tokens("The U.S. cost $3,000—twice!") == [
        "the", "u", ".", "s", ".", "cost", "$", "3", ",", "000", "—", "twice", "!",
    ]  # fmt: skip
    # Decomposed: the accent is a mark and stays inside its word.
    assert tokens("Café\u00a0Zoë\t") == ["cafe\u0301", "zoe\u0308"]
    assert tokens(" \n\u200b\x00") == []


@pytest.mark.parametrize(
    ("text", "answers", "expected"),
    [
        ("He was born in New York City.", ["new york"], True),
        ("He was born in New  York.", ["New York"], True),
        ("The newyorker", ["new york"], False),
        ("a cat concatenates", ["cat con"], False),
        ("a cat concatenates", ["cat"], True),
        ("concatenates", ["cat"], False),
        ("In 1,000 years", ["1000"], False),
        ("In 1,000 years", ["1,000"], True),
        ("Beyonc\u00e9 sang", ["BEYONCE\u0301"], True),
        ("Beyonc\u00e9 sang", ["Beyonce"], False),
        ("ends with York", ["york."], False),
        ("anything", ["", "  "], False),
        ("second answer", ["first", "second answer"], True),
    ],
)
def test_an_answer_matches_as_a_token_sequence(text: str, answers: list[str], expected: bool):
    assert contains(text, answers) is expected


def test_first_match_is_found_once_per_query_and_answerless_queries_are_excluded():
    texts = {0: "nothing here", 1: "Paris is in France", 2: "Lyon", 3: "in france"}
    read: list[int] = []

    def passage_text(passage: int) -> str:
        read.append(passage)
        return texts[passage]

    ranking = PassageLists.from_rows([5, 6, 7, 8, 9], [[0, 1, 3], [1, 2], [0, 2], [], [3, 1, 2]])
    answers = [["France"], [], ["London", "Rome"], ["Paris"], [" "]]
    found = first_matches(ranking, answers, passage_text, depth=2)
    assert found.query_indices.tolist() == [5, 7, 8]
    assert found.ranks.tolist() == [2, 0, 0]
    assert found.excluded == 2
    assert found.at(1).tolist() == [0, 0, 0]
    assert found.at(2).tolist() == [1, 0, 0]
    assert sorted(read) == [0, 1, 2]


def test_matching_marks_every_passage_with_an_answer() -> None:
    lists = PassageLists.from_rows([0, 1, 2], [[0, 1, 2], [1], [0]])
    texts = ["Big Ben strikes", "a big bend", "ben, BIG BEN!"]
    found = matching(lists, [["Big Ben"], ["bend"], []], texts.__getitem__)
    assert found.tolist() == [True, False, True, True, False]
