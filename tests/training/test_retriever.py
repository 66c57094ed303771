from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_cases import (
    CPU,
    ROOMY,
    TIGHT,
    WorkerGroup,
    gradients,
    loss_of_vectors,
    retriever_objective,
    retriever_step,
    tiny_retriever,
)

from pipeline.methods.lists import PassageLists
from pipeline.models.encoder import TensorBatch
from pipeline.text.batches import token_budget_batches
from pipeline.text.store import TokenStore
from pipeline.training.batches import Share
from pipeline.training.length_groups import by_length
from pipeline.training.retriever import PassageCentric, RetrieverObjective
from pipeline.training.rows import TrainingRows
from pipeline.training.world import World

SINGLE = World.single(CPU)


def literal_loss(objective: RetrieverObjective, group: int, masked: bool) -> torch.Tensor:
    """The mean loss of rows 0..15 by explicit loops over rows and their candidates."""
    model, store, rows = objective.model, objective.store, objective.rows
    passages = np.concatenate([rows.positives[:, None], rows.negatives], axis=1)
    query_vectors = model.encode_queries(
        TensorBatch.from_tokens(store.query_batch(rows.query_indices), CPU)
    )
    passage_vectors = model.encode_passages(
        TensorBatch.from_tokens(store.passage_batch(passages.ravel()), CPU)
    ).view(*passages.shape, -1)
    losses = []
    for row, query in enumerate(rows.query_indices):
        same_query = rows.positives[rows.query_indices == query]
        known = set(store.content_hash[same_query].tolist())
        own = query_vectors[row] @ passage_vectors[row, 0] / model.config.temperature
        scores = []
        first = row // group * group
        for other in range(first, first + group):
            for place, passage in enumerate(passages[other]):
                if (other, place) == (row, 0):
                    scores.append(own)
                elif not masked or int(store.content_hash[passage]) not in known:
                    score = query_vectors[row] @ passage_vectors[other, place]
                    scores.append(score / model.config.temperature)
        losses.append(torch.logsumexp(torch.stack(scores), 0) - own)
    return torch.stack(losses).mean()


