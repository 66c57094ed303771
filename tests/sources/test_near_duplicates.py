from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sources.near_duplicates import jaccard, near_duplicate_pairs, normalise, shingles

# Few words and long runs of equal ones: many texts share much.
TEXTS = st.lists(st.lists(st.sampled_from(["a", "b", "c"]), max_size=14).map(" ".join), max_size=12)


@settings(max_examples=50, deadline=None)
@given(TEXTS, st.sampled_from([0.3, 0.5, 0.8, 1.0]), st.integers(1, 3))
def test_finds_exactly_what_comparing_all_pairs_finds(
    texts: list[str], threshold: float, width: int
) -> None:
    expected = [
        (left, right)
        for left, right in combinations(range(len(texts)), 2)
        if jaccard(shingles(texts[left], width), shingles(texts[right], width)) >= threshold
    ]
    assert near_duplicate_pairs(texts, threshold, width) == expected


def test_threshold_is_met_by_equality() -> None:
    # 9, 8 and 7 words have 5, 4 and 3 runs of five words: 4 / 5 is just enough, 3 / 4 is not.
    texts = ["1 2 3 4 5 6 7 8 9", "1 2 3 4 5 6 7 8", "1 2 3 4 5 6 7"]
    assert near_duplicate_pairs(texts, 0.8, 5) == [(0, 1)]


def test_normalise_ignores_case_space_punctuation_and_width() -> None:
    assert normalise("  Return the\n`List`, (ﬁrst)! ") == "return the list first"


@pytest.mark.parametrize("threshold", [0.0, 1.1])
def test_refuses_a_threshold_that_means_nothing(threshold: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        near_duplicate_pairs([], threshold)
