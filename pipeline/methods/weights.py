"""Log-weights: how likely a candidate is drawn as a negative, by how it compares with the positive.

Everything here is elementwise over N candidates, and stays a logarithm: the weights themselves
would underflow to 0 where scores are tens apart. `samplers.weighted` draws by them.
"""

from __future__ import annotations

import numpy as np

from pipeline.methods.lists import Floats, PassageLists


def differences(
    lists: PassageLists, scores: Floats, positive_scores: Floats, *, standardised: bool = False
) -> Floats:
    """s(q, d_i) - s(q, d+) of every candidate: [N].

    Scores of one list come from one retriever, in one precision. Where vectors are normalised,
    differences of cosines are small and depend on the temperature of training; `standardised`
    divides them by the standard deviation of the list's scores, so that a unit means the same
    everywhere.

    Args:
        lists: the candidates of Q queries.
        scores: [N].
        positive_scores: [Q], of one positive or the mean of several.
        standardised: a list whose scores are all equal keeps its differences.
    """
    lists.entries(scores, "scores")
    found: Floats = scores.astype(np.float64) - np.repeat(positive_scores, lists.lengths)
    return found / np.repeat(spread(lists, scores), lists.lengths) if standardised else found


def spread(lists: PassageLists, scores: Floats) -> Floats:
    """The standard deviation of each list's scores, 1 where there is none: [Q]."""
    lists.entries(scores, "scores")
    count = np.maximum(lists.lengths, 1)
    size = len(lists)
    mean = np.bincount(lists.rows, scores, size) / count
    centred = scores - np.repeat(mean, lists.lengths)
    deviation: Floats = np.sqrt(np.bincount(lists.rows, centred**2, size) / count)
    # The mean of equal scores is theirs only to within rounding.
    return np.where(deviation > 1e-12 * np.abs(mean), deviation, 1.0)


def gaussian(difference: Floats, density: float, shift: float) -> Floats:
    """-a (s_i - s+ - b)^2: ambiguous negatives (SimANS, section 4.1).

    The peak lies at s+ + b. The code released for NQ and TriviaQA and for documents adds its b
    instead of subtracting it, so that its b = 1 is b = -1 here. TriSampler's distribution for the
    query is this one with a = 1/4 and b = 0.

    Args:
        difference: [N], see `differences`.
        density: a; the standard deviation is sqrt(1 / (2 a)).
        shift: b.
    """
    return -density * (difference - shift) ** 2


def laplace(difference: Floats, density: float, shift: float) -> Floats:
    """-a |s_i - s+ - b|: SimANS as released for MS MARCO passages, with a = 3 and b = 0."""
    found: Floats = -density * np.abs(difference - shift)
    return found


def softmax(scores: Floats, temperature: float) -> Floats:
    """s_i / t: the retriever's own distribution (NV-Retriever samples its top 10 by it)."""
    return scores.astype(np.float64) / temperature


def inside_triangle(scores: Floats, similarities: Floats) -> Floats:
    """The logarithm of ReLU(s(d+, d_i) - s(q, d_i)): TriSampler's weight for the positive.

    A candidate that is closer to the query than to the positive is never drawn: -inf.

    Args:
        scores: s(q, d_i), [N].
        similarities: s(d+, d_i), [N].
    """
    gap = np.maximum(similarities.astype(np.float64) - scores, 0)
    with np.errstate(divide="ignore"):
        return np.log(gap)
