from __future__ import annotations

import numpy as np
import pytest

from pipeline.methods.lists import PassageLists
from pipeline.methods.metrics import Qrels, measure
from pipeline.methods.mixing import choose_weight, mixed, normalised

LISTS = PassageLists.from_rows([0, 1, 2, 3], [[1, 2, 3], [], [4, 5], [6, 7]])
SCORES = np.array([2.0, 4.0, 10.0, -1.0, 3.0, 5.0, 5.0], dtype=np.float32)


def test_min_max_brings_each_list_to_the_unit_interval():
    expected = [0.0, 0.25, 1.0, 0.0, 1.0, 0.0, 0.0]
    assert normalised(LISTS, SCORES, "min_max") == pytest.approx(expected)


def test_z_scores_have_mean_zero_and_deviation_one_in_each_list():
    values = normalised(LISTS, SCORES, "z_score")
    for part in (values[:3], values[3:5]):
        assert part.mean() == pytest.approx(0.0)
        assert part.std() == pytest.approx(1.0)
    assert values[5:].tolist() == [0.0, 0.0]


def test_unknown_normalisation_is_refused():
    with pytest.raises(ValueError, match="unknown normalisation"):
        normalised(LISTS, SCORES, "softmax")  # type: ignore[arg-type]


def test_ends_of_the_scale_are_the_retriever_and_the_ranker():
    ranker = -SCORES
    for weight, alone in ((0.0, SCORES), (1.0, ranker)):
        values = mixed(LISTS, SCORES, ranker, weight)
        assert (LISTS.ordered_by(values) == LISTS.ordered_by(alone)).all()
    assert mixed(LISTS, SCORES, ranker, 0.5) == pytest.approx([0.5] * 5 + [0.0, 0.0])


def test_the_weight_is_the_best_of_the_grid_on_the_given_measure():
    """Each model fails on one query; only a mix that leans to neither puts both positives first."""
    lists = PassageLists.from_rows([0, 1], [[0, 1, 2], [3, 4, 5]])
    retriever = np.array([0.9, 1.0, 0.0, 1.0, 0.0, 0.2])
    ranker = np.array([5.0, 0.0, 1.0, 4.0, 5.0, 0.0])
    qrels = Qrels(
        np.array([0, 1], np.int32), np.array([0, 3], np.int32), np.array([1, 1], np.int32)
    )

    def quality(ranking: PassageLists) -> float:
        return float(measure(ranking, qrels, ranking.query_indices, ["RR@10"])["RR@10"].mean())

    choice = choose_weight(lists, retriever, ranker, quality)
    assert choice.values[choice.weight] == 1.0
    assert choice.values[0.0] == choice.values[1.0] == 0.75
    best = min(weight for weight, value in choice.values.items() if value == 1.0)
    assert choice.weight == best == 0.1
