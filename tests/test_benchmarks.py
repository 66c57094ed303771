"""What a benchmark compares is the same work on both sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import draws, texts, training
from benchmarks.inference import Ours
from tests.benches import TinyWorld


@pytest.mark.parametrize("name", draws.SAMPLERS)
def test_both_sides_draw_from_the_same_distribution(name):
    sampler, formula = draws.SAMPLERS[name]
    # One list many times over: how often each of its candidates is drawn.
    one, copies = draws.block(1, 12), 4000
    given = draws.block(copies, 12)
    object.__setattr__(given, "scores", np.tile(one.scores, copies))
    object.__setattr__(given, "compared", np.full(copies, one.compared[0]))
    shares = []
    for drawn in (draws.ours(given, sampler, 3, 0, 700), draws.peer(given, formula, 3, 0)):
        assert all(len(set(row)) == 3 for row in drawn.tolist())
        assert (drawn // 12 == np.arange(copies)[:, None]).all()
        shares.append(np.bincount(drawn.reshape(-1) % 12, minlength=12) / copies)
    # Five standard deviations of the difference of two shares.
    np.testing.assert_allclose(*shares, atol=5 * np.sqrt(0.5 / copies))
    assert bool(np.ptp(shares[0]) > 0.2) is (name != "uniform")


@pytest.mark.parametrize("piece", [None, 3])
def test_both_sides_take_the_same_training_steps(
    tiny: TinyWorld, tmp_path: Path, piece: int | None
) -> None:
    base = tiny.base.folder("model")
    queries = [f"the {word} of a {word}" for word in ("mean", "sum", "shape", "name", "end", "key")]
    data = texts.Documentation(queries, [f"{query}, in {len(query)} words" for query in queries])
    ours = Ours(base, tmp_path / "tokens", 0, "float32")
    budget = 40 if piece else 1000
    mine = training.our_step(ours, base, data, budget, dropout=False)
    theirs = training.peer_step(base, tmp_path / "peer", data, ours, piece, dropout=False)
    losses = [[step(np.arange(6)) for _ in range(3)] for step in (mine, theirs)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][2] < losses[0][0]
