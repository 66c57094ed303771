"""The stage `gradients` against a loop of autograd, and which queries and passages it looks at."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.artifacts.kinds import CANDIDATES, EMBEDDINGS, RETRIEVER, TOKENS
from pipeline.artifacts.reader import Artifact
from pipeline.dag.contract import Inputs
from pipeline.methods import samplers
from pipeline.models.dual_encoder import DualEncoder
from pipeline.models.encoder import TensorBatch
from pipeline.stages import tables
from pipeline.stages.gradient_study import GradientStudy
from pipeline.stages.gradients import GradientsParams
from tests.benches import EXACT, Bench, Made, TinyWorld, embeddings

SEED = 5
DEPTH, SEARCHED, RANDOM, TEMPERATURE = 7, 10, 3, 0.05
PARAMS = {"depth": DEPTH, "random_negatives": RANDOM, "ranks_per_task": 3}
COLUMNS = ("mean_norm", "variance_norm", "trace_covariance", "mean_cosine")


@pytest.fixture(scope="module")
def wired(tiny: TinyWorld) -> dict[str, Artifact]:
    """The inputs of the stage, of a retriever like the default pipeline's."""
    both = {"dataset": tiny.dataset, "tokens": tiny.tokens}
    encoder = {"shared": True, "pooling": "mean", "normalize": True, "temperature": TEMPERATURE}
    retriever = tiny.bench.run("initial_retriever", encoder, base=tiny.base, tokens=tiny.tokens)
    vectors = tiny.bench.run("encode", EXACT, retriever=retriever, **both)
    candidates = tiny.bench.run("mine", {"depths": {"dev": SEARCHED}}, embeddings=vectors, **both)
    return {**both, "retriever": retriever, "embeddings": vectors, "candidates": candidates}


@pytest.fixture(scope="module")
def made(tiny: TinyWorld, wired) -> Artifact:
    return tiny.bench.run("gradients", PARAMS, seed=SEED, **wired)


def columns(artifact: Artifact) -> dict[str, np.ndarray]:
    table = artifact.read("ranks")
    return {name: table[name].to_numpy() for name in ("rank", "queries", *COLUMNS)}


def contributions(wired) -> tuple[dict[int, list[np.ndarray]], dict[int, list[float]], list[int]]:
    """By rank, what each query's passage adds to the gradient, and its cosine with the positive's;
    and the ranks of the positives."""
    model = DualEncoder.load(wired["retriever"].folder("model")).eval()
    named = list(model.passage_tower.model.encoder.layer[-1].named_parameters())
    store = tables.open_tokens(wired["tokens"])
    queries = tables.queries_of(wired["dataset"], ["dev"])
    stored = tables.query_vectors(wired["embeddings"], queries).astype(np.float32)
    passages = np.concatenate(
        [v for _, v in tables.vector_blocks(wired["embeddings"].shards("passages"))]
    )
    scores = stored @ passages.astype(np.float32).T
    known = tables.never_negative(wired["dataset"], wired["tokens"])
    positives = tables.positives_of(wired["dataset"]).lists()

    def gradient(query: int, passage: int) -> np.ndarray:
        batch = TensorBatch.from_tokens(store.passage_batch([passage]), torch.device("cpu"))
        value = model.encode_passages(batch)[0] @ torch.from_numpy(stored[query])
        parts = torch.autograd.grad(value, [weights for _, weights in named])
        return torch.cat([part.flatten() for part in parts]).double().numpy()

    vectors: dict[int, list[np.ndarray]] = {rank: [] for rank in range(DEPTH + 1)}
    cosines: dict[int, list[float]] = {rank: [] for rank in range(DEPTH + 1)}
    ranks = []
    for row, query in enumerate(queries.tolist()):
        (own,) = (p.tolist() for q, p in positives if q == query)
        left = [p for p in range(len(passages)) if not known.contains([query], [p])[0]]
        ranking = sorted(left, key=lambda p: (-scores[row, p], p))
        searched = sorted(range(len(passages)), key=lambda p: (-scores[row, p], p))[:SEARCHED]
        others = [p for p in searched if p in left]
        ranks.append(1 + sum(scores[row, p] > scores[row, own[0]] for p in others))
        chosen = ranking[:DEPTH]
        aside = known | type(known).of(([query] * DEPTH, chosen))
        random = samplers.corpus(np.array([query]), RANDOM, len(passages), aside, SEED)
        weights = {p: np.exp(float(scores[row, p]) / TEMPERATURE) for p in range(len(passages))}
        total = weights[own[0]] + sum(weights[p] for p in chosen)
        pull = (weights[own[0]] / total - 1) * gradient(row, own[0])
        entries = [(rank, p, total) for rank, p in enumerate(chosen, 1)]
        entries += [(0, p, total + weights[p]) for p in random.passage_indices.tolist()]
        for rank, passage, whole in entries:
            push = weights[passage] / whole / TEMPERATURE * gradient(row, passage)
            vectors[rank].append(push)
            cosines[rank].append(push @ pull / np.linalg.norm(push) / np.linalg.norm(pull))
    return vectors, cosines, ranks


