"""Samplers: which of the allowed candidates are taken, as masks over the entries of `PassageLists`.

A sampler ranks the allowed entries of each list by a sort key and takes the first n. `top` uses the
rank; `uniform` a random key; `weighted` a random key shifted by a log-weight (Gumbel-top-n), which
is drawing without replacement by weight. Random keys are a function of (seed, query, passage) and
of nothing else, so that a query's draw does not depend on which shard it stands in, on its
neighbours, or on the order of the work.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.methods.filters import KnownPairs
from pipeline.methods.lists import Floats, Integers, Mask, PassageLists

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def top(lists: PassageLists, allowed: Mask, n: int | Integers) -> Mask:
    """The first n allowed entries of each list, in list order.

    Args:
        lists: the candidates in rank order.
        allowed: bool [N].
        n: one number for all lists, or int [Q]; a list with fewer allowed entries gives all it has.
    """
    lists.entries(allowed, "allowed")
    running = np.concatenate([[0], np.cumsum(allowed, dtype=np.int64)])
    place = running[1:] - np.repeat(running[lists.offsets[:-1]], lists.lengths)
    chosen: Mask = allowed & (place <= _per_entry(lists, n))
    return chosen


def uniform(lists: PassageLists, allowed: Mask, n: int | Integers, seed: int) -> Mask:
    """Draw n allowed entries of each list uniformly, without replacement (RocketQA step 2)."""
    return weighted(lists, allowed, n, seed, np.zeros(len(lists.passage_indices)))


def weighted(
    lists: PassageLists,
    allowed: Mask,
    n: int | Integers,
    seed: int,
    log_weights: Floats,
    streams: Integers | None = None,
) -> Mask:
    """Draw n allowed entries of each list, without replacement, by weights exp(log_weights).

    The n largest of log-weight plus Gumbel noise are such a draw (Vieira 2014; Kool et al. 2019),
    and no weight can underflow on the way.

    Args:
        lists: the candidates.
        allowed: bool [N].
        n: one number for all lists, or int [Q]; a list with fewer allowed entries gives all.
        seed: another one for every fresh draw.
        log_weights: float [N]; equal weights give `uniform`. Weight 0 (-inf) is never drawn.
        streams: int [Q], what tells lists of one query apart, so that their draws are independent.
    """
    lists.entries(log_weights, "log_weights")
    counters = [lists.queries, lists.passage_indices]
    if streams is not None:
        counters.insert(1, np.repeat(streams, lists.lengths))
    noise = -np.log(-np.log(random_units(seed, *counters)))
    possible = allowed & np.isfinite(log_weights)
    return smallest(lists, possible, n, -(log_weights + noise))


def epoch_seed(seed: int, epoch: int) -> int:
    """The seed of an epoch's draws: unlike for neighbouring seeds and epochs."""
    return int(_random_bits(seed, epoch))


def smallest(lists: PassageLists, allowed: Mask, n: int | Integers, keys: Floats) -> Mask:
    """The n allowed entries of each list with the smallest `keys` [N]; equal keys in list order."""
    lists.entries(allowed, "allowed")
    entries = np.flatnonzero(allowed)
    rows = lists.rows[entries]
    order = entries[np.lexsort((keys[entries], rows))]
    place = PassageLists.from_lengths(lists.query_indices, lists.count(allowed), order).ranks
    taken = np.zeros(len(allowed), dtype=np.bool_)
    taken[order[place <= _per_entry(lists, n)[order]]] = True
    return taken


def corpus(
    query_indices: Integers, n: int, passages: int, known: KnownPairs, seed: int
) -> PassageLists:
    """Distinct passages for each query, drawn uniformly from the whole corpus (RocketQA step 1).

    Each query reads its own endless stream of draws and keeps the first n that are neither known
    nor seen.

    Args:
        query_indices: int [Q], every query once.
        n: passages per query.
        passages: size of the corpus.
        known: pairs never to be drawn.
        seed: of the streams.

    Returns:
        Lists in the order of `query_indices`; shorter than n only where the corpus has too few
        passages left.
    """
    if passages < 1:
        raise ValueError("cannot draw negatives from an empty corpus")
    wanted = np.clip(passages - known.lists().of(query_indices).lengths, 0, n)
    width = 2 * n
    while True:
        drawn = _stream(query_indices, width, passages, seed)
        kept = drawn.keep(top(drawn, ~known.among(drawn) & _first_seen(drawn), n))
        if np.all(kept.lengths >= wanted):
            return kept
        # A longer stream starts with the shorter one: lists that were complete come out unchanged.
        width *= 2


def random_units(seed: int, *counters: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Uniform numbers inside (0, 1), a pure function of (seed, counters), elementwise.

    A counter-based generator: each counter is folded into the state and mixed by SplitMix64's
    finaliser (Steele, Lea, Flood 2014). Equal arguments give equal numbers on every machine, in any
    order.
    """
    # 53 bits and half a step, so that 0 cannot come out; the highest step would round to 1. Both
    # logarithms of Gumbel's noise are finite.
    steps = (_random_bits(seed, *counters) >> np.uint64(11)).astype(np.float64) + 0.5
    return np.minimum(steps, 2.0**53 - 1) * 2.0**-53


def _random_bits(seed: int, *counters: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        state = _mixed(np.asarray(seed % 2**64, dtype=np.uint64) + _GOLDEN)
        for counter in counters:
            state = _mixed((state ^ np.asarray(counter).astype(np.uint64)) + _GOLDEN)
    return state


def _mixed(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def _per_entry(lists: PassageLists, n: int | Integers) -> npt.NDArray[np.int64]:
    return np.repeat(np.broadcast_to(np.asarray(n, dtype=np.int64), len(lists)), lists.lengths)


def _stream(query_indices: Integers, width: int, passages: int, seed: int) -> PassageLists:
    """The first `width` draws of each query's stream."""
    queries, draws = np.repeat(query_indices, width), np.tile(np.arange(width), len(query_indices))
    values = _random_bits(seed, queries, draws) % np.uint64(passages)
    return PassageLists.from_lengths(query_indices, np.full(len(query_indices), width), values)


def _first_seen(lists: PassageLists) -> Mask:
    """Entries whose passage does not stand earlier in the same list."""
    keys = lists.rows << 32 | lists.passage_indices
    first = np.zeros(len(keys), dtype=np.bool_)
    first[np.unique(keys, return_index=True)[1]] = True
    return first
