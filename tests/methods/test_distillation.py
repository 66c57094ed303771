from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.methods.distillation import list_divergence, margin_mse

DIRECTIONS = ["teacher||student", "student||teacher"]


def test_divergences_by_hand():
    # Softmaxes 0.75 / 0.25 and 0.5 / 0.5, and a second list on which both agree.
    student = torch.tensor([[np.log(3.0), 0.0], [1.0, 5.0]], dtype=torch.float64)
    teacher = torch.tensor([[2.0, 2.0], [11.0, 15.0]], dtype=torch.float64)
    toward_student = 0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25)
    toward_teacher = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    assert toward_student != pytest.approx(toward_teacher)
    for direction, value in (
        ("teacher||student", toward_student),
        ("student||teacher", toward_teacher),
    ):
        per_list = list_divergence(student, teacher, direction)
        per_element = list_divergence(student, teacher, direction, "per_element")
        assert per_list.item() == pytest.approx(value / 2)
        assert per_element.item() == pytest.approx(value / 4)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_divergence_is_zero_of_equal_distributions_only(direction):
    scores = torch.randn(5, 7, dtype=torch.float64)
    assert list_divergence(scores, scores + 3, direction).item() == pytest.approx(0, abs=1e-12)
    assert list_divergence(scores, scores.flip(1), direction).item() > 0.01


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("reduction", ["per_list", "per_element"])
def test_gradients_are_finite_differences(direction, reduction):
    student = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda s, t: list_divergence(s, t, direction, reduction), [student, teacher]
    )


def test_the_students_gradient_is_the_difference_of_the_softmaxes():
    student = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 6, dtype=torch.float64)
    list_divergence(student, teacher).backward()
    expected = (student.softmax(1) - teacher.softmax(1)) / 2
    torch.testing.assert_close(student.grad, expected.detach())


def test_divergence_counts_in_float32_and_survives_large_scores():
    student = torch.tensor([[400.0, -400.0]], dtype=torch.bfloat16)
    teacher = torch.tensor([[0.0, 0.0]], dtype=torch.bfloat16)
    value = list_divergence(student, teacher)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(0.5 * 800 - np.log(2))


def test_margins_by_hand():
    # Student margins 2, 5 and 1, 1; teacher margins 3, 4 and -2, 1.
    student = torch.tensor([[3.0, 1.0, -2.0], [0.0, -1.0, -1.0]])
    teacher = torch.tensor([[5.0, 2.0, 1.0], [0.0, 2.0, -1.0]])
    assert margin_mse(student, teacher).item() == pytest.approx((1 + 1 + 9 + 0) / 4)


def test_margins_do_not_see_a_lists_level_but_its_scale():
    scores = torch.randn(5, 7, dtype=torch.float64)
    assert margin_mse(scores, scores + torch.randn(5, 1)).item() == pytest.approx(0, abs=1e-12)
    margins = scores[:, :1] - scores[:, 1:]
    doubled = margin_mse(scores, 2 * scores).item()
    assert doubled == pytest.approx(margins.square().mean().item())


def test_gradients_of_margins_are_finite_differences():
    student = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(margin_mse, [student, teacher])


def test_a_false_negative_is_put_above_the_positive():
    """Where the teacher prefers the negative, its negative margin is what the student learns."""
    student = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[0.0, 3.0, -1.0]], dtype=torch.float64)
    for _ in range(200):
        (slope,) = torch.autograd.grad(margin_mse(student, teacher), student)
        student = (student - 0.3 * slope).detach().requires_grad_()
    _, false_negative, negative = (student[0, 0] - student[0]).tolist()
    assert false_negative == pytest.approx(-3, abs=1e-6)
    assert negative == pytest.approx(1, abs=1e-6)


def test_margins_count_in_float32():
    student = torch.tensor([[256.0, -1.0]], dtype=torch.bfloat16)
    value = margin_mse(student, torch.zeros(1, 2, dtype=torch.bfloat16))
    assert value.dtype == torch.float32 and value.item() == 257**2