def test_the_table_is_that_of_a_loop_over_queries_and_ranks(tiny, wired, made) -> None:
    vectors, cosines, ranks = contributions(wired)
    found = columns(made)
    assert found["rank"].tolist() == list(range(DEPTH + 1))
    assert found["queries"].tolist() == [8] * (DEPTH + 1)
    assert len(vectors[0]) == 8 * RANDOM and len(vectors[DEPTH]) == 8
    for rank in range(DEPTH + 1):
        norms = np.linalg.norm(vectors[rank], axis=1)
        wanted = (
            norms.mean(),
            norms.var(ddof=1),
            np.var(vectors[rank], axis=0, ddof=1).sum(),
            np.mean(cosines[rank]),
        )
        assert [found[name][rank] for name in COLUMNS] == pytest.approx(wanted, rel=1e-3), rank
    document = made.document("gradients.json")
    assert (document["depth"], document["queries"], document["random_negatives"]) == (7, 8, 3)
    assert document["temperature"] == TEMPERATURE
    layer = DualEncoder.load(wired["retriever"].folder("model")).passage_tower.last_layer
    assert document["parameters"] == sum(weights.numel() for weights in layer.parameters())
    assert document["positive_rank"]["mean"] == np.mean(ranks)
    assert document["positive_rank"]["median"] == np.median(ranks)
    assert document["positive_rank"]["quantiles"]["95%"] == np.quantile(ranks, 0.95)
    outcome = tiny.bench.outcome(made)
    assert (outcome.rows_in, outcome.rows_out, outcome.dropped) == (8, 8, {})


@pytest.mark.parametrize(
    "params", [{"ranks_per_task": 1}, {"ranks_per_task": 50}, {"gradients_at_once": 2}]
)
def test_how_the_work_is_cut_does_not_matter(tiny, wired, made, params) -> None:
    other = tiny.bench.run("gradients", {**PARAMS, **params}, seed=SEED, **wired)
    assert len(other.shards("ranks")) == {1: 8, 50: 2}.get(params.get("ranks_per_task"), 4)
    one, two = columns(made), columns(other)
    for name, values in one.items():
        np.testing.assert_allclose(two[name], values, rtol=1e-4, err_msg=name)


def test_positives_may_be_left_in_the_search_or_not(tiny, wired, made) -> None:
    """Every dev query has one known positive, so that both searches leave nine or more others."""
    both = {"dataset": tiny.dataset, "tokens": tiny.tokens}
    params = {"depths": {"dev": 9}, "remove_positives": ["dev"]}
    without = tiny.bench.run("mine", params, embeddings=wired["embeddings"], **both)
    other = tiny.bench.run("gradients", PARAMS, seed=SEED, **{**wired, "candidates": without})
    assert other.read("ranks").equals(made.read("ranks"))


def test_a_choice_of_hard_queries_is_warned_of(tiny, wired, made) -> None:
    """Searched as deep as asked for: only queries whose positive was not found have enough."""
    hard = tiny.bench.run("gradients", {**PARAMS, "depth": SEARCHED}, seed=SEED, **wired)
    document, outcome = hard.document("gradients.json"), tiny.bench.outcome(hard)
    assert document["positive_rank"]["beyond_candidates"] == document["queries"] > 1
    assert outcome.dropped == {"too few negatives": 8 - document["queries"]}
    (warning,) = outcome.warnings
    assert "search deeper" in warning and not tiny.bench.outcome(made).warnings


def test_vectors_of_another_retriever_are_refused(tiny, wired) -> None:
    with pytest.raises(ValueError, match=r"the embeddings .* are not those of the retriever"):
        tiny.bench.run("gradients", PARAMS, **{**wired, "embeddings": tiny.vectors})
    with pytest.raises(ValueError, match=r"the candidates .* are not those of the retriever"):
        tiny.bench.run("gradients", PARAMS, **{**wired, "candidates": tiny.candidates})


# Which queries and passages -------------------------------------------------------------------

PASSAGES, WIDTH = 40, 5
SPLITS = ["train", *["dev"] * 6]
# Query 6 has no label, query 5 too few candidates.
POSITIVES = [(0, 1), (1, 3), (1, 9), (1, 20), (2, 4), (3, 6), (4, 7), (5, 8)]
# Passage 30 repeats passage 4.
HASHES = [4 if number == 30 else number for number in range(PASSAGES)]


