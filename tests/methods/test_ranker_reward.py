"""AR2's terms against numbers by hand, finite differences and autograd's own derivatives."""

from __future__ import annotations

import math

import pytest
import torch

from pipeline.methods.distillation import list_divergence
from pipeline.methods.ranker_reward import policy_gradient, reward_weighted, rewards

STUDENT = torch.tensor([[2.0, 1.0, -1.0], [0.0, 3.0, 0.5]], dtype=torch.float64)
RANKER = torch.tensor([[1.0, 3.0, -2.0], [0.5, 0.5, 0.5]], dtype=torch.float64)


def test_rewards_by_hand() -> None:
    expected = [
        [math.log(0.5), -math.log(1 + math.exp(2)), -math.log(1 + math.exp(-3))],
        [math.log(0.5)] * 3,
    ]
    for got, want in zip(rewards(RANKER).tolist(), expected, strict=True):
        assert got == pytest.approx(want)


def test_rewards_of_extreme_logits_stay_finite() -> None:
    assert rewards(torch.tensor([[-300.0, 300.0, 0.0]])).tolist() == [
        pytest.approx([math.log(0.5), -600.0, -300.0])
    ]


def test_policy_gradient_by_hand() -> None:
    reward = rewards(RANKER)
    first = math.exp(1.0) / (math.exp(1.0) + math.exp(-1.0))
    second = math.exp(3.0) / (math.exp(3.0) + math.exp(0.5))
    lists = [
        first * float(reward[0, 1]) + (1 - first) * float(reward[0, 2]),
        second * float(reward[1, 1]) + (1 - second) * float(reward[1, 2]),
    ]
    assert float(policy_gradient(STUDENT, reward)) == pytest.approx(sum(lists) / 2)


def test_policy_gradient_is_the_papers_formula() -> None:
    """sum_i p_i r_i grad log p_i, and nothing for the positive."""
    student = STUDENT.clone().requires_grad_()
    reward = rewards(RANKER)
    policy_gradient(student, reward).backward()
    expected = torch.zeros_like(STUDENT)
    for row in range(2):
        scores = STUDENT[row, 1:].clone().requires_grad_()
        chosen = torch.softmax(scores, 0)
        for place in range(2):
            (slope,) = torch.autograd.grad(chosen[place].log(), scores, retain_graph=True)
            weight = chosen[place].detach() * reward[row, 1 + place]
            expected[row, 1:] += weight * slope / 2
    torch.testing.assert_close(student.grad, expected)
    # The negative that beats the positive is made more likely: its score rises when descending.
    assert student.grad is not None and student.grad[0, 1] < 0 < student.grad[0, 2]


def test_the_released_term_holds_the_positive_and_is_a_sum() -> None:
    reward, logs = rewards(RANKER), torch.log_softmax(STUDENT, dim=1)
    by_hand = sum(
        float(reward[row, place]) * float(logs[row, place])
        for row in range(2)
        for place in range(3)
    )
    assert float(reward_weighted(STUDENT, reward)) == pytest.approx(by_hand)
    twice = reward_weighted(STUDENT.repeat(2, 1), rewards(RANKER.repeat(2, 1)))
    assert float(twice) == pytest.approx(2 * by_hand)
    mean = policy_gradient(STUDENT.repeat(2, 1), rewards(RANKER.repeat(2, 1)))
    assert float(mean) == pytest.approx(float(policy_gradient(STUDENT, reward)))


def test_the_divergence_has_the_gradient_of_the_papers_regulariser() -> None:
    """H(teacher, student) over the list, eq. 12."""
    student = STUDENT.clone().requires_grad_()
    list_divergence(student, RANKER).backward()
    again = STUDENT.clone().requires_grad_()
    cross = -(torch.softmax(RANKER, 1) * torch.log_softmax(again, 1)).sum(1).mean()
    cross.backward()
    torch.testing.assert_close(student.grad, again.grad)


@pytest.mark.parametrize("term", [policy_gradient, reward_weighted])
def test_gradients_against_finite_differences(term) -> None:
    reward = rewards(RANKER)
    student = STUDENT.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda scores: term(scores, reward), student)


def test_no_gradient_reaches_the_ranker_through_its_reward() -> None:
    ranker = RANKER.clone().requires_grad_()
    assert not rewards(ranker).requires_grad
