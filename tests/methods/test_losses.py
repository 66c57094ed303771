from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.methods import losses


def literal_contrastive(
    scores: np.ndarray, labels: list[int], excluded: np.ndarray, temperature: float
) -> float:
    total = 0.0
    for row, label in enumerate(labels):
        kept = [j for j in range(scores.shape[1]) if not excluded[row, j]]
        weights = [np.exp(scores[row, j] / temperature) for j in kept]
        total -= np.log(np.exp(scores[row, label] / temperature) / sum(weights))
    return total / len(labels)


@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_contrastive_equals_the_written_out_sum(temperature: float):
    generator = torch.Generator().manual_seed(3)
    scores = torch.randn(4, 7, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 3, 6, 2])
    excluded = torch.rand(4, 7, generator=generator) < 0.3
    excluded[torch.arange(4), labels] = False
    expected = literal_contrastive(scores.numpy(), labels.tolist(), excluded.numpy(), temperature)
    assert losses.contrastive(scores, labels, excluded, temperature).item() == pytest.approx(
        expected
    )


def test_contrastive_of_equal_scores_is_the_logarithm_of_the_candidates():
    loss = losses.contrastive(torch.zeros(3, 8), torch.tensor([0, 1, 2]))
    assert loss.item() == pytest.approx(np.log(8))


def test_contrastive_counts_in_float32_and_survives_large_dot_products():
    scores = torch.tensor([[300.0, 301.0, -400.0]], dtype=torch.bfloat16)
    loss = losses.contrastive(scores, torch.tensor([0]))
    assert loss.dtype == torch.float32
    # bfloat16 holds 300 and 302 here (steps of 2); the loss of that pair is exact in float32.
    gap = (scores[0, 1].float() - scores[0, 0].float()).item()
    assert loss.item() == pytest.approx(np.log1p(np.exp(gap)), rel=1e-6)


def test_excluded_candidates_get_no_gradient_and_a_lonely_positive_no_loss():
    scores = torch.randn(2, 4, requires_grad=True)
    excluded = torch.tensor([[False, True, False, True], [True, False, True, True]])
    loss = losses.contrastive(scores, torch.tensor([0, 1]), excluded)
    loss.backward()
    assert scores.grad is not None
    assert (scores.grad[excluded] == 0).all()
    assert scores.grad[1, 1] == 0


def test_gradients_pass_gradcheck():
    scores = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([4, 0, 2])
    excluded = torch.zeros(3, 5, dtype=torch.bool)
    excluded[0, 1] = True
    assert torch.autograd.gradcheck(
        lambda each: losses.contrastive(each, labels, excluded, 0.5), [scores]
    )
    assert torch.autograd.gradcheck(losses.listwise, [scores])
    pairs = torch.randn(4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda each: losses.pointwise(each, torch.tensor([1, 0, 0, 1])), [pairs]
    )


def test_passage_centric_by_hand():
    # Two positives, their queries, one hard negative each; temperature 2.
    queries = torch.tensor([[4.0, 1.0], [0.0, 2.0]], dtype=torch.float64)
    negatives = torch.tensor([[2.0, 0.0], [1.0, 3.0]], dtype=torch.float64)
    labels, alone = torch.tensor([0, 1]), ~torch.eye(2, dtype=torch.bool)
    e = np.exp
    paper = -np.log(e(2) / (e(2) + e(1) + e(0))) - np.log(e(1) / (e(1) + e(0.5) + e(1.5)))
    measured = losses.passage_centric(queries, negatives, labels, alone, None, 2.0)
    assert measured.item() == pytest.approx(paper / 2)
    both = torch.zeros(2, 2, dtype=torch.bool)
    released = -np.log(e(2) / (e(2) + e(0.5) + e(1) + e(0))) - np.log(
        e(1) / (e(0) + e(1) + e(0.5) + e(1.5))
    )
    measured = losses.passage_centric(queries, negatives, labels, both, None, 2.0)
    assert measured.item() == pytest.approx(released / 2)


def test_passage_centric_gradients_are_finite_differences():
    queries = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    negatives = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([3, 4, 5])
    left_out = torch.zeros(3, 4, dtype=torch.bool)
    left_out[1, 2] = True
    others = torch.zeros(3, 6, dtype=torch.bool)
    others[0, 0] = True
    assert torch.autograd.gradcheck(
        lambda q, n: losses.passage_centric(q, n, labels, others, left_out, 0.7),
        [queries, negatives],
    )


