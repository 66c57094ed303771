"""Drawing negatives from pools, weights included, against one `Generator.choice` for each list.

Both sides hold the same scores as arrays, compute log-weights of all candidates and draw n of each
list without replacement: ours a batch of lists at once, as training does, by Gumbel noise that is a
function of seed, query, positive and passage; numpy's list by list, from normalised weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from benchmarks import measuring
from pipeline.methods.lists import Floats, PassageLists
from pipeline.stages.pool_block import Block
from pipeline.stages.pool_params import SamplerParams

# A sampler, and its log-weights from the scores of a list and how far they lie from the positive's.
Formula = Callable[[Floats, Floats], Floats]
SAMPLERS: Mapping[str, tuple[SamplerParams, Formula]] = {
    "uniform": (SamplerParams(name="uniform"), lambda scores, gaps: np.zeros(len(scores))),
    "softmax": (SamplerParams(name="softmax"), lambda scores, gaps: scores),
    "simans": (SamplerParams(name="simans", a=0.5), lambda scores, gaps: -0.5 * gaps**2),
    "simans_laplace": (
        SamplerParams(name="simans_laplace", a=3.0),
        lambda scores, gaps: -3 * np.abs(gaps),
    ),
}
OURS, PEER = "pipeline", "numpy, list by list"

Drawn = npt.NDArray[np.int64]


def block(pools: int, depth: int, seed: int = 0) -> Block:
    """Lists of falling scores of spread 1, with a positive among the first of each."""
    draw = np.random.default_rng(seed)
    scores = -np.sort(-draw.normal(size=(pools, depth)), axis=1)
    positive = draw.normal(1.5, 0.5, pools)
    return Block(
        PassageLists.from_lengths(
            np.arange(pools), np.full(pools, depth), draw.integers(0, 2**31 - 1, pools * depth)
        ),
        scores.reshape(-1),
        None,
        np.zeros(pools, np.int32),
        positive,
        positive,
    )


def ours(given: Block, sampler: SamplerParams, n: int, epoch: int, batch: int) -> Drawn:
    """The entries drawn, n a list: [lists, n]."""
    pools, _ = given.pools(sampler, n, None)
    drawn = []
    for first in range(0, len(pools), batch):
        rows = np.arange(first, min(first + batch, len(pools)))
        mask = pools.take(rows).draw(n, seed=1, epoch=epoch)
        drawn.append(pools.lists.entries_of(rows)[mask])
    return np.concatenate(drawn).reshape(len(given), n)


def peer(given: Block, formula: Formula, n: int, epoch: int) -> Drawn:
    """The same by plain numpy."""
    draw = np.random.default_rng([1, epoch])
    drawn = np.empty((len(given), n), np.int64)
    for row, (first, last) in enumerate(pairwise(given.lists.offsets)):
        scores = given.scores[first:last]
        log_weights = formula(scores, scores - given.compared[row])
        weights = np.exp(log_weights - log_weights.max())
        drawn[row] = first + draw.choice(
            len(scores), size=n, replace=False, p=weights / weights.sum()
        )
    return drawn


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pools", type=int, default=20000)
    parser.add_argument("--depth", type=int, default=100, help="candidates of each pool")
    parser.add_argument("--negatives", type=int, default=15, help="drawn from each pool")
    parser.add_argument("--batch", type=int, default=256, help="pools drawn from at once")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    measuring.machine()
    given, n, batch = block(options.pools, options.depth), options.negatives, options.batch
    for name, (sampler, formula) in SAMPLERS.items():
        print(f"\n{name}: {n} of {options.depth} from {options.pools:,} pools", flush=True)
        means = [given.scores[ours(given, sampler, n, 0, batch)].mean()]
        means.append(given.scores[peer(given, formula, n, 0)].mean())
        print(f"  mean score drawn: ours {means[0]:.3f}, theirs {means[1]:.3f}")
        timings = measuring.alternate(
            {
                PEER: partial(measuring.timed, partial(peer, given, formula, n, 1)),
                OURS: partial(measuring.timed, partial(ours, given, sampler, n, 1, batch)),
            },
            options.rounds,
        )
        measuring.medians(timings, len(given.scores), "candidates")
        found = measuring.ratios(timings, PEER, OURS)
        measuring.verdict(f"speed against {PEER}", found)
    print(measuring.load())


if __name__ == "__main__":
    main()
