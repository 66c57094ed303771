from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.methods.filters import KnownPairs
from pipeline.methods.hybrid import WholeLists, denoised_lists, undenoised_lists
from pipeline.methods.lists import PassageLists

SHARES = st.sampled_from([0.0, 0.05, 0.1, 0.5, 0.9, 0.95])
# Below which a negative is sure, and above which a positive is.
THRESHOLDS = st.sampled_from([(0.1, 0.9), (0.05, 0.9), (0.5, 0.9), (0.1, 0.5), (0.1, 0.95)])
POSITIVES = PassageLists.from_rows([0, 1, 2], [[100], [101, 102], [103]])
KNOWN = KnownPairs.of((POSITIVES.queries, POSITIVES.passage_indices), ([0], [1]))


def as_dict(lists: WholeLists) -> dict[int, tuple[int, list[int]]]:
    assert lists.positives.query_indices.tolist() == lists.negatives.query_indices.tolist()
    return {
        query: (int(positive[0]), negatives.tolist())
        for (query, positive), (_, negatives) in zip(lists.positives, lists.negatives, strict=True)
    }


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.lists(SHARES, max_size=12), min_size=4, max_size=4),
    depth=st.integers(1, 10),
    n=st.integers(1, 4),
    thresholds=THRESHOLDS,
    seed=st.integers(0, 5),
)
def test_lists_follow_a_literal_reading(
    rows: list[list[float]], depth: int, n: int, thresholds: tuple[float, float], seed: int
):
    # Query 3 has no positive; passage 1 is known for query 0; candidate ranks are passage numbers.
    candidates = PassageLists.from_rows(range(4), [range(len(row)) for row in rows])
    flat = np.array([value for row in rows for value in row], dtype=np.float64)
    plain = undenoised_lists(candidates, POSITIVES, KNOWN, num_negatives=n, depth=depth, seed=seed)
    below, above = thresholds
    clean = denoised_lists(
        candidates,
        flat,
        POSITIVES,
        KNOWN,
        num_negatives=n,
        depth=depth,
        negative_below=below,
        positive_above=above,
        seed=seed,
    )
    labelled = {0: {100}, 1: {101, 102}, 2: {103}}
    for result, denoised in ((plain, False), (clean, True)):
        lists = as_dict(result)
        assert len(lists) + sum(result.dropped.values()) == 4
        by_ranker = 0
        for query, row in enumerate(rows):
            seen = [p for p in range(min(depth, len(row))) if (query, p) != (0, 1)]
            usable = {p for p in seen if not denoised or row[p] < below}
            own = labelled.get(query, set())
            options = own | {p for p in seen if denoised and row[p] > above}
            if not options or len(usable) < n:
                assert query not in lists
                continue
            positive, negatives = lists[query]
            assert positive in options
            by_ranker += positive not in own
            assert len(negatives) == n and set(negatives) <= usable
            assert negatives == sorted(set(negatives))
        assert result.counts == {"positives_by_the_ranker": by_ranker}


def test_positives_and_negatives_are_drawn_uniformly():
    candidates = PassageLists.from_rows([1], [range(6)])
    probabilities = np.array([0.0, 0.95, 0.0, 0.0, 0.5, 0.0])
    positives, negatives = [], []
    for seed in range(0, 6000, 2):
        lists = denoised_lists(
            candidates, probabilities, POSITIVES, KNOWN, num_negatives=2, depth=6, seed=seed
        )
        positives.append(int(lists.positives.passage_indices[0]))
        negatives += lists.negatives.passage_indices.tolist()
    drawn = dict(zip(*np.unique(positives, return_counts=True), strict=True))
    assert drawn.keys() == {1, 101, 102}
    assert all(count == pytest.approx(1000, abs=120) for count in drawn.values())
    taken = dict(zip(*np.unique(negatives, return_counts=True), strict=True))
    assert taken.keys() == {0, 2, 3, 5}
    assert all(count == pytest.approx(1500, abs=140) for count in taken.values())


def test_reasons_are_reported_and_unscored_candidates_refused():
    candidates = PassageLists.from_rows([0, 2, 3], [[5, 6, 7], [8], [9, 10]])
    lists = undenoised_lists(candidates, POSITIVES, KNOWN, num_negatives=2, depth=9, seed=1)
    assert lists.dropped == {"no positive": 1, "fewer than 2 negatives": 1}
    with pytest.raises(ValueError, match="no ranker score"):
        denoised_lists(
            candidates, np.full(6, np.nan), POSITIVES, KNOWN, num_negatives=2, depth=9, seed=1
        )
