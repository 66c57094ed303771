from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.methods.lists import PassageLists
from pipeline.methods.pseudo_labels import pseudo_labels

SHARES = st.sampled_from([0.0, 0.05, 0.1, 0.5, 0.9, 0.91, 0.99])
# Below which a negative is sure, and above which a positive is.
THRESHOLDS = st.sampled_from([(0.1, 0.9), (0.05, 0.9), (0.5, 0.9), (0.1, 0.5), (0.1, 0.91)])


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(st.lists(SHARES, max_size=10), min_size=1, max_size=6),
    depth=st.integers(1, 8),
    n=st.integers(1, 4),
    thresholds=THRESHOLDS,
)
def test_labels_follow_a_literal_reading_of_step_4(
    rows: list[list[float]], depth: int, n: int, thresholds: tuple[float, float]
):
    below, above = thresholds
    candidates = PassageLists.from_rows(range(len(rows)), [range(len(row)) for row in rows])
    flat = np.array([value for row in rows for value in row], dtype=np.float64)
    expected: dict[int, tuple[int, list[int]]] = {}
    for query, row in enumerate(rows):
        seen = row[:depth]
        if not seen:
            continue
        best = max(range(len(seen)), key=lambda place: (seen[place], -place))
        negatives = [place for place, value in enumerate(seen) if value < below][:n]
        if seen[best] > above and negatives:
            expected[query] = (best, negatives)
    result = pseudo_labels(
        candidates, flat, num_negatives=n, negative_below=below, positive_above=above, depth=depth
    )
    got = {
        query: (int(positive), negatives.tolist())
        for positive, (query, negatives) in zip(result.positives, result.negatives, strict=True)
    }
    assert got == expected
    assert len(got) + sum(result.dropped.values()) == len(rows)
    missing = [n - len(negatives) for _, negatives in expected.values()]
    assert result.counts == {
        "negatives_missing": sum(missing),
        "queries_short": sum(each > 0 for each in missing),
    }


def test_reasons_and_confidence_are_reported():
    candidates = PassageLists.from_rows([3, 4, 5, 6], [[10, 11, 12], [20, 21], [30, 31], []])
    probabilities = np.array([0.05, 0.97, 0.02, 0.9, 0.0, 0.95, 0.1])
    result = pseudo_labels(candidates, probabilities, num_negatives=2)
    assert result.negatives.query_indices.tolist() == [3]
    assert result.positives.tolist() == [11]
    assert result.confidence.tolist() == [0.97]
    assert result.negatives.passage_indices.tolist() == [10, 12]
    assert result.dropped == {"no sure positive": 1, "no sure negative": 1, "no candidates": 1}


def test_mistakes_are_refused():
    candidates = PassageLists.from_rows([0], [[1, 2]])
    with pytest.raises(ValueError, match="lies above"):
        pseudo_labels(candidates, np.zeros(2), negative_below=0.9, positive_above=0.1)
    with pytest.raises(ValueError, match="without ranker score"):
        pseudo_labels(candidates, np.array([0.95, np.nan]))
