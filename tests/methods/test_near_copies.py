from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.methods.lists import PassageLists
from pipeline.methods.near_copies import jaccard, near_copies, shingles

TOKENS = st.lists(st.integers(0, 5), max_size=20)


@given(left=TOKENS, right=TOKENS)
@example(left=[], right=[1, 1])
def test_jaccard_equals_that_of_sets_of_runs(left: list[int], right: list[int]) -> None:
    def runs(tokens: list[int]) -> set[tuple[int, ...]]:
        padded = tokens + [-1] * (3 - len(tokens))
        return {tuple(padded[start : start + 3]) for start in range(len(padded) - 2)}

    expected = len(runs(left) & runs(right)) / len(runs(left) | runs(right))
    found = jaccard(*(shingles(np.array(one, np.int32), 3) for one in (left, right)))
    assert found == pytest.approx(expected)


def test_near_copies_of_any_positive() -> None:
    texts = {
        1: list(range(100)),
        2: [*range(99), 7],
        3: [*range(50), *range(500, 550)],
        4: list(range(1000, 1100)),
        5: list(range(1000, 1100)),
    }
    lists = PassageLists.from_rows([0, 1], [[2, 3, 4], [2, 5]])
    positives = PassageLists.from_rows([0, 1], [[1, 5], []])
    found = near_copies(lists, positives, lambda p: np.array(texts[p], np.int32), 0.8)
    assert found.tolist() == [True, False, True, False, False]


def test_short_texts_have_hashes_of_their_own() -> None:
    texts = [[], *([a] for a in range(120)), *([a, b] for a in range(120) for b in range(120))]
    hashes = [shingles(np.array(text, np.int32), 3).item() for text in texts]
    assert len(set(hashes)) == len(texts)
