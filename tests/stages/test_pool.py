"""The stage `pool` against a literal reading: scores, filters, weights, starved queries."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from pipeline.artifacts.kinds import CALIBRATION, CANDIDATES, SCORED_CANDIDATES, TOKENS
from pipeline.dag.contract import Inputs, Resources
from pipeline.stages import registry, tables
from pipeline.stages.pool_params import PoolParams, SamplerParams
from pipeline.stages.training_run import read_rows
from tests.benches import Bench, Made, TinyWorld, embeddings

PASSAGES, WIDTH, DEPTH = 60, 6, 20
SEED = 5
SPLITS = ["train"] * 5 + ["dev"]
# Query 4 has no label.
POSITIVES = [(0, 10), (0, 11), (1, 12), (2, 13), (3, 14)]
EVERY_POSITIVE = {query: [p for q, p in POSITIVES if q == query] for query in range(4)}
ANSWERS = {0: ["kiwi"], 1: ["plum"]}
TEXTS = ["a kiwi" if number % 3 == 0 else "a stone" for number in range(PASSAGES)]


class World:
    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        draw = np.random.default_rng(2)
        # Small integers: products are exact in half precision, and ties are there.
        self.queries = draw.integers(-3, 4, (len(SPLITS), WIDTH))
        self.passages = draw.integers(-3, 4, (PASSAGES, WIDTH))
        empty = pa.array([[]] * PASSAGES, pa.list_(pa.int32()))
        hashes = pa.array(range(PASSAGES), pa.int64())
        tokens = pa.table({"title_ids": empty, "text_ids": empty, "content_hash": hashes})
        self.vectors = embeddings(bench, self.queries, self.passages, 25, 4)
        self.wired = {
            "dataset": bench.dataset(TEXTS, SPLITS, POSITIVES, answers=ANSWERS, rows_per_shard=17),
            "tokens": bench.given(TOKENS, {"passages": [tokens]}),
            "candidates": bench.run(
                "mine",
                {"depths": {"train": DEPTH}, "queries_per_shard": 2},
                embeddings=self.vectors,
                dataset=bench.dataset(TEXTS, SPLITS, POSITIVES),
                tokens=bench.given(TOKENS, {"passages": [tokens]}),
            ),
        }

    def pool(self, params=None, **changes):
        inputs = {**self.wired, "embeddings": self.vectors, **changes}
        wired = {name: one for name, one in inputs.items() if one is not None}
        return self.bench.run("pool", {"num_negatives": 3, **(params or {})}, seed=SEED, **wired)

    def score(self, query: int, passage: int) -> float:
        return float(self.queries[query] @ self.passages[passage])

    def ranking(self, query: int) -> list[int]:
        left = [p for p in range(PASSAGES) if p not in EVERY_POSITIVE.get(query, [])]
        return sorted(left, key=lambda p: (-self.score(query, p), p))[:DEPTH]


@pytest.fixture
def world(bench: Bench) -> World:
    return World(bench)


def rows(artifact) -> dict[tuple[int, int], dict]:
    return {
        (row["query_index"], row["positive"]): row for row in artifact.read("pools").to_pylist()
    }


def test_simans_by_hand(world: World) -> None:
    sampler = {"name": "simans", "a": 0.5, "b": -1.0}
    made = world.pool({"sampler": sampler, "depth": 12, "positive": "each"})
    found = rows(made)
    assert set(found) == set(POSITIVES)
    for (query, positive), row in found.items():
        own = world.score(query, positive)
        ranking = world.ranking(query)
        assert row["passage_index"] == ranking[:12]
        assert row["positive_score"] == own
        assert row["score"] == [world.score(query, p) for p in ranking[:12]]
        assert row["positive_rank"] == 1 + sum(world.score(query, p) > own for p in ranking)
        expected = [-0.5 * (world.score(query, p) - own + 1.0) ** 2 for p in ranking[:12]]
        assert row["log_weight"] == pytest.approx(expected)
    assert not made.document("pools.json")["one_row_per_query"]
    outcome = world.bench.outcome(made)
    assert (outcome.rows_in, outcome.rows_out, outcome.dropped) == (5, 4, {"no positive": 1})
    ranks = [row["positive_rank"] for row in found.values()]
    first = outcome.metrics["positives_by_rank"]["1"]
    assert first == pytest.approx(np.mean([rank == 1 for rank in ranks]))


def test_of_scores_hundreds_apart_the_nearest_is_drawn(world: World) -> None:
    """Whatever underflows: no weight is a number there, and neighbours are 40 apart."""
    far = embeddings(world.bench, 40 * world.queries, world.passages, 25, 4)
    pools = tables.pools_of(world.pool({"positive": "each"}, embeddings=far))
    assert np.isfinite(pools.log_weights).all() and pools.log_weights.min() < -10_000
    for epoch in range(5):
        drawn = pools.lists.keep(pools.draw(1, 3, epoch))
        for (query, (passage,)), positive in zip(drawn, pools.positives, strict=True):
            own = world.score(query, positive)
            apart = {p: abs(world.score(query, p) - own) for p in world.ranking(query)}
            assert apart[passage] == min(apart.values())


def test_the_mean_of_the_positives_can_be_compared_with(world: World) -> None:
    found = rows(world.pool({"positive": "mean", "depth": 5}))
    assert set(found) == set(POSITIVES)
    for (query, positive), row in found.items():
        mean = np.mean([world.score(query, p) for p in EVERY_POSITIVE[query]])
        assert row["log_weight"] == pytest.approx([-0.5 * (s - mean) ** 2 for s in row["score"]])
        assert row["positive_score"] == world.score(query, positive)


def test_a_positive_that_was_not_retrieved_is_scored(world: World) -> None:
    shallow = {"depth": 4, "sampler": {"name": "simans"}}
    for (query, positive), row in rows(world.pool(shallow)).items():
        assert row["positive_score"] == world.score(query, positive)


@pytest.mark.parametrize(
    ("sampler", "weight"),
    [
        ({"name": "uniform"}, lambda s, d, own: 0.0),
        ({"name": "softmax", "temperature": 2.0}, lambda s, d, own: s / 2),
        ({"name": "simans_laplace"}, lambda s, d, own: -3 * abs(s - own)),
        ({"name": "doc_sim", "b": 1.0}, lambda s, d, own: -0.5 * (d - own - 1) ** 2),
        ({"name": "trisampler_query"}, lambda s, d, own: -0.25 * (s - own) ** 2),
        ({"name": "trisampler_positive"}, lambda s, d, own: math.log(d - s)),
        ({"name": "trisampler"}, lambda s, d, own: math.log(d - s) - 0.25 * (s - own) ** 2),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_every_sampler_by_its_formula(world: World, sampler, weight) -> None:
    starved = {"starved": "fewer", "num_negatives": 1, "positive": "each"}
    for (query, positive), row in rows(world.pool({"sampler": sampler, **starved})).items():
        own = world.score(query, positive)
        expected = {}
        for passage in world.ranking(query):
            similarity = float(world.passages[positive] @ world.passages[passage])
            score = world.score(query, passage)
            inside = sampler["name"] in ("trisampler_positive", "trisampler")
            if not inside or similarity > score:
                expected[passage] = weight(score, similarity, own)
        got = dict(zip(row["passage_index"], row["log_weight"], strict=True))
        assert got == pytest.approx(expected)


@pytest.mark.parametrize(
    ("sampler", "a", "b"),
    [({"name": "simans", "a": 2.0, "b": 0.5}, 2.0, 0.5), ({"name": "trisampler_query"}, 0.25, 0.0)],
    ids=["simans", "trisampler_query"],
)
def test_units_of_the_spread_are_those_of_what_filters_left(world: World, sampler, a, b) -> None:
    params = {
        "sampler": {**sampler, "standardised": True},
        "filters": {"first_rank": 4},
        "positive": "each",
    }
    for (query, positive), row in rows(world.pool(params)).items():
        own = world.score(query, positive)
        left = np.array([world.score(query, p) for p in world.ranking(query)[3:]])
        expected = -a * ((left - own) / left.std() - b) ** 2
        assert row["log_weight"] == pytest.approx(expected.tolist())


def test_deterministic_samplers_leave_their_choice_alone(world: World) -> None:
    for (query, _), row in rows(world.pool({"sampler": {"name": "top"}})).items():
        assert row["passage_index"] == world.ranking(query)[:3]
    nearest = {"sampler": {"name": "nearest", "b": 2.0}, "positive": "each"}
    for (query, positive), row in rows(world.pool(nearest)).items():
        peak = world.score(query, positive) + 2
        distance = [abs(world.score(query, p) - peak) for p in world.ranking(query)]
        chosen = sorted(range(DEPTH), key=lambda i: (distance[i], i))[:3]
        assert row["passage_index"] == [world.ranking(query)[i] for i in sorted(chosen)]


@pytest.mark.parametrize(
    ("filters", "passes"),
    [
        ({"first_rank": 4}, lambda w, q, p, own: w.ranking(q).index(p) >= 3),
        ({"below": 5.0}, lambda w, q, p, own: w.score(q, p) < 5),
        ({"margin": 2.0}, lambda w, q, p, own: w.score(q, p) < own - 2),
        (
            {"share_of_positive": 0.9},
            lambda w, q, p, own: w.score(q, p) < own - 0.1 * abs(own),
        ),
        ({"without_answer": True}, lambda w, q, p, own: q != 0 or "kiwi" not in TEXTS[p]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_every_filter_by_its_rule(world: World, filters, passes) -> None:
    params = {"filters": filters, "positive": "each", "starved": "fewer", "num_negatives": 1}
    made = world.pool(params)
    expected = {
        (query, positive): [
            p for p in world.ranking(query) if passes(world, query, p, world.score(query, positive))
        ]
        for query, positive in POSITIVES
    }
    found = {pair: row["passage_index"] for pair, row in rows(made).items()}
    assert found == {pair: passages for pair, passages in expected.items() if passages}
    (name,) = filters
    left_out = sum(DEPTH - len(passages) for passages in expected.values())
    assert world.bench.outcome(made).counts[f"left_out_by_{name}"] == left_out


def test_the_ranker_can_keep_candidates_out(world: World) -> None:
    table = world.wired["candidates"].read("candidates")
    logits = [[(-1.0) ** rank for rank in range(DEPTH)] for _ in range(table.num_rows)]
    column = pa.array(logits, pa.list_(pa.float32()))
    scored = world.bench.given(
        SCORED_CANDIDATES, {"candidates": [table.append_column("ranker_score", column)]}
    )
    made = world.pool({"filters": {"ranker_below": 0.5}}, candidates=scored)
    for (query, _), row in rows(made).items():
        assert row["passage_index"] == world.ranking(query)[1::2]
    assert world.bench.outcome(made).warnings
    with pytest.raises(ValueError, match="no ranker scores"):
        world.pool({"filters": {"ranker_below": 0.5}})


def test_the_rankers_probability_is_calibrated_where_it_is_wired(world: World) -> None:
    table = world.wired["candidates"].read("candidates")
    logits = np.tile(np.linspace(-3, 3, DEPTH), (table.num_rows, 1))
    column = pa.array(logits.tolist(), pa.list_(pa.float32()))
    scored = world.bench.given(
        SCORED_CANDIDATES, {"candidates": [table.append_column("ranker_score", column)]}
    )
    platt = {"slope": 2.0, "intercept": 1.0}
    fitted = world.bench.given(CALIBRATION, documents={"calibration.json": platt})
    params = {"filters": {"ranker_below": 0.4}}
    made = world.pool(params, candidates=scored, calibration=fitted)
    passing = np.flatnonzero(1 / (1 + np.exp(-(2 * logits[0] + 1))) < 0.4)
    assert 0 < len(passing) < sum(1 / (1 + np.exp(-logits[0])) < 0.4)
    for (query, _), row in rows(made).items():
        assert row["passage_index"] == [world.ranking(query)[place] for place in passing]
    assert not world.bench.outcome(made).warnings


def test_candidates_that_no_ranker_has_scored_are_refused(world: World) -> None:
    table = world.wired["candidates"].read("candidates")
    logits = [[-1.0] * 8 + [math.nan] * (DEPTH - 8)] * table.num_rows
    column = pa.array(logits, pa.list_(pa.float32()))
    scored = world.bench.given(
        SCORED_CANDIDATES, {"candidates": [table.append_column("ranker_score", column)]}
    )
    asked = {"filters": {"ranker_below": 0.5}}
    assert rows(world.pool({**asked, "depth": 8}, candidates=scored))
    with pytest.raises(ValueError, match="within depth 9 have no ranker score"):
        world.pool({**asked, "depth": 9}, candidates=scored)


def test_angles_between_vectors_of_length_one(world: World) -> None:
    """Queries and passages on a circle, so that angles are known."""
    draw = np.random.default_rng(8)
    of_queries, of_passages = (draw.uniform(0, 90, size) for size in (len(SPLITS), PASSAGES))

    def on_a_circle(degrees: np.ndarray) -> np.ndarray:
        return np.stack([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))], axis=1)

    circle = embeddings(world.bench, on_a_circle(of_queries), on_a_circle(of_passages), 25, 4)
    params = {"filters": {"angle": 10.0}, "positive": "each", "starved": "fewer"}
    found = rows(world.pool({**params, "num_negatives": 1}, embeddings=circle))
    assert len(found) == len(POSITIVES)
    for (query, positive), row in found.items():
        own = abs(of_queries[query] - of_passages[positive])
        apart = {
            p: abs(abs(of_queries[query] - of_passages[p]) - own) for p in world.ranking(query)
        }
        # Half precision moves an angle a little.
        assert all(abs(difference - 10) > 0.2 for difference in apart.values())
        assert row["passage_index"] == [p for p, difference in apart.items() if difference < 10]
    with pytest.raises(ValueError, match="no angle for a score"):
        world.pool(params)


def test_near_copies_of_a_positive_are_left_out(tiny: TinyWorld) -> None:
    """By token runs as sets, where some of a query's candidates pass and some do not."""
    store = tables.open_tokens(tiny.tokens)
    positives = dict(iter(tables.positives_of(tiny.dataset).lists()))
    searched = {
        row["query_index"]: row["passage_index"]
        for row in tiny.candidates.read("candidates").to_pylist()
    }

    def runs(passage: int) -> set[tuple[int, ...]]:
        ids = [*store.text_ids(passage).tolist()]
        ids += [-1] * (5 - len(ids))
        return {tuple(ids[start : start + 5]) for start in range(len(ids) - 4)}

    def likeness(query: int, passage: int) -> float:
        one, own = runs(passage), [runs(positive) for positive in positives[query].tolist()]
        return max(len(one & other) / len(one | other) for other in own)

    queries = tables.queries_of(tiny.dataset, ["train"]).tolist()
    found = {
        query: {passage: likeness(query, passage) for passage in searched[query]}
        for query in queries
        if query in positives
    }
    every = sorted({value for own in found.values() for value in own.values() if value > 0})
    bound = every[len(every) // 2]
    made = tiny.bench.run(
        "pool",
        {
            "depth": 12,
            "num_negatives": 1,
            "sampler": {"name": "uniform"},
            "filters": {"near_copies": bound},
            "starved": "fewer",
        },
        dataset=tiny.dataset,
        tokens=tiny.tokens,
        candidates=tiny.candidates,
    )
    expected = {
        query: [passage for passage, value in own.items() if value < bound]
        for query, own in found.items()
    }
    left_out = sum(len(found[query]) - len(expected[query]) for query in found)
    assert left_out > 0
    got = {query: row["passage_index"] for (query, _), row in rows(made).items()}
    assert got == {query: passages for query, passages in expected.items() if passages}
    assert tiny.bench.outcome(made).counts["left_out_by_near_copies"] == left_out


def test_known_positives_are_left_out_and_not_counted(world: World) -> None:
    left_in = world.bench.run(
        "mine",
        {"depths": {"train": DEPTH + 2}, "remove_positives": [], "queries_per_shard": 9},
        embeddings=world.vectors,
        dataset=world.wired["dataset"],
        tokens=world.wired["tokens"],
    )
    searched = {row["query_index"]: row for row in left_in.read("candidates").to_pylist()}
    assert any(p in searched[q]["passage_index"] for q, p in POSITIVES)
    params = {"depth": 9, "filters": {"first_rank": 3}, "positive": "each"}
    for (query, positive), row in rows(world.pool(params, candidates=left_in)).items():
        assert row["passage_index"] == world.ranking(query)[2:9]
        others = [p for p in searched[query]["passage_index"] if (query, p) not in POSITIVES]
        better = [p for p in others if world.score(query, p) > row["positive_score"]]
        assert row["positive_rank"] == 1 + len(better), positive


@pytest.mark.parametrize("starved", ["drop", "fill", "fewer"])
def test_starved_queries(world: World, starved: str) -> None:
    lowest = {query: min(world.score(query, p) for p in world.ranking(query)) for query in range(4)}
    # Only the lowest score of one query lies below this, so that the others have nothing.
    bound = sorted(lowest.values())[0] + 0.5
    few = {q: [p for p in world.ranking(q) if world.score(q, p) < bound] for q in range(4)}
    made = world.pool({"filters": {"below": bound}, "starved": starved, "num_negatives": 12})
    outcome, found = world.bench.outcome(made), rows(made)
    kept = {query for query, _ in found}
    if starved == "drop":
        assert kept == set() and "no query has a pool" in "".join(outcome.warnings)
    elif starved == "fewer":
        assert kept == {query for query, passages in few.items() if passages}
    else:
        assert kept == {0, 1, 2, 3}
        for (query, _), row in found.items():
            assert len(set(row["passage_index"])) == 12
            assert row["passage_index"][: len(few[query])] == few[query]
            assert not set(row["passage_index"]) & set(EVERY_POSITIVE[query])
            # What the filter has refused does not come back.
            assert not set(row["passage_index"]) & (set(world.ranking(query)) - set(few[query]))
            assert row["score"] == [world.score(query, p) for p in row["passage_index"]]
    assert outcome.rows_in == outcome.rows_out + sum(outcome.dropped.values())


def test_what_is_filled_in_is_no_positive(world: World) -> None:
    """All that the corpus has beside the positives."""
    for (query, _), row in rows(world.pool({"num_negatives": PASSAGES - 2})).items():
        others = set(range(PASSAGES)) - set(EVERY_POSITIVE[query])
        assert len(row["passage_index"]) == PASSAGES - 2
        assert set(row["passage_index"]) <= others
        assert row["passage_index"][:DEPTH] == world.ranking(query)


@pytest.mark.parametrize("name", ["trisampler_positive", "trisampler"])
def test_what_has_weight_0_is_counted_and_not_filled_in(world: World, name: str) -> None:
    made = world.pool({"sampler": {"name": name}, "num_negatives": 18, "positive": "each"})
    outside = {
        (query, positive): {
            p
            for p in world.ranking(query)
            if world.passages[positive] @ world.passages[p] <= world.score(query, p)
        }
        for query, positive in POSITIVES
    }
    outcome = world.bench.outcome(made)
    assert outcome.counts["left_out_by_sampler"] == sum(map(len, outside.values())) > 0
    assert outcome.counts["negatives_filled"] > 0
    for pair, row in rows(made).items():
        assert not set(row["passage_index"]) & outside[pair]


def test_two_pools_of_one_training_are_drawn_from_independently(world: World) -> None:
    made = world.pool({"sampler": {"name": "uniform"}, "num_negatives": 5})
    alone, _ = read_rows(Inputs({"lists": (made,)}), 5, SEED)
    both, _ = read_rows(Inputs({"lists": (made, made)}), 5, SEED)
    queries, shared = len(alone), []
    for epoch in range(50):
        first, second = (
            both.batch(np.arange(queries) + at, epoch).negatives.tolist() for at in (0, queries)
        )
        assert first == alone.batch(np.arange(queries), epoch).negatives.tolist()
        shared += [len(set(a) & set(b)) / 5 for a, b in zip(first, second, strict=True)]
    # 5 of 20, twice.
    assert np.mean(shared) == pytest.approx(5 / DEPTH, abs=0.05)


def test_shards_do_not_matter(world: World) -> None:
    whole = world.bench.given(
        CANDIDATES, {"candidates": [world.wired["candidates"].read("candidates")]}
    )
    params = {"filters": {"margin": 1.0}, "num_negatives": 15}
    one, many = (world.pool(params, candidates=each) for each in (whole, world.wired["candidates"]))
    assert len(many.shards("pools")) > len(one.shards("pools")) == 1
    assert one.read("pools").equals(many.read("pools"))
    several, single = (world.bench.outcome(made).metrics for made in (many, one))
    for name in ("effective_size", "overlap_with_top"):
        assert several[name] == pytest.approx(single[name])


def test_folds_are_weighed_by_the_model_that_has_not_seen_them(world: World) -> None:
    """Two halves of the queries, each with the vectors of another model."""
    table = world.wired["candidates"].read("candidates")
    even = table["query_index"].to_numpy() % 2 == 0
    halves = [
        world.bench.given(CANDIDATES, {"candidates": [table.filter(pa.array(mask))]})
        for mask in (even, ~even)
    ]
    other = embeddings(world.bench, -world.queries, world.passages, 30, 6)
    made = world.pool(candidates=halves, embeddings=[world.vectors, other])
    for (query, positive), row in rows(made).items():
        sign = 1 if query % 2 == 0 else -1
        assert row["positive_score"] == sign * world.score(query, positive)
    with pytest.raises(ValueError, match="more than one"):
        world.pool(candidates=[halves[0], halves[0]], embeddings=[world.vectors, other])


def test_vectors_stand_beside_what_they_have_found(world: World) -> None:
    """Swapped, each half would be scored by the model that was trained on it."""
    table = world.wired["candidates"].read("candidates")
    even = table["query_index"].to_numpy() % 2 == 0
    vectors = [world.vectors, embeddings(world.bench, -world.queries, world.passages, 30, 6)]
    halves = [
        world.bench.given(
            CANDIDATES,
            {"candidates": [table.filter(pa.array(mask))]},
            made=Made("mine", inputs={"embeddings": own}),
        )
        for mask, own in zip((even, ~even), vectors, strict=True)
    ]
    assert rows(world.pool(candidates=halves, embeddings=vectors))
    with pytest.raises(ValueError, match="candidates 1 were found by embeddings 2"):
        world.pool(candidates=halves, embeddings=vectors[::-1])
    # Candidates of one model may be scored by another.
    assert rows(world.pool(candidates=halves[0], embeddings=vectors[1]))


def test_answers_cannot_be_looked_for_where_there_are_none(world: World) -> None:
    without = world.bench.dataset(TEXTS, SPLITS, POSITIVES, rows_per_shard=17)
    with pytest.raises(ValueError, match="no query of 'train' comes with any"):
        world.pool({"filters": {"without_answer": True}}, dataset=without)


def test_the_overlap_is_that_of_one_draw_with_the_best(world: World) -> None:
    made = world.pool({"sampler": {"name": "softmax", "temperature": 8.0}})
    pools = tables.pools_of(made)
    drawn = pools.lists.keep(pools.draw(3, SEED, 0))
    shares = [len({*world.ranking(q)[:3]} & {*passages.tolist()}) / 3 for q, passages in drawn]
    assert 0 < np.mean(shares) < 1
    assert world.bench.outcome(made).metrics["overlap_with_top"] == pytest.approx(np.mean(shares))


def test_a_draw_like_the_top_is_warned_of(world: World) -> None:
    far = {"sampler": {"name": "simans", "b": 500.0}}
    (warning,) = world.bench.outcome(world.pool(far)).warnings
    assert "hardly differs from `top`" in warning
    assert not world.bench.outcome(world.pool({"sampler": {"name": "top"}})).warnings
    for lowest in ({"name": "nearest", "b": -500.0}, {"name": "nearest", "b": 500.0}):
        outcome = world.bench.outcome(world.pool({"sampler": lowest}))
        assert outcome.metrics["overlap_with_top"] == (1.0 if lowest["b"] > 0 else 0.0)
    low = {"sampler": {"name": "simans", "b": -500.0}}
    outcome = world.bench.outcome(world.pool(low))
    assert not outcome.warnings
    assert outcome.metrics["overlap_with_top"] < 0.1


@pytest.mark.parametrize("name", ["simans", "simans_laplace", "doc_sim", "trisampler_query"])
def test_a_draw_that_is_almost_uniform_is_warned_of(world: World, name: str) -> None:
    """Cosines differ by little, so that a density in units of the scores prefers nobody."""
    short = embeddings(world.bench, world.queries / 10, world.passages / 10, 25, 4)
    flat = world.bench.outcome(world.pool({"sampler": {"name": name}}, embeddings=short))
    (warning,) = flat.warnings
    assert "hardly differs from `uniform`" in warning and "`standardised: true`" in warning
    assert flat.metrics["effective_share"] == pytest.approx(1, abs=0.03)
    spread = {"sampler": {"name": name, "standardised": True}}
    assert not world.bench.outcome(world.pool(spread, embeddings=short)).warnings
    for other in ({"name": "uniform"}, {"name": "simans"}):
        assert not world.bench.outcome(world.pool({"sampler": other})).warnings


def test_without_embeddings_only_what_needs_no_positive(world: World) -> None:
    made = world.pool({"sampler": {"name": "uniform"}}, embeddings=None)
    row = rows(made)[1, 12]
    assert math.isnan(row["positive_score"])
    assert row["positive_rank"] == 0
    assert row["score"] == [world.score(1, p) for p in row["passage_index"]]
    metrics = world.bench.outcome(made).metrics
    assert "positives_by_rank" not in metrics and metrics["effective_share"] == pytest.approx(1)
    nearly = world.pool(
        {"sampler": {"name": "softmax", "temperature": 1e6}, "starved": "fill"}, embeddings=None
    )
    assert "lower `temperature`" in "".join(world.bench.outcome(nearly).warnings)


def test_without_embeddings_what_is_filled_in_has_no_score(world: World) -> None:
    params = {"sampler": {"name": "uniform"}, "num_negatives": 30, "positive": "each", "depth": 30}
    for (query, _), row in rows(world.pool(params, embeddings=None)).items():
        known = [world.score(query, p) for p in world.ranking(query)]
        assert row["score"][:DEPTH] == known and len(row["score"]) == 30
        assert np.isnan(row["score"][DEPTH:]).all()


@pytest.mark.parametrize(
    ("params", "wired", "message"),
    [
        ({}, {"candidates": 1}, "sampler 'simans' compares with the positive's score"),
        (
            {"sampler": {"name": "uniform"}, "filters": {"margin": 0.1}},
            {"candidates": 1},
            "filter 'margin' compares",
        ),
        ({}, {"candidates": 2, "embeddings": 1}, "1 embeddings for 2 candidates"),
        ({"sampler": {"name": "top", "a": 1.0}}, {"candidates": 1}, "sampler 'top' has no `a`"),
        (
            {"sampler": {"name": "uniform"}, "positive": "mean"},
            {"candidates": 1},
            "`positive: mean` is read by no sampler",
        ),
        ({}, {"candidates": 1, "embeddings": 1, "calibration": 1}, "input 'calibration' is wired"),
        (
            {"filters": {"first_rank": 200}},
            {"candidates": 1, "embeddings": 1},
            "first_rank 200 lies beyond depth 100",
        ),
        (
            {"filters": {"first_rank": 92}, "num_negatives": 10},
            {"candidates": 1, "embeddings": 1},
            "ranks 92 to 100 are fewer than num_negatives 10",
        ),
    ],
)
def test_what_does_not_fit_is_told_before_anything_runs(params, wired, message) -> None:
    (found,) = PoolParams.model_validate(params).mismatches(wired, Resources())
    assert message in found


def test_a_and_b_are_the_papers_unless_they_are_given() -> None:
    def sampler(**given) -> SamplerParams:
        return PoolParams.model_validate({"sampler": given}).sampler

    assert PoolParams().sampler == sampler(name="simans")
    assert (sampler().density, sampler().b) == (0.5, 0.0)
    assert sampler(name="doc_sim").density == 0.5
    assert sampler(name="simans_laplace").density == 3.0
    assert sampler(name="simans_laplace", a=0.5).density == 0.5


def test_parameters_are_strict() -> None:
    with pytest.raises(ValidationError):
        registry()["pool"].params.model_validate({"sampler": {"temprature": 1.0}})


def test_training_reads_what_the_stage_wrote(world: World) -> None:
    made = world.pool({"depth": 8})
    pools = tables.pools_of(made)
    assert pools.lists.query_indices.tolist() == [0, 0, 1, 2, 3]
    assert pools.positives.tolist() == [10, 11, 12, 13, 14]
    drawn = pools.lists.keep(pools.draw(3, 1, 0))
    assert drawn.lengths.tolist() == [3] * 5
    for query, passages in drawn:
        assert set(passages.tolist()) <= set(world.ranking(query)[:8])
