from __future__ import annotations

import pytest
import torch

from pipeline.methods.schedules import factor


def test_bert_schedule_drops_at_the_end_of_the_warm_up():
    """RocketQA's dual encoder: the warm-up ends just below 1.0, the decay begins at 0.9."""
    rates = [factor("bert", step, 100, 10) for step in range(101)]
    assert rates[:10] == pytest.approx([step / 10 for step in range(10)])
    assert rates[10:] == pytest.approx([1 - step / 100 for step in range(10, 101)])
    assert rates[10] == pytest.approx(0.9)


def test_linear_is_continuous_and_equals_the_common_library():
    transformers = pytest.importorskip("transformers")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = transformers.get_linear_schedule_with_warmup(optimizer, 7, 50)
    for step in range(55):
        assert factor("linear", step, 50, 7) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


def test_constant_has_no_decay():
    assert {factor("constant", step, 10) for step in range(12)} == {1.0}
    assert [factor("constant", step, 10, 2) for step in range(4)] == [0.0, 0.5, 1.0, 1.0]


def test_mistakes_are_refused():
    with pytest.raises(ValueError, match="does not fit"):
        factor("linear", 0, 5, 6)
    with pytest.raises(ValueError, match="unknown schedule"):
        factor("cosine", 0, 5)  # type: ignore[arg-type]