def literal_pairs(
    scores: np.ndarray, labels: list[int], excluded: np.ndarray, temperature: float, cut: int | None
) -> float:
    """STAR's loss by loops, or with a cut ADORE's."""
    total = 0.0
    for row, label in enumerate(labels):
        kept = [j for j in range(scores.shape[1]) if not excluded[row, j]]
        ranking = sorted(kept, key=lambda j: (-scores[row, j], j))
        gain = {j: 1 / rank if rank <= (cut or rank) else 0 for rank, j in enumerate(ranking, 1)}
        pairs = [
            (1 if cut is None else abs(gain[label] - gain[j]))
            * -np.log(1 / (1 + np.exp((scores[row, j] - scores[row, label]) / temperature)))
            for j in kept
            if j != label
        ]
        total += sum(pairs) / len(pairs) if pairs else 0
    return total / len(labels)


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_pairwise_and_lambda_rank_equal_the_written_out_sums(temperature: float):
    generator = torch.Generator().manual_seed(4)
    scores = torch.randn(5, 9, generator=generator, dtype=torch.float64)
    # Equal scores rank by column, on either side of the positive.
    scores[1, [0, 3, 5]] = 0.25
    labels = torch.tensor([0, 3, 8, 2, 4])
    excluded = torch.rand(5, 9, generator=generator) < 0.3
    excluded[4] = True
    excluded[torch.arange(5), labels] = False
    given = scores.numpy(), labels.tolist(), excluded.numpy(), temperature
    found = losses.pairwise(scores, labels, excluded, temperature)
    assert found.item() == pytest.approx(literal_pairs(*given, cut=None), rel=1e-6)
    for cut in (2, 3, 200):
        found = losses.lambda_rank(scores, labels, excluded, temperature, cut)
        assert found.item() == pytest.approx(literal_pairs(*given, cut=cut), rel=1e-6)


def test_pairs_of_equal_scores_have_the_logarithm_of_two():
    zeros, labels = torch.zeros(3, 4), torch.tensor([0, 1, 3])
    assert losses.pairwise(zeros, labels).item() == pytest.approx(np.log(2))
    # The positives rank first, second and last.
    weights = [
        (1 / 2 + 2 / 3 + 3 / 4) / 3,
        (1 / 2 + 1 / 6 + 1 / 4) / 3,
        (3 / 4 + 1 / 4 + 1 / 12) / 3,
    ]
    expected = np.log(2) * np.mean(weights)
    assert losses.lambda_rank(zeros, labels).item() == pytest.approx(expected)


def test_what_lies_beyond_the_cut_does_not_count():
    """Of a positive at rank 3 and negatives at 1, 2 and 4 only the first is within a cut of 1."""
    scores = torch.tensor([[1.0, 4.0, 2.0, 0.0]], requires_grad=True)
    loss = losses.lambda_rank(scores, torch.tensor([0]), cut=1)
    assert loss.item() == pytest.approx(np.log1p(np.exp(3)) / 3)
    loss.backward()
    assert scores.grad is not None and scores.grad[0, 2:].tolist() == [0, 0]


def test_two_hundred_ranks_count_unless_others_are_asked_for():
    """Of a positive at rank 250 and 299 negatives."""
    scores = torch.linspace(3, 0, 300)[None].requires_grad_()
    losses.lambda_rank(scores, torch.tensor([249])).backward()
    assert scores.grad is not None
    assert scores.grad[0].nonzero().flatten().tolist() == [*range(200), 249]


@pytest.mark.parametrize("name", ["pairwise", "lambda_rank"])
def test_pairwise_losses_count_in_float32_and_survive_large_dot_products(name):
    scores = torch.tensor([[300.0, 301.0, -400.0]], dtype=torch.bfloat16)
    loss = losses.RETRIEVER_LOSSES[name](scores, torch.tensor([0]))
    assert loss.dtype == torch.float32
    gap = (scores[0, 1].float() - scores[0, 0].float()).item()
    assert loss.item() == pytest.approx(np.log1p(np.exp(gap)) / (2 if name == "pairwise" else 4))


@pytest.mark.parametrize("name", ["pairwise", "lambda_rank"])
def test_excluded_candidates_get_no_gradient_and_a_row_without_pairs_no_loss(name):
    scores = torch.randn(2, 4, requires_grad=True)
    excluded = torch.tensor([[False, True, False, True], [True, False, True, True]])
    losses.RETRIEVER_LOSSES[name](scores, torch.tensor([0, 1]), excluded).backward()
    assert scores.grad is not None
    assert (scores.grad[excluded] == 0).all() and scores.grad[1, 1] == 0
    assert scores.grad[0, 0] < 0 < scores.grad[0, 2]