CASES = [
    {"negatives": "cross_batch", "masked": True},
    {"negatives": "cross_batch", "masked": False},
    {"negatives": "in_batch", "in_batch_group_size": 4, "masked": True},
]


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("budget", [ROOMY, TIGHT])
@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_the_plain_computation_for_any_number_of_workers(
    workers: WorkerGroup, store: Path, size: int, budget: int, case: dict[str, Any]
) -> None:
    oracle = retriever_objective(store, **case)
    loss = literal_loss(oracle, case.get("in_batch_group_size", 16), case["masked"])
    loss.backward()
    expected = gradients(oracle.model)
    assert max(np.abs(gradient).max() for gradient in expected.values()) > 0.02
    results = workers.run(size, retriever_step, store, {**case, "token_budget": budget})
    for measured_loss, measured in results:
        assert measured_loss == pytest.approx(float(loss.detach()), rel=1e-5)
        assert measured.keys() == expected.keys()
        for name, gradient in expected.items():
            np.testing.assert_allclose(measured[name], gradient, rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("comparison", ["pairwise", "lambda_rank"])
@pytest.mark.parametrize("case", [CASES[0], CASES[2]])
def test_losses_over_pairs_are_the_same_for_any_number_of_workers(
    workers: WorkerGroup, store: Path, size: int, comparison: str, case: dict[str, Any]
) -> None:
    options = {**case, "comparison": comparison}
    ((loss, expected),) = workers.run(1, retriever_step, store, options)
    softmax, _ = workers.run(1, retriever_step, store, case)[0]
    assert loss < softmax
    for measured_loss, measured in workers.run(size, retriever_step, store, options):
        assert measured_loss == pytest.approx(loss, rel=1e-5)
        for name, gradient in expected.items():
            np.testing.assert_allclose(measured[name], gradient, rtol=1e-4, atol=1e-6, err_msg=name)


def literal_passage_centric(
    objective: RetrieverObjective, group: int, masked: bool, form: str
) -> torch.Tensor:
    """PAIR's L_P of rows 0..15 by explicit loops over rows and what they are compared with."""
    model, store, rows = objective.model, objective.store, objective.rows
    passages = np.concatenate([rows.positives[:, None], rows.negatives], axis=1)
    queries = model.encode_queries(
        TensorBatch.from_tokens(store.query_batch(rows.query_indices), CPU)
    )
    vectors = model.encode_passages(
        TensorBatch.from_tokens(store.passage_batch(passages.ravel()), CPU)
    ).view(*passages.shape, -1)
    known = {
        query: {
            int(store.content_hash[p]) for p in rows.positives[rows.query_indices == query].tolist()
        }
        for query in rows.query_indices.tolist()
    }
    losses = []
    for row, query in enumerate(rows.query_indices.tolist()):
        positive, text = vectors[row, 0], int(store.content_hash[passages[row, 0]])
        own = positive @ queries[row] / model.config.temperature
        scores = [own]
        first = row // group * group
        for other in range(first, first + group):
            other_query = int(rows.query_indices[other])
            if form == "released" and other != row and not (masked and text in known[other_query]):
                scores.append(positive @ queries[other] / model.config.temperature)
            scores += [
                positive @ vectors[other, place] / model.config.temperature
                for place in range(1, passages.shape[1])
                if not (masked and int(store.content_hash[passages[other, place]]) in known[query])
            ]
        losses.append(torch.logsumexp(torch.stack(scores), 0) - own)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("form", ["paper", "released"])
@pytest.mark.parametrize("case", CASES)
def test_passage_centric_gradients_equal_the_plain_computation(
    workers: WorkerGroup, store: Path, size: int, form: str, case: dict[str, Any]
) -> None:
    weight = 0.3
    oracle = retriever_objective(store, **case)
    group, masked = case.get("in_batch_group_size", 16), case["masked"]
    loss = (1 - weight) * literal_loss(oracle, group, masked) + weight * literal_passage_centric(
        oracle, group, masked, form
    )
    loss.backward()
    expected = gradients(oracle.model)
    options = {**case, "passage_centric": PassageCentric(weight, form), "token_budget": TIGHT}
    for measured_loss, measured in workers.run(size, retriever_step, store, options):
        assert measured_loss == pytest.approx(float(loss.detach()), rel=1e-5)
        for name, gradient in expected.items():
            np.testing.assert_allclose(measured[name], gradient, rtol=1e-4, atol=1e-6, err_msg=name)


def test_the_forms_of_the_passage_centric_loss_differ(store: Path) -> None:
    # All scores are equal: a positive's loss is the logarithm of how many things it is compared
    # with. 8 rows with 2 negatives: its query and 16 negatives, or 8 queries and 16 negatives.
    rows = TrainingRows(np.arange(8), np.arange(2, 10), np.full((8, 2), 30))
    for form, compared in (("paper", 17), ("released", 24)):
        objective = RetrieverObjective(
            tiny_retriever(0),
            TokenStore.open(store),
            rows,
            None,
            passage_centric=PassageCentric(1.0, form),
        )
        loss = objective.loss(
            torch.zeros(8, 2),
            torch.zeros(24, 2),
            rows.query_indices,
            np.concatenate([rows.positives, rows.negatives.ravel()]),
            SINGLE,
        )
        assert float(loss) == pytest.approx(math.log(compared)), form


def test_a_passage_centric_loss_without_hard_negatives_is_refused(store: Path) -> None:
    rows = TrainingRows(np.arange(4), np.arange(4), np.zeros((4, 0), np.int64))
    with pytest.raises(ValueError, match="num_negatives is 0"):
        RetrieverObjective(
            tiny_retriever(0),
            TokenStore.open(store),
            rows,
            None,
            passage_centric=PassageCentric(0.1),
        )


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_each_rank_finds_its_own_positives(
    workers: WorkerGroup, store: Path, size: int, count: int
) -> None:
    rows = TrainingRows(np.arange(8), np.arange(8), np.zeros((8, count), np.int64))
    queries = 200 * np.eye(8, dtype=np.float32)
    passages = np.zeros((8, 1 + count, 8), dtype=np.float32)
    passages[:, 0] = np.eye(8)
    losses = workers.run(size, loss_of_vectors, store, queries, passages, rows)
    assert losses == pytest.approx([0.0] * size, abs=1e-6)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_other_queries_hard_negatives_are_negatives(
    workers: WorkerGroup, store: Path, size: int
) -> None:
    rows = TrainingRows(np.arange(8), np.arange(8), np.zeros((8, 3), np.int64))
    zeros = np.zeros((8, 2), np.float32), np.zeros((8, 4, 2), np.float32)
    losses = workers.run(size, loss_of_vectors, store, *zeros, rows)
    assert losses == pytest.approx([math.log(8 * 4)] * size)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_absent_places_are_no_negatives_for_anyone(
    workers: WorkerGroup, store: Path, size: int
) -> None:
    absent = np.zeros((8, 3), np.bool_)
    absent[0], absent[5, 1:] = True, True
    rows = TrainingRows(np.arange(8), np.arange(8), np.zeros((8, 3), np.int64), absent)
    zeros = np.zeros((8, 2), np.float32), np.zeros((8, 4, 2), np.float32)
    losses = workers.run(size, loss_of_vectors, store, *zeros, rows)
    assert losses == pytest.approx([math.log(8 * 4 - 5)] * size)


def test_known_positives_and_equal_texts_are_no_negatives(store: Path) -> None:
    # Query 0 has positives 0 and 5; passage 1 reads like passage 0. All scores are equal, so a
    # row's loss is the logarithm of how many candidates it keeps.
    rows = TrainingRows(
        np.array([0, 0, 3]), np.array([0, 5, 9]), np.array([[1, 20], [21, 22], [5, 0]])
    )
    known = PassageLists.from_pairs([0, 0, 3], [0, 5, 9])
    expected = {True: [9 - 4, 9 - 4, 9], False: [9, 9, 9]}
    for masked, kept in expected.items():
        objective = RetrieverObjective(
            tiny_retriever(0), TokenStore.open(store), rows, known if masked else None
        )
        loss = objective.loss(
            torch.zeros(3, 2),
            torch.zeros(9, 2),
            rows.query_indices,
            np.concatenate([rows.positives, rows.negatives.ravel()]),
            SINGLE,
        )
        assert float(loss) == pytest.approx(np.log(kept).mean())


def test_a_row_without_known_positives_still_masks_copies_of_its_own(store: Path) -> None:
    rows = TrainingRows(np.array([0, 3]), np.array([0, 9]), np.array([[1], [1]]))
    nothing = PassageLists.from_pairs([], [])
    objective = RetrieverObjective(tiny_retriever(0), TokenStore.open(store), rows, nothing)
    loss = objective.loss(
        torch.zeros(2, 2), torch.zeros(4, 2), np.array([0, 3]), np.array([0, 9, 1, 1]), SINGLE
    )
    assert float(loss) == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_dropout_draws_the_same_masks_in_both_passes_of_the_cache(store: Path) -> None:
    objective = retriever_objective(store, dropout=0.3, token_budget=TIGHT)
    torch.manual_seed(11)
    loss = objective.step(Share(np.arange(16)), SINGLE)["loss"]
    measured = gradients(objective.model)
    # The same micro-batches in the same order, but with all activations kept.
    rows, tokens = objective.rows, objective.store
    passages = np.concatenate([rows.positives, rows.negatives.ravel()])
    objective.model.zero_grad()
    torch.manual_seed(11)
    vectors = []
    for encode, batch, lengths, indices in (
        (objective.model.encode_queries, tokens.query_batch, tokens.query_lengths,
         rows.query_indices),
        (objective.model.encode_passages, tokens.passage_batch, tokens.passage_lengths, passages),
    ):  # fmt: skip
        micro_batches = token_budget_batches(lengths(indices), TIGHT)
        assert len(micro_batches) > 1
        parts = []
        for at in micro_batches:
            own = indices[at]

            def forward(rows: np.ndarray, own=own, encode=encode, batch=batch) -> torch.Tensor:
                return encode(TensorBatch.from_tokens(batch(own[rows]), CPU))

            parts.append(by_length(forward, lengths(own), CPU))
        vectors.append(torch.cat(parts)[np.argsort(np.concatenate(micro_batches))])
    expected_loss = objective.loss(*vectors, rows.query_indices, passages, SINGLE)
    expected_loss.backward()
    assert float(loss) == float(expected_loss.detach())
    for name, gradient in gradients(objective.model).items():
        np.testing.assert_allclose(measured[name], gradient, rtol=1e-4, atol=1e-6, err_msg=name)


def test_in_batch_negatives_need_a_group_size(store: Path) -> None:
    with pytest.raises(ValueError, match="need in_batch_group_size"):
        retriever_objective(store, negatives="in_batch")


def test_describe_counts_negatives(store: Path) -> None:
    cross = retriever_objective(store)
    assert cross.describe(512) == "1535 negatives per query (cross-batch, 2 of them its own)"
    within = retriever_objective(store, negatives="in_batch", in_batch_group_size=4)
    assert within.describe(512) == "11 negatives per query (in-batch, 2 of them its own)"
