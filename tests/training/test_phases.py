from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.phases import Phases

TURNS = st.lists(st.integers(1, 5), min_size=1, max_size=3)


@given(lengths=TURNS, step=st.integers(0, 60))
def test_a_walk_from_the_start_counts_the_same(lengths: list[int], step: int) -> None:
    names = [f"model {number}" for number in range(len(lengths))]
    phases = Phases(tuple(zip(names, lengths, strict=True)))
    order = [name for name, steps in phases.turns for _ in range(steps)]
    walk = [order[number % len(order)] for number in range(step + 1)]
    assert phases.at(step) == walk[step]
    for name in names:
        assert phases.done(name, step) == walk[:step].count(name)


def test_every_model_has_a_turn() -> None:
    phases = Phases((("ranker", 2), ("retriever", 3)))
    with pytest.raises(ValueError, match="2 steps end before the first turn of the retriever"):
        phases.check(2)
    phases.check(3)


@pytest.mark.parametrize("turns", [(), (("ranker", 0),), (("ranker", 1), ("ranker", 2))])
def test_turns_that_cannot_be(turns: tuple[tuple[str, int], ...]) -> None:
    with pytest.raises(ValueError, match="each model once"):
        Phases(turns)