@pytest.mark.parametrize("name", ["pairwise", "lambda_rank"])
def test_gradients_of_pairs_are_finite_differences(name):
    """The weights of LambdaRank are constants: ranks do not change within a small difference."""
    scores = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([4, 0, 2])
    excluded = torch.zeros(3, 6, dtype=torch.bool)
    excluded[0, 1] = True
    assert torch.autograd.gradcheck(
        lambda each: losses.RETRIEVER_LOSSES[name](each, labels, excluded, 0.5), [scores]
    )


@pytest.mark.parametrize(("ranks", "size", "count"), [(1, 4, 2), (3, 2, 1), (2, 3, 4), (2, 2, 0)])
def test_negative_columns_are_all_that_is_no_positive(ranks: int, size: int, count: int):
    positives = [losses.candidate_labels(rank, size, count) for rank in range(ranks)]
    columns = torch.cat([*positives, losses.negative_columns(ranks, size, count)])
    assert sorted(columns.tolist()) == list(range(ranks * size * (1 + count)))


def test_pointwise_is_the_two_class_softmax_cross_entropy():
    classes = torch.randn(6, 2, dtype=torch.float64) * 5
    labels = torch.tensor([0, 1, 1, 0, 1, 0])
    expected = torch.nn.functional.cross_entropy(classes, labels)
    torch.testing.assert_close(losses.pointwise(classes[:, 1] - classes[:, 0], labels), expected)


def test_listwise_takes_the_first_as_positive_and_ignores_padding():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.5, -1.0, 99.0]])
    absent = torch.tensor([[False, False, False], [False, False, True]])
    expected = -(
        np.log(np.exp(2) / (np.exp(2) + np.exp(1) + 1))
        + np.log(np.exp(0.5) / (np.exp(0.5) + np.exp(-1)))
    )
    assert losses.listwise(logits, absent).item() == pytest.approx(expected / 2)


@pytest.mark.parametrize(("ranks", "batch_size", "negatives"), [(1, 3, 0), (2, 3, 1), (4, 2, 4)])
def test_labels_point_at_the_positives_of_the_gathered_candidates(
    ranks: int, batch_size: int, negatives: int
):
    gathered: list[tuple[str, int, int]] = []
    for rank in range(ranks):
        gathered += [("positive", rank, row) for row in range(batch_size)]
        gathered += [("negative", rank, row) for row in range(batch_size) for _ in range(negatives)]
    for rank in range(ranks):
        labels = losses.candidate_labels(rank, batch_size, negatives)
        found = [gathered[label] for label in labels.tolist()]
        assert found == [("positive", rank, row) for row in range(batch_size)]


def test_mean_over_ranks_is_the_loss_of_the_global_batch():
    """Two ranks of 3 queries against all candidates equal one rank of 6, in value and gradient."""
    torch.manual_seed(0)
    queries = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    positives = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    negatives = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    leaves = [queries, positives, negatives]

    def rank_loss(rank: int, batch_size: int) -> Tensor:
        rows = slice(rank * batch_size, (rank + 1) * batch_size)
        parts = [
            torch.cat(pair)
            for pair in zip(positives.split(batch_size), negatives.split(batch_size), strict=True)
        ]
        labels = losses.candidate_labels(rank, batch_size, 1)
        return losses.contrastive(queries[rows] @ torch.cat(parts).T, labels)

    whole = torch.autograd.grad(rank_loss(0, 6), leaves)
    halves = torch.autograd.grad((rank_loss(0, 3) + rank_loss(1, 3)) / 2, leaves)
    for one, other in zip(whole, halves, strict=True):
        torch.testing.assert_close(one, other)


def test_known_positives_are_masked_by_content_except_the_label():
    candidate_hashes = torch.tensor([10, 20, 10, 30, 40, 20])
    # Query 0 has positives 10 and 40; query 1 has 20 only, padded by itself.
    positive_hashes = torch.tensor([[10, 40], [20, 20]])
    excluded = losses.known_positives(positive_hashes, candidate_hashes, torch.tensor([0, 1]))
    assert excluded.int().tolist() == [[0, 0, 1, 0, 1, 0], [0, 0, 0, 0, 0, 1]]