class World:
    def __init__(self, bench: Bench, retriever: Artifact) -> None:
        draw = np.random.default_rng(3)
        self.queries = draw.integers(-3, 4, (len(SPLITS), WIDTH))
        self.passages = draw.integers(-3, 4, (PASSAGES, WIDTH))
        empty = pa.array([[]] * PASSAGES, pa.list_(pa.int32()))
        hashes = pa.array(HASHES, pa.int64())
        tokens = pa.table({"title_ids": empty, "text_ids": empty, "content_hash": hashes})
        self.wired = {
            "dataset": bench.dataset(["a"] * PASSAGES, SPLITS, POSITIVES, excluded=[(3, 12)]),
            "tokens": bench.given(TOKENS, {"passages": [tokens]}),
            "retriever": retriever,
            "embeddings": embeddings(bench, self.queries, self.passages, 15, 3),
            "candidates": self.candidates(bench),
        }

    def ranking(self, query: int) -> list[int]:
        scores = self.passages @ self.queries[query]
        return sorted(range(PASSAGES), key=lambda p: (-scores[p], p))

    def candidates(self, bench: Bench) -> Artifact:
        lengths = [4 if query == 5 else 20 for query in range(len(SPLITS))]
        # Not in the order of the scores: ranks are the retriever's.
        rows = [sorted(self.ranking(query)[:n]) for query, n in enumerate(lengths)]
        table = {
            "query_index": pa.array(range(len(SPLITS)), pa.int32()),
            "passage_index": pa.array(rows, pa.list_(pa.int32())),
            "score": pa.array([[0.0] * n for n in lengths], pa.list_(pa.float32())),
        }
        return bench.given(CANDIDATES, {"candidates": [pa.table(table)]})

    def study(self, seed: int = 1, **params) -> GradientStudy:
        given = {"depth": 12, "random_negatives": 4, **params}
        inputs = Inputs({name: (one,) for name, one in self.wired.items()})
        return GradientStudy.read(inputs, GradientsParams.model_validate(given), seed)


@pytest.fixture
def world(bench: Bench, tiny: TinyWorld) -> World:
    return World(bench, tiny.retriever)


NEVER = {1: {3, 9, 20}, 2: {4, 30}, 3: {6, 12}, 4: {7}}


def test_queries_without_positive_or_with_too_few_candidates_are_counted(world: World) -> None:
    study = world.study()
    assert study.queries.tolist() == [1, 2, 3, 4]
    assert study.dropped == {"no positive": 1, "too few negatives": 1}


def test_negatives_are_ranked_without_known_positives_and_their_copies(world: World) -> None:
    study = world.study()
    assert study.ranks.tolist() == [0] * 4 + list(range(1, 13))
    for row, query in enumerate(study.queries.tolist()):
        scores = world.passages @ world.queries[query]
        left = [p for p in world.ranking(query)[:20] if p not in NEVER[query]]
        assert study.passages[row, 4:].tolist() == left[:12]
        random = study.passages[row, :4].tolist()
        assert len(set(random)) == 4 and not set(random) & (NEVER[query] | set(left[:12]))
        positive = min(p for q, p in POSITIVES if q == query)
        assert study.positives[row] == positive
        better = sum(scores[p] > scores[positive] for p in left)
        assert study.positive_ranks[row] == 1 + better
        own, set_of = np.exp(scores[positive]), np.exp(scores[left[:12]].astype(np.float64))
        wanted = set_of / (own + set_of.sum())
        np.testing.assert_allclose(study.factors[row, 4:], wanted, rtol=1e-6)
    lowest = [
        all(scores[p] > scores[own] for p in world.ranking(q)[:20] if p not in NEVER[q])
        for q, own in zip(study.queries.tolist(), study.positives.tolist(), strict=True)
        for scores in [world.passages @ world.queries[q]]
    ]
    assert study.beyond == sum(lowest)


def test_queries_are_drawn_by_the_seed(world: World) -> None:
    drawn = [tuple(world.study(seed, max_queries=2).queries.tolist()) for seed in range(20)]
    assert world.study(3, max_queries=2).dropped["not drawn"] == 2
    assert len(set(drawn)) > 2 and {query for some in drawn for query in some} == {1, 2, 3, 4}
    assert tuple(world.study(3, max_queries=2).queries.tolist()) == drawn[3]


def test_any_positive_can_be_drawn(world: World) -> None:
    drawn = {int(world.study(seed, positive="random").positives[0]) for seed in range(30)}
    assert drawn == {3, 9, 20}


def test_what_is_too_small_is_told(world: World) -> None:
    with pytest.raises(ValueError, match=r"0 of 6 queries of split 'dev' .* 21 candidates"):
        world.study(depth=21)
    with pytest.raises(ValueError, match="has no 30 others"):
        world.study(random_negatives=30)


def test_the_retriever_behind_is_found_in_manifests(bench: Bench) -> None:
    from pipeline.stages.lineage import retriever_key

    retriever = bench.given(RETRIEVER, made=Made("train_retriever"))
    vectors = bench.given(EMBEDDINGS, made=Made("encode", inputs={"retriever": retriever}))
    found = bench.given(CANDIDATES, made=Made("mine", inputs={"embeddings": vectors}))
    assert retriever_key(vectors) == retriever_key(found) == retriever.key
    assert retriever_key(bench.given(CANDIDATES, made=Made("bm25"))) is None
    assert retriever_key(bench.given(CANDIDATES)) is None
