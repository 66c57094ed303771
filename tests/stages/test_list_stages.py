"""sample, score, calibrate, denoise and pseudo_label against a literal reading."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.special import expit
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pipeline.artifacts.kinds import (
    CALIBRATION,
    CANDIDATES,
    JOINT_MODELS,
    RANKER,
    SCORED_CANDIDATES,
    TOKENS,
)
from pipeline.methods import samplers
from pipeline.methods.negatives import ranker_negatives
from pipeline.stages import registry, tables
from tests.benches import EXACT, LENGTHS, Bench, Made

PASSAGES = 60
# Queries 0 to 3 are labelled, 4 has no positive; 5 to 8 are unlabelled.
SPLITS = ["train"] * 5 + ["unlabelled"] * 4
POSITIVES = [(0, 10), (0, 11), (1, 12), (2, 13), (3, 14)]
EXCLUDED = [(1, 20)]
HIDDEN = [(5, 30), (6, 31)]


def candidates(
    bench: Bench,
    rows: dict[int, list[int]],
    logits: dict[int, list[float]] | None,
    made: Made | None = None,
):
    columns = {
        "query_index": pa.array(list(rows), pa.int32()),
        "passage_index": pa.array(list(rows.values()), pa.list_(pa.int32())),
        "score": pa.array(
            [[float(-rank) for rank in range(len(r))] for r in rows.values()],
            pa.list_(pa.float32()),
        ),
    }
    if logits is None:
        return bench.given(CANDIDATES, {"candidates": [pa.table(columns)]})
    columns["ranker_score"] = pa.array([logits[q] for q in rows], pa.list_(pa.float32()))
    return bench.given(SCORED_CANDIDATES, {"candidates": [pa.table(columns)]}, made=made)


@pytest.fixture
def wired(bench: Bench):
    empty = pa.array([[]] * PASSAGES, pa.list_(pa.int32()))
    # Passage 21 reads like passage 10, a positive of query 0.
    hashes = [10 if number == 21 else number for number in range(PASSAGES)]
    column = pa.array(hashes, pa.int64())
    table = pa.table({"title_ids": empty, "text_ids": empty, "content_hash": column})
    tokens = bench.given(TOKENS, {"passages": [table]})
    given = [(0, 50), (0, 51), (0, 10), (1, 20)]
    pairs = {"excluded": EXCLUDED, "negatives": given, "hidden_qrels": HIDDEN}
    dataset = bench.dataset(["-"] * PASSAGES, SPLITS, POSITIVES, **pairs)
    return {"dataset": dataset, "tokens": tokens}


def never(query: int) -> set[int]:
    known = {p for q, p in POSITIVES + EXCLUDED if q == query}
    return known | ({21} if 10 in known else set())


def rows_of(artifact) -> dict[int, tuple[list[int], list[int]]]:
    table = artifact.read("lists").to_pylist()
    return {row["query_index"]: (row["positives"], row["negatives"]) for row in table}


# sample ---------------------------------------------------------------------------------------


def test_sample_from_the_corpus(bench, wired):
    params = {"source": "corpus", "num_negatives": 6, "per": "positive"}
    drawn = Counter()
    for seed in range(30):
        found = rows_of(bench.run("sample", params, seed=seed, **wired))
        assert list(found) == [0, 1, 2, 3]
        assert [len(negatives) for _, negatives in found.values()] == [12, 6, 6, 6]
        for query, (positives, negatives) in found.items():
            assert positives == [p for q, p in POSITIVES if q == query]
            assert len(set(negatives)) == len(negatives) and not set(negatives) & never(query)
            drawn.update(negatives)
    # 900 draws from 60 passages: every one comes up, none more than three times its share.
    assert len(drawn) == PASSAGES and max(drawn.values()) < 45
    again = bench.run("sample", {**params, "replicate": 1}, seed=0, **wired)
    assert rows_of(again) == rows_of(bench.run("sample", params, seed=1, **wired))
    assert bench.outcome(again).dropped == {"no positive": 1}


def test_a_query_with_many_positives_costs_no_other_query_draws(bench, wired, monkeypatch):
    wanted = []

    def corpus(queries, n, *others):
        wanted.extend((query, n) for query in queries.tolist())
        return drawn(queries, n, *others)

    drawn = samplers.corpus
    monkeypatch.setattr(samplers, "corpus", corpus)
    params = {"source": "corpus", "num_negatives": 3, "per": "positive"}
    found = rows_of(bench.run("sample", params, seed=5, **wired))
    assert sorted(wanted) == [(0, 6), (1, 3), (2, 3), (3, 3)]
    # What one draw of the most for everyone gives, cut down to each query's own number.
    known = tables.never_negative(wired["dataset"], wired["tokens"])
    most = dict(drawn(np.arange(4), 6, PASSAGES, known, 5))
    for query, number in wanted:
        assert found[query][1] == most[query][:number].tolist()


def test_sample_from_candidates(bench, wired):
    ranked = {0: [10, 21, 1, 2, 3, 4, 5, 6], 1: [20, 12, 7], 2: [12, 13], 3: [14]}
    wired["candidates"] = candidates(bench, ranked, None)
    params = {"depth": 6, "num_negatives": 2}
    seen = Counter()
    for seed in range(40):
        found = rows_of(bench.run("sample", params, seed=seed, **wired))
        assert (
            found[0][0] == [10, 11] and len(found[0][1]) == 2 and set(found[0][1]) <= {1, 2, 3, 4}
        )
        seen.update(found[0][1])
        # 12 is no positive of query 2; query 3 has no candidate left.
        assert found[1] == ([12], [7]) and found[2] == ([13], [12]) and 3 not in found
    assert len(seen) == 4 and min(seen.values()) >= 10
    outcome = bench.outcome(bench.run("sample", params, seed=0, **wired))
    assert outcome.rows_in == 5 and outcome.rows_out == 3
    assert outcome.dropped == {"no positive": 1, "no negative left": 1}


def test_sample_top_given_and_none(bench, wired):
    ranked = candidates(bench, {0: [10, 5, 21, 4, 3], 1: [9, 20, 8]}, None)
    top = {"source": "top", "num_negatives": 2, "per": "positive", "depth": 5}
    found = rows_of(bench.run("sample", top, candidates=ranked, **wired))
    assert found == {0: ([10, 11], [5, 4, 3]), 1: ([12], [9, 8])}
    given = {"source": "given", "num_negatives": 5, "per": "positive"}
    assert rows_of(bench.run("sample", given, **wired)) == {0: ([10, 11], [50, 51])}
    none = rows_of(bench.run("sample", {"source": "none"}, **wired))
    assert none == {0: ([10, 11], []), 1: ([12], []), 2: ([13], []), 3: ([14], [])}
    with pytest.raises(ValueError, match="wire `candidates`"):
        bench.run("sample", {"source": "top"}, **wired)


def test_lists_that_end_before_the_asked_depth_are_warned_of(bench, wired):
    ranked = candidates(bench, {0: [1, 2, 3, 4], 1: [5, 6]}, None)
    for source in ("candidates", "top"):
        asked = {depth: {"source": source, "depth": depth} for depth in (4, 5)}
        enough, deep = (bench.run("sample", asked[d], candidates=ranked, **wired) for d in (4, 5))
        (warning,) = bench.outcome(deep).warnings
        assert "end at rank 4, before the 5 of `depth`" in warning
        assert not bench.outcome(enough).warnings
        # How deep other queries were searched, here the unlabelled 5, makes the lists no longer.
        with_others = candidates(bench, {0: [1, 2], 1: [5, 6], 5: [1, 2, 3, 4, 5]}, None)
        shallow = bench.run("sample", asked[5], candidates=with_others, **wired)
        assert "end at rank 2" in bench.outcome(shallow).warnings[0]
    assert not bench.outcome(bench.run("sample", {"source": "corpus"}, **wired)).warnings
    made = Made("score", inputs={"ranker": bench.given(RANKER, made=trained("pointwise"))})
    logits = {0: [-9.0, -9.0, -9.0, -9.0], 1: [-9.0, -9.0]}
    wired["candidates"] = candidates(bench, {0: [1, 2, 3, 4], 1: [5, 6]}, logits, made)
    for depths, told in (
        ({"depth": 2, "fill_depth": 4}, None),
        ({"depth": 2, "fill_depth": 9}, "end at rank 4, before the 9 of `fill_depth`"),
        ({"depth": 6, "fill_depth": 6}, "end at rank 4, before the 6 of `depth`"),
    ):
        warnings = bench.outcome(bench.run("denoise", depths, **wired)).warnings
        assert [told in warning for warning in warnings] == ([True] if told else [])


# Probabilities that are none ------------------------------------------------------------------


def trained(loss: str) -> Made:
    return Made("train_ranker", {"loss": loss})


STAGES = {
    "denoise": {"depth": 2, "fill_depth": 2, "num_negatives": 1},
    "pseudo_label": {"depth": 2, "splits": ("train",)},
    "hybrid": {"depth": 2, "num_negatives": 2},
}


@pytest.fixture
def warned(bench, wired):
    """The warnings of a stage on candidates that a given ranker scored."""

    def run(stage: str, ranker, calibration=None, **params) -> list[str]:
        made = Made("score", inputs={"ranker": ranker}) if ranker else None
        scored = candidates(bench, {0: [1, 2], 1: [3, 4]}, {0: [5.0, -5.0], 1: [5.0, -5.0]}, made)
        inputs = {**wired, "candidates": scored}
        if calibration:
            inputs["calibration"] = calibration
        if stage == "pseudo_label":
            del inputs["tokens"]
        return list(bench.outcome(bench.run(stage, {**STAGES[stage], **params}, **inputs)).warnings)

    return run


@pytest.mark.parametrize("stage", STAGES)
def test_an_uncalibrated_listwise_ranker_is_warned_of(bench, warned, stage):
    pointwise, listwise = (bench.given(RANKER, made=trained(x)) for x in ("pointwise", "listwise"))
    assert warned(stage, pointwise) == []
    (warning,) = warned(stage, listwise)
    assert "raw sigmoid of a ranker with a listwise loss" in warning
    (warning,) = warned(stage, None)
    assert "taken for probabilities uncalibrated" in warning


def test_the_ranker_of_a_joint_training_was_trained_there_unless_it_was_static(bench, warned):
    start = bench.given(RANKER, made=trained("pointwise"))

    def joint(teacher: str):
        params = {"teacher": teacher, "ranker_loss": "listwise"}
        both = bench.given(JOINT_MODELS, made=Made("train_joint", params, {"ranker": start}))
        return bench.given(RANKER, made=Made("joint_ranker", inputs={"joint": both}))

    assert len(warned("denoise", joint("dynamic"))) == 1
    assert warned("denoise", joint("static")) == []


@pytest.mark.parametrize("stage", STAGES)
def test_a_calibration_of_another_ranker_is_warned_of(bench, warned, stage):
    own, other = (bench.given(RANKER, made=trained("listwise")) for _ in range(2))
    fitted = bench.given(
        CALIBRATION,
        documents={"calibration.json": {"slope": 1.0, "intercept": 0.0}},
        made=Made("calibrate", inputs={"ranker": own}),
    )
    assert warned(stage, own, fitted) == []
    (warning,) = warned(stage, other, fitted)
    assert "fitted for another ranker" in warning


def test_without_thresholds_nothing_is_said_of_probabilities(bench, warned):
    listwise = bench.given(RANKER, made=trained("listwise"))
    assert warned("denoise", listwise, denoised=False) == []
    assert warned("hybrid", listwise, denoised=0) == []


# denoise --------------------------------------------------------------------------------------


def literal_denoise(ranked, probability, wanted: int, depth: int, known: set[int]) -> list[int]:
    """Walk the ranks in order; keep what the ranker is sure is irrelevant and nobody labelled."""
    kept = []
    for passage, p in list(zip(ranked, probability, strict=True))[:depth]:
        if len(kept) < wanted and p < 0.1 and passage not in known:
            kept.append(passage)
    return kept


@pytest.mark.parametrize("per", ["query", "positive"])
def test_denoise_is_the_walk_of_the_paper(bench, wired, per):
    draw = np.random.default_rng(2)
    ranked = {q: draw.permutation(PASSAGES)[:40].tolist() for q in range(4)}
    logits = {q: draw.normal(-1, 3, 40).round(3).tolist() for q in range(4)}
    for row in logits.values():
        row[15:] = [float("nan")] * 25
    # Slope and intercept move the threshold from logit -2.197 to -1.5986.
    fitted = bench.given(
        CALIBRATION, documents={"calibration.json": {"slope": 2.0, "intercept": 1.0}}
    )
    wired |= {"candidates": candidates(bench, ranked, logits), "calibration": fitted}
    params = {"depth": 15, "fill_depth": 15, "num_negatives": 3, "per": per}
    found = rows_of(bench.run("denoise", params, **wired))
    for query in range(4):
        probability = expit(2.0 * np.array(logits[query], np.float32) + 1.0)
        wanted = 6 if per == "positive" and query == 0 else 3
        expected = literal_denoise(ranked[query], probability, wanted, 15, never(query))
        assert found[query][1] == expected

    filled = bench.run("denoise", {**params, "num_negatives": 12, "fill_depth": 40}, **wired)
    short = 0
    for query, (_, negatives) in rows_of(filled).items():
        probability = expit(2.0 * np.array(logits[query], np.float32) + 1.0)
        wanted = 24 if per == "positive" and query == 0 else 12
        sure = literal_denoise(ranked[query], probability, wanted, 15, never(query))
        assert negatives[: len(sure)] == sure and len(set(negatives)) == len(negatives) == wanted
        deeper = set(negatives[len(sure) :])
        assert deeper <= set(ranked[query][15:]) - never(query)
        short += len(deeper)
    assert bench.outcome(filled).counts["negatives_filled"] == short


def test_denoise_needs_scores_to_its_depth(bench, wired):
    ranked = {0: [1, 2, 3]}
    wired["candidates"] = candidates(bench, ranked, {0: [-9.0, -9.0, float("nan")]})
    with pytest.raises(ValueError, match=r"query_index 0 at rank 3; score at least to that depth"):
        bench.run("denoise", {"depth": 3}, **wired)
    params = {"depth": 2, "fill_depth": 2, "num_negatives": 1, "per": "query"}
    found = bench.run("denoise", params, **wired)
    assert rows_of(found) == {0: ([10, 11], [1])}
    # Queries 1 to 4 have no candidates.
    assert bench.outcome(found).dropped == {"not scored": 4}
    plain = bench.run("denoise", {**params, "denoised": False, "num_negatives": 2}, **wired)
    assert rows_of(plain) == {0: ([10, 11], [1, 2])}


def test_the_shares_by_rank_are_at_the_stages_own_threshold(bench, wired):
    ranked = {0: [1, 2, 3, 10, 4, 5], 1: [6, 7, 8, 9, 15, 16]}
    # P = 0.05, 0.27 and 0.5; 10 is a positive of query 0 and does not count.
    low, middle, half = -2.944, -1.0, 0.0
    logits = {0: [low, middle, half, half, half, low], 1: [middle, half, half, half, half, half]}
    wired["candidates"] = candidates(bench, ranked, logits)
    for threshold, first, second in ((0.1, 1 / 9, 1 / 2), (0.3, 3 / 9, 1 / 2), (0.6, 1, 1)):
        params = {"threshold": threshold, "depth": 6, "fill_depth": 6}
        metrics = bench.outcome(bench.run("denoise", params, **wired)).metrics
        shares = metrics["share_below_threshold_by_rank"]
        assert shares == {"1-5": pytest.approx(first), "6-10": pytest.approx(second)}


def test_what_is_told_of_negatives_that_were_chosen(bench, wired):
    # Without query 0's positives 10 and 11 and the copy 21, six candidates are left.
    ranked = {0: [10, 1, 21, 2, 3, 4, 5, 6], 1: [7, 8, 9]}
    logits = {0: [9.0, 9.0, 9.0, -5.0, 9.0, -5.0, -5.0, -5.0], 1: [-5.0, -5.0, -5.0]}
    wired["candidates"] = candidates(bench, ranked, logits)
    params = {"depth": 8, "fill_depth": 8, "num_negatives": 3, "per": "query"}
    denoised = bench.run("denoise", params, **wired)
    assert rows_of(denoised) == {0: ([10, 11], [2, 4, 5]), 1: ([12], [7, 8, 9])}
    metrics = bench.outcome(denoised).metrics
    # 2 is second of the six, 4 and 5 lie beyond the third; query 1 had no choice.
    assert metrics["overlap_with_top"] == pytest.approx(1 / 3)
    shares = {"1": 1 / 6, "2-5": 5 / 6}
    by_rank = metrics["negatives_by_rank"]
    assert {name: share for name, share in by_rank.items() if share} == pytest.approx(shares)
    # Scores are -3, -5 and -6, and 0, -1 and -2.
    expected = np.quantile([-3, -5, -6, 0, -1, -2], [0.05, 0.5, 0.95])
    told = metrics["negative_score"]
    assert [told["5%"], told["50%"], told["95%"]] == pytest.approx(expected.tolist())
    assert not any("the top candidates" in line for line in bench.outcome(denoised).warnings)

    logits[0][1] = logits[0][4] = -5.0
    wired["candidates"] = candidates(bench, ranked, logits)
    easy = bench.outcome(bench.run("denoise", params, **wired))
    assert easy.metrics["overlap_with_top"] == 1
    assert any("100% of the negatives stand among the top" in line for line in easy.warnings)
    del wired["candidates"]
    plain = candidates(bench, ranked, None)
    for source in ("top", "candidates"):
        # Six of six leave no choice.
        asked = {"source": source, "depth": 8, "num_negatives": 6}
        everything = bench.outcome(bench.run("sample", asked, candidates=plain, **wired))
        assert not everything.warnings and "overlap_with_top" not in everything.metrics
        for replicate in range(8):
            asked = {"source": source, "depth": 7, "num_negatives": 4, "replicate": replicate}
            found = bench.run("sample", asked, candidates=plain, **wired)
            overlap = len({1, 2, 3, 4} & set(rows_of(found)[0][1])) / 4
            drawn = bench.outcome(found)
            assert drawn.metrics["overlap_with_top"] == overlap
            assert bool(drawn.warnings) == (source == "candidates" and overlap > 0.9)


# pseudo_label ---------------------------------------------------------------------------------


def test_pseudo_labels_against_the_papers_words(bench, wired):
    ranked = {5: [30, 1, 2, 3], 6: [4, 31, 5], 7: [6, 7, 8], 8: [9, 32, 33]}
    logits = {
        5: [3.0, -5.0, 0.0, -4.0],  # right, and the second negative lies beyond an unsure one
        6: [4.0, 2.5, -3.0],  # 4 is more probable than the hidden label 31: wrong
        7: [2.19, -5.0, -5.0],  # P = 0.8993: not sure
        8: [-1.0, 5.0, 0.0],  # no sure negative
    }
    inputs = {"dataset": wired["dataset"], "candidates": candidates(bench, ranked, logits)}
    found = bench.run("pseudo_label", {"depth": 4}, **inputs)
    assert rows_of(found) == {5: ([30], [1, 3]), 6: ([4], [5])}
    outcome = bench.outcome(found)
    assert outcome.metrics == {"precision_on_hidden_labels": 0.5, "hidden_labels": 2}
    assert outcome.dropped == {"no sure positive": 1, "no sure negative": 1}
    one = bench.run("pseudo_label", {"depth": 4, "num_negatives": 1}, **inputs)
    assert rows_of(one) == {5: ([30], [1]), 6: ([4], [5])}
    less = {"depth": 4, "positive_above": 0.89, "negative_below": 0.4}
    lenient = bench.run("pseudo_label", less, **inputs)
    assert rows_of(lenient) == {5: ([30], [1, 3]), 6: ([4], [5]), 7: ([6], [7, 8]), 8: ([32], [9])}
    shallow = bench.run("pseudo_label", {"depth": 1}, **inputs)
    assert rows_of(shallow) == {} and bench.outcome(shallow).rows_in == 4


def test_a_share_of_the_queries_is_part_of_a_larger_share(bench, wired):
    ranked = {query: [30, 1] for query in (5, 6, 7, 8)}
    logits = {query: [5.0, -5.0] for query in ranked}
    inputs = {"dataset": wired["dataset"], "candidates": candidates(bench, ranked, logits)}
    before: set[int] = set()
    sizes = []
    for share in (0.1, 0.3, 0.5, 0.7, 0.9, 1.0):
        found = bench.run("pseudo_label", {"depth": 2, "share": share}, **inputs)
        labelled, outcome = set(rows_of(found)), bench.outcome(found)
        assert before <= labelled
        assert outcome.rows_in == 4
        assert outcome.dropped.get("beyond the share", 0) == 4 - len(labelled)
        before = labelled
        sizes.append(len(labelled))
    assert sizes[-1] == 4 and 0 < sizes[2] < 4


def test_pseudo_labels_of_training_queries_are_right_with_a_shown_or_a_hidden_label(bench):
    shown, hidden = [(0, 1), (1, 1), (2, 1), (3, 1)], [(0, 2), (1, 2), (2, 2)]
    dataset = bench.dataset(["-"] * 9, ["train"] * 4, shown, hidden_qrels=hidden)
    ranked = {query: [1, 2, 3, 4] for query in range(4)}
    low = [-5.0] * 4
    logits = {query: [*low[:at], 5.0, *low[at + 1 :]] for query, at in enumerate([0, 1, 2, 0])}
    found = candidates(bench, ranked, logits, Made("score"))
    params = {"splits": ("train",), "depth": 4}
    metrics = bench.outcome(
        bench.run("pseudo_label", params, dataset=dataset, candidates=found)
    ).metrics
    # Query 3 hides nothing, so that nothing is asked of it; query 2 chose an irrelevant passage.
    assert metrics == {"precision_on_hidden_labels": pytest.approx(2 / 3), "hidden_labels": 3}


def test_training_queries_are_labelled_anew_beside_the_unlabelled(bench, wired):
    unlabelled = candidates(bench, {5: [30, 1]}, {5: [3.0, -5.0]})
    train = candidates(bench, {0: [9, 10], 1: [4, 5]}, {0: [4.0, -4.0], 1: [1.0, -4.0]})
    inputs = {"dataset": wired["dataset"], "candidates": [unlabelled, train]}
    only = bench.run("pseudo_label", {"depth": 2}, **inputs)
    assert rows_of(only) == {5: ([30], [1])}
    both = bench.run("pseudo_label", {"depth": 2, "splits": ("unlabelled", "train")}, **inputs)
    assert rows_of(both) == {0: ([9], [10]), 5: ([30], [1])}
    assert bench.outcome(both).metrics["hidden_labels"] == 1
    with pytest.raises(ValueError, match=r"1 queries \(query index 5 is the first\)"):
        bench.run("pseudo_label", dataset=wired["dataset"], candidates=[unlabelled, unlabelled])


def test_the_ranker_cannot_find_positives_that_were_taken_out_of_the_search(bench, wired):
    def scored(removed: list[str]):
        mined = {"depths": {"train": 9}, "remove_positives": removed}
        found = bench.given(CANDIDATES, made=Made("mine", mined))
        made = Made("score", inputs={"candidates": found})
        return candidates(bench, {0: [9, 10]}, {0: [4.0, -4.0]}, made=made)

    params = {"depth": 2, "splits": ("train",)}
    left_in = bench.run(
        "pseudo_label", params, dataset=wired["dataset"], candidates=scored(["dev"])
    )
    assert rows_of(left_in) == {0: ([9], [10])}
    with pytest.raises(ValueError, match="took the training queries' positives out"):
        bench.run("pseudo_label", params, dataset=wired["dataset"], candidates=scored(["train"]))


# hybrid ---------------------------------------------------------------------------------------


def test_hybrid_lists_of_both_kinds_are_counted(bench, wired):
    ranked = {0: [1, 2, 3, 4], 1: [5, 6, 7, 8]}
    logits = {0: [-5.0, 4.0, -5.0, -5.0], 1: [-5.0, 0.0, 0.0, 0.0]}
    wired |= {"candidates": candidates(bench, ranked, logits)}
    params = {"num_negatives": 2, "depth": 4, "undenoised": 2}
    found = bench.run("hybrid", params, **wired)
    rows = found.read("lists").to_pylist()
    positives = {
        query: {row["passage_index"] for row in wired["dataset"].read("qrels").to_pylist()
                if row["query_index"] == query}
        for query in (0, 1)
    }  # fmt: skip
    kinds = [row["query_index"] for row in rows]
    assert kinds == [0, 1, 0, 1, 0]
    for number, row in enumerate(rows):
        (positive,) = row["positives"]
        usable = set(ranked[row["query_index"]]) - never(row["query_index"])
        if number == 4:
            usable -= {2}
            assert positive in positives[0] | {2}
        else:
            assert positive in positives[row["query_index"]]
        assert set(row["negatives"]) <= usable and len(set(row["negatives"])) == 2
    outcome = bench.outcome(found)
    queries = outcome.rows_in // 3
    assert outcome.rows_out == 5
    assert outcome.dropped == {
        "denoised: fewer than 2 sure negatives": 1,
        "not scored": 3 * (queries - 2),
    }
    assert outcome.counts["undenoised"] == 4 and outcome.counts["denoised"] == 1
    assert {"undenoised_negative_score", "denoised_negatives_by_rank"} <= set(outcome.metrics)
    assert outcome.counts["positives_by_the_ranker"] == (rows[4]["positives"] == [2])


def test_hybrid_asks_the_ranker_to_its_own_depth_and_thresholds(bench, wired):
    ranked = [1, 2, 3, 4, 5, 6]
    # P = 0.27, 0.73, 0.27 and 0.73; the ranker was not asked about the rest.
    logits = [-1.0, 1.0, -1.0, 1.0, float("nan"), float("nan")]
    wired |= {"candidates": candidates(bench, {2: ranked}, {2: logits})}
    params = {"num_negatives": 2, "depth": 6, "undenoised": 8, "denoised": 8}
    params |= {"denoised_depth": 3, "negative_below": 0.3, "positive_above": 0.7}
    rows = bench.run("hybrid", params, **wired).read("lists").to_pylist()
    undenoised, denoised = rows[:8], rows[8:]
    assert len(denoised) == 8 and all(row["negatives"] == [1, 3] for row in denoised)
    assert {row["positives"][0] for row in denoised} == {13, 2}
    assert {row["positives"][0] for row in undenoised} == {13}
    assert {passage for row in undenoised for passage in row["negatives"]} == set(ranked)


def test_hybrid_tells_of_all_lists_of_a_kind(bench, wired):
    ranked = {2: [1, 2, 3, 4, 5, 6], 3: [7, 8, 9, 15, 16, 17]}
    logits = {2: [-5.0, 5.0, -5.0, -5.0, 5.0, 5.0], 3: [-5.0, -5.0, 5.0, 5.0, 5.0, 5.0]}
    wired |= {"candidates": candidates(bench, ranked, logits)}
    params = {"num_negatives": 2, "depth": 6, "undenoised": 3, "denoised": 2}
    made = bench.run("hybrid", params, **wired)
    rows = made.read("lists").to_pylist()
    metrics = bench.outcome(made).metrics
    kinds = {"undenoised": rows[:6], "denoised": rows[6:]}
    for kind, lists in kinds.items():
        ranks = [[ranked[row["query_index"]].index(p) for p in row["negatives"]] for row in lists]
        shares = [np.mean([rank < 2 for rank in each]) for each in ranks]
        assert metrics[f"{kind}_overlap_with_top"] == pytest.approx(np.mean(shares))
        first = metrics[f"{kind}_negatives_by_rank"]["1"]
        assert first == pytest.approx(np.mean([rank == 0 for rank in np.concatenate(ranks)]))
    # Of three draws each differs from the others, so one alone would tell something else.
    assert len({str(row["negatives"]) for row in kinds["undenoised"]}) > 2
    # Query 3's two sure negatives are its first two in every denoised list.
    denoised = {str(row["negatives"]) for row in kinds["denoised"] if row["query_index"] == 3}
    assert denoised == {"[7, 8]"}
    assert not any("top candidates" in line for line in bench.outcome(made).warnings)


def test_hybrid_warns_where_it_takes_the_top_candidates(bench, wired):
    ranked = {2: [1, 2, 3, 4, 5, 6]}
    wired |= {"candidates": candidates(bench, ranked, {2: [-5.0, -5.0, 5.0, 5.0, 5.0, 5.0]})}
    params = {"num_negatives": 2, "depth": 6, "undenoised": 0, "denoised": 1}
    (warning, _) = bench.outcome(bench.run("hybrid", params, **wired)).warnings
    assert warning.startswith("100% of the negatives") and "the denoised lists" in warning


# score and calibrate --------------------------------------------------------------------------


def direct_logits(tiny, ranker, pairs) -> list[float]:
    folder = str(ranker.folder("model"))
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    queries = tiny.dataset.read("queries", ["text"])["text"].to_pylist()
    passages = tiny.dataset.read("passages").to_pylist()
    logits = []
    with torch.inference_mode():
        for query, passage in pairs:
            text = f"{passages[passage]['title']} {passages[passage]['text']}".strip()
            inputs = tokenizer(
                queries[query],
                text,
                return_tensors="pt",
                truncation=True,
                max_length=LENGTHS["pair_max_len"],
            )
            logits.append(float(model(**inputs).logits))
    return logits


def test_scores_are_those_of_the_model_called_one_by_one(tiny):
    before, after = (a.read("candidates").to_pylist() for a in (tiny.candidates, tiny.scored))
    pairs, scores = [], []
    for old, new in zip(before, after, strict=True):
        assert {name: new[name] for name in old} == old
        assert np.isnan(new["ranker_score"][10:]).all() and len(new["passage_index"]) >= 10
        pairs += [(new["query_index"], passage) for passage in new["passage_index"][:3]]
        scores += new["ranker_score"][:3]
    np.testing.assert_allclose(scores, direct_logits(tiny, tiny.ranker, pairs), atol=1e-5)
    counted = tiny.bench.outcome(tiny.scored)
    assert counted.counts["pairs"] == 10 * len(after) and not counted.dropped


def test_only_the_wanted_splits_are_scored(tiny):
    params = {"splits": ["dev"], "depth": 3, "token_budget": 30, **EXACT}
    some = tiny.bench.run("score", params, **tiny.scoring)
    split = tiny.dataset.read("queries")["split"].to_pylist()
    whole = {row["query_index"]: row for row in tiny.scored.read("candidates").to_pylist()}
    rows = some.read("candidates").to_pylist()
    assert {split[row["query_index"]] for row in rows} == {"dev"} and len(rows) == 8
    for row in rows:
        expected = whole[row["query_index"]]["ranker_score"][:3]
        np.testing.assert_allclose(row["ranker_score"][:3], expected, atol=1e-5)
    assert tiny.bench.outcome(some).dropped == {"of another split": 32}


def test_calibrate_fits_a_logistic_curve_on_validation(tiny):
    given = {**tiny.scoring, "dataset": tiny.agreeing}
    params = {"depth": 12, "num_negatives": 4, **EXACT}
    fitted = tiny.bench.run("calibrate", params, **given)
    document = fitted.document("calibration.json")
    outcome = tiny.bench.outcome(fitted)
    split = tiny.agreeing.read("queries")["split"].to_pylist()
    known = {
        (row["query_index"], row["passage_index"])
        for row in tiny.agreeing.read("qrels").to_pylist()
    }
    positives = [pair for pair in known if split[pair[0]] == "validation"]
    assert outcome.counts["positives"] == len(positives) == outcome.rows_out == 8
    assert document["pairs"] == 5 * len(positives)

    # At the optimum of Platt's likelihood its two derivatives are nought.
    validation = [q for q, name in enumerate(split) if name == "validation"]
    negatives = ranker_negatives(
        tables.Candidates.read(tiny.candidates).lists.of(np.array(validation)),
        tables.never_negative(tiny.agreeing, tiny.tokens),
        4,
        depth=12,
        seed=5,
    ).lists
    drawn = list(zip(negatives.queries.tolist(), negatives.passage_indices.tolist(), strict=True))
    logits = np.array(direct_logits(tiny, tiny.ranker, positives + drawn))
    targets = np.where(np.arange(40) < 8, 9 / 10, 1 / 34)
    residuals = expit(document["slope"] * logits + document["intercept"]) - targets
    assert residuals.sum() == pytest.approx(0, abs=0.02)
    assert residuals @ (logits / logits.std()) == pytest.approx(0, abs=0.1)
    assert document["slope"] > 0
    assert sum(row["count"] for row in document["reliability"]) == document["pairs"]


GOLD = ("gold_below_threshold", "gold_above_threshold")


def fitted_on(tiny, **params):
    given = {**tiny.scoring, "dataset": tiny.agreeing}
    tiny.bench.progress.notes.clear()
    asked = {"depth": 12, "num_negatives": 4, **EXACT, **params}
    fitted = tiny.bench.run("calibrate", asked, **given)
    return fitted.document("calibration.json"), tiny.bench.outcome(fitted)


def test_calibrate_reports_the_gold_positives_raw_and_calibrated(tiny):
    validation = [
        pair
        for row in tiny.agreeing.read("qrels").to_pylist()
        if (pair := (row["query_index"], row["passage_index"]))[0]
        in tables.queries_of(tiny.agreeing, ["validation"])
    ]
    logits = np.array(direct_logits(tiny, tiny.ranker, validation))
    plain, _ = fitted_on(tiny, token_budget=100)
    calibrated = np.sort(expit(plain["slope"] * logits + plain["intercept"]))
    raw = np.sort(expit(logits))
    # Between the third and the fourth of the eight positives, and between the fifth and the sixth.
    for values, prefix in ((calibrated, ""), (raw, "raw_")):
        low, high = (float(values[[at, at + 1]].mean()) for at in (2, 4))
        document, outcome = fitted_on(tiny, negative_below=low, positive_above=high)
        found = {name: outcome.metrics[f"{prefix}{name}"] for name in GOLD}
        assert found == {GOLD[0]: 3 / 8, GOLD[1]: 3 / 8}
        assert {name: document[f"{prefix}{name}"] for name in GOLD} == found


def test_calibrate_warns_of_lost_positives_and_shows_how_far_it_can_be_trusted(tiny):
    document, outcome = fitted_on(tiny, token_budget=200)
    assert outcome.metrics["gold_below_threshold"] == 0 and not outcome.warnings
    (note,) = tiny.bench.progress.notes
    rows = [row for row in document["reliability"] if row["count"]]
    assert note.startswith("reliability on validation") and len(note.splitlines()) == 3 + len(rows)
    assert f"{rows[-1]['mean_predicted']:.3f}" in note.splitlines()[-1]
    _, strict = fitted_on(tiny, negative_below=0.999)
    (warning,) = strict.warnings
    assert "100.0% of the gold positives lie below 0.999" in warning


def test_calibrate_draws_from_its_depth(tiny):
    document, outcome = fitted_on(tiny, depth=2)
    validation = tables.queries_of(tiny.agreeing, ["validation"])
    drawn = ranker_negatives(
        tables.Candidates.read(tiny.candidates).lists.of(validation),
        tables.never_negative(tiny.agreeing, tiny.tokens),
        4,
        depth=2,
        seed=5,
    ).lists
    positives = outcome.counts["positives"]
    assert document["pairs"] == positives + len(drawn.passage_indices) < 5 * positives
    _, deep = fitted_on(tiny, depth=13)
    assert any("end at rank 12, before the 13 of `depth`" in one for one in deep.warnings)


def test_without_a_pair_of_either_label_nothing_is_scored(tiny):
    given = {**tiny.scoring, "dataset": tiny.agreeing}
    nobody = {"query_index": pa.array([], pa.int32())}
    for name, kind in (("passage_index", pa.int32()), ("score", pa.float32())):
        nobody[name] = pa.array([], pa.list_(kind))
    given["candidates"] = tiny.bench.given(CANDIDATES, {"candidates": [pa.table(nobody)]})
    with pytest.raises(ValueError, match="calibration needs both labels, got 0 relevant pairs"):
        tiny.bench.run("calibrate", {"depth": 12, **EXACT}, **given)


def test_training_queries_are_no_calibration_set():
    with pytest.raises(ValueError, match="split"):
        registry()["calibrate"].params.model_validate({"split": "train"})
