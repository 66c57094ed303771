"""The four steps on a world whose false negatives are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import mannwhitneyu

from pipeline.stages import tables
from tests.end_to_end.runs import Run

DEPTH = 20
GOAL = 0.8
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Judged:
    """Every scored candidate with the truth about it; arrays of one entry a candidate.

    Attributes:
        relevant: of the query's topic and key, whether labelled or not.
        above: ranked above a labelled positive of its query by the retriever.
        kept: among the negatives that denoising leaves.
    """

    split: npt.NDArray[np.str_]
    rank: npt.NDArray[np.int64]
    logit: npt.NDArray[np.float32]
    relevant: Mask
    above: Mask
    kept: Mask

    @property
    def planted(self) -> Mask:
        """Labelled positives were taken out before: a relevant candidate is a planted one."""
        return (self.split == "train") & self.relevant

    @property
    def hard(self) -> Mask:
        """True hard negatives ranked above the positive."""
        return (self.split == "train") & ~self.relevant & self.above


@pytest.fixture(scope="module")
def judged(planted: Run) -> Judged:
    dataset = planted.artifact("data")
    queries = dataset.read("queries").to_pylist()
    passages = dataset.read("passages")["passage_id"].to_pylist()
    found = tables.Candidates.read(planted.artifact("scored_0"))
    lists = found.lists
    pairs = list(zip(lists.queries.tolist(), lists.passage_indices.tolist(), strict=True))
    world = planted.world
    relevant = [world.is_relevant(queries[q]["query_id"], passages[p]) for q, p in pairs]
    negatives = planted.artifact("all_negatives").read("lists").to_pylist()
    kept = {(row["query_index"], passage) for row in negatives for passage in row["negatives"]}
    lowest = positive_scores(planted, [row["query_id"] for row in queries], passages)
    return Judged(
        split=np.array([queries[q]["split"] for q, _ in pairs]),
        rank=lists.ranks,
        logit=found.ranker_scores,
        relevant=np.array(relevant),
        above=found.scores > np.array([lowest.get(q, np.inf) for q, _ in pairs]),
        kept=np.array([pair in kept for pair in pairs]),
    )


def positive_scores(run: Run, queries: list[str], passages: list[str]) -> dict[int, float]:
    """The retriever's lowest score of a labelled positive, for each training query."""
    vectors = run.artifact("vectors_0")
    place = {name: index for index, name in enumerate(passages)}
    body = tables.vectors(vectors.read("passages")).astype(np.float32)
    training = tables.queries_of(run.artifact("data"), ["train"])
    own = tables.query_vectors(vectors, training).astype(np.float32)
    return {
        int(query): min(
            float(vector @ body[place[name]]) for name in run.world.labelled[queries[query]]
        )
        for query, vector in zip(training, own, strict=True)
    }


def rates(judged: Judged, kept: Mask) -> tuple[float, float]:
    """Shares of the planted false negatives removed and of the true hard negatives kept."""
    return 1 - kept[judged.planted].mean(), kept[judged.hard].mean()


def test_the_ranker_can_tell_held_out_pairs(judged):
    """Queries of dev were in no training; their candidates share its topic, not its key."""
    for split in ("validation", "dev"):
        chosen = judged.split == split
        right, wrong = (
            judged.logit[chosen & judged.relevant],
            judged.logit[chosen & ~judged.relevant],
        )
        assert min(len(right), len(wrong)) > 50
        assert mannwhitneyu(right, wrong).statistic / (len(right) * len(wrong)) >= 0.95


def test_there_is_something_to_denoise(judged):
    assert judged.planted.sum() >= 300, "planted false negatives within the depth"
    assert judged.hard.sum() >= 1000, "true hard negatives above the positive"
    removed, kept = rates(judged, judged.rank <= DEPTH)
    assert removed == 0 and kept == 1, "undenoised, all planted ones become negatives"


def test_denoising_removes_the_planted_and_keeps_the_hard(judged):
    removed, kept = rates(judged, judged.kept)
    assert removed >= GOAL and kept >= GOAL, (removed, kept)


def test_dropping_by_rank_alone_fails_the_same_test(judged):
    for skipped in range(DEPTH + 1):
        removed, kept = rates(judged, judged.rank > skipped)
        assert removed < GOAL or kept < GOAL, (skipped, removed, kept)


def test_training_lists_hold_few_false_negatives(planted):
    """The lists that the next retriever is trained with, four negatives each."""
    dataset = planted.artifact("data")
    queries = dataset.read("queries")["query_id"].to_pylist()
    passages = dataset.read("passages")["passage_id"].to_pylist()
    rows = planted.artifact("lists_1").read("lists").to_pylist()
    wrong = [
        planted.world.is_relevant(queries[row["query_index"]], passages[passage])
        for row in rows
        for passage in row["negatives"]
    ]
    assert len(rows) >= 0.95 * 480 and np.mean(wrong) <= 0.02


def test_pseudo_labels_are_right(planted):
    dataset = planted.artifact("data")
    queries = dataset.read("queries")["query_id"].to_pylist()
    passages = dataset.read("passages")["passage_id"].to_pylist()
    rows = planted.artifact("lists_2").read("lists").to_pylist()
    right, wrong = [], []
    for row in rows:
        name = queries[row["query_index"]]
        assert planted.world.splits[name] == "unlabelled" and len(row["positives"]) == 1
        right.append(planted.world.is_relevant(name, passages[row["positives"][0]]))
        wrong += [planted.world.is_relevant(name, passages[p]) for p in row["negatives"]]
    assert len(rows) >= 20 and np.mean(right) >= 0.9 and np.mean(wrong) <= 0.05


def test_the_ladder_says_that_the_ranker_ranks_better(planted):
    evaluation = planted.artifact("evaluation")
    assert not evaluation.manifest.outcome["warnings"]
    for split in evaluation.document("metrics.json")["splits"].values():
        systems = {name: found["RR@10"]["mean"] for name, found in split["systems"].items()}
        assert systems["M_D0 + ranker"] > systems["M_D0"] + 0.03
        assert systems["M_D1"] > systems["M_D0"], "denoised negatives teach the retriever keys"


def test_a_second_run_has_nothing_to_do(planted):
    assert planted() == 0
    assert set(planted.results()[-1].values()) == {"cached"}
