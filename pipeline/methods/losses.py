"""Losses over scores: contrastive, pairwise, LambdaRank and passage-centric for the retriever,
pointwise and listwise for the ranker.

Shapes: B queries of one rank, M gathered candidates, n hard negatives per query, W ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

import torch
from torch import Tensor
from torch.nn import functional

RetrieverLoss = Literal["softmax", "pairwise", "lambda_rank"]

# ADORE's metric_cut: as many ranks as it searches for.
LAMBDA_RANK_CUT = 200


def contrastive(
    scores: Tensor, labels: Tensor, excluded: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """Negative log-likelihood of the positive among all candidates, mean over queries (RocketQA).

    -1/B sum_i log( exp(s_i,label / t) / sum_j not excluded exp(s_ij / t) ), computed in float32 at
    least, because raw dot products reach hundreds. Over equal batches, the mean of all ranks'
    losses is the global batch's loss.

    Args:
        scores: [B, M], every query against every candidate.
        labels: int64 [B], column of each query's own positive.
        excluded: bool [B, M], candidates left out of the sum; must be False at the labels (see
            `known_positives`).
        temperature: divides the scores; RocketQA has none, 1.

    Returns:
        Scalar.
    """
    logits = at_least_float32(scores) / temperature
    if excluded is not None:
        logits = logits.masked_fill(excluded, float("-inf"))
    return functional.cross_entropy(logits, labels)


def pairwise(
    scores: Tensor, labels: Tensor, excluded: Tensor | None = None, temperature: float = 1.0
) -> Tensor:
    """Negative log-likelihood of the positive against each other candidate alone (STAR).

    1/B sum_i 1/|P_i| sum_{j in P_i} log(1 + exp((s_ij - s_i,label) / t)), where P_i are row i's
    candidates without its positive and the excluded ones: the softmax over two, mean over pairs. A
    row has the same weight however many of its candidates are excluded, so that over equal batches
    the mean of all ranks' losses is the global batch's loss. A row without pairs counts 0.

    Args:
        scores: [B, M], every query against every candidate.
        labels: int64 [B], column of each query's own positive.
        excluded: bool [B, M], candidates left out, as for `contrastive`.
        temperature: divides the scores; STAR has none, 1.

    Returns:
        Scalar.
    """
    weights = torch.ones_like(scores, dtype=torch.float32)
    return _mean_over_pairs(weights, scores, labels, excluded, temperature)


def lambda_rank(
    scores: Tensor,
    labels: Tensor,
    excluded: Tensor | None = None,
    temperature: float = 1.0,
    cut: int = LAMBDA_RANK_CUT,
) -> Tensor:
    """`pairwise`, each pair weighted by what its exchange does to the reciprocal rank (ADORE).

    1/B sum_i 1/|P_i| sum_{j in P_i} |1/r_i,label - 1/r_ij| log(1 + exp((s_ij - s_i,label) / t)),
    where r are the ranks of row i's candidates, its positive included, by score falling and then by
    column, and 1/r is 0 beyond `cut`: no pair wholly beyond it counts. The weights are constants of
    the gradient (Zhan et al. 2021; LambdaRank: Burges et al. 2006).

    Args:
        scores: [B, M], every query against every candidate.
        labels: int64 [B], column of each query's own positive.
        excluded: bool [B, M], candidates left out, of the ranks too.
        temperature: divides the scores; ADORE has none, 1.
        cut: the last rank that counts; ADORE has 200.

    Returns:
        Scalar.
    """
    order = scores.detach()
    if excluded is not None:
        order = order.masked_fill(excluded, float("-inf"))
    order = order.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(1, scores.shape[1] + 1, device=scores.device, dtype=torch.float32)
    gains = torch.where(places <= cut, 1 / places, 0).expand_as(scores)
    gains = torch.zeros_like(gains).scatter(1, order, gains)
    weights = (gains - gains.gather(1, labels[:, None])).abs()
    return _mean_over_pairs(weights, scores, labels, excluded, temperature)


def _mean_over_pairs(
    weights: Tensor, scores: Tensor, labels: Tensor, excluded: Tensor | None, temperature: float
) -> Tensor:
    """Mean over rows of the weighted mean over a row's pairs of positive and other candidate."""
    logits = at_least_float32(scores) / temperature
    pairs = torch.ones_like(logits, dtype=torch.bool) if excluded is None else ~excluded
    # A positive is no pair with itself.
    pairs = pairs.scatter(1, labels[:, None], False)
    losses = functional.softplus(logits - logits.gather(1, labels[:, None])) * weights
    return (torch.where(pairs, losses, 0).sum(1) / pairs.sum(1).clamp(min=1)).mean()


RETRIEVER_LOSSES: Final[Mapping[RetrieverLoss, Callable[..., Tensor]]] = {
    "softmax": contrastive,
    "pairwise": pairwise,
    "lambda_rank": lambda_rank,
}


def passage_centric(
    query_scores: Tensor,
    negative_scores: Tensor,
    labels: Tensor,
    excluded_queries: Tensor,
    excluded_negatives: Tensor | None = None,
    temperature: float = 1.0,
) -> Tensor:
    """Negative log-likelihood of a positive's own query, mean over positives (PAIR, L_P).

    -1/B sum_i log( exp(s(p+_i, q_i) / t) / (sum_k exp(s(p+_i, q_k) / t)
    + sum_j exp(s(p+_i, p-_j) / t)) ): a positive lies closer to its query than to any hard
    negative. Other positives take no part. In the paper k is i alone; in the released code it runs
    over all gathered queries. PAIR's first stage minimises (1 - alpha) L_Q + alpha L_P, where L_Q
    is `contrastive` and alpha is 0.1.

    Args:
        query_scores: [B, W * B], every positive against every gathered query.
        negative_scores: [B, W * B * n], every positive against every gathered hard negative.
        labels: int64 [B], column of each positive's own query.
        excluded_queries: bool [B, W * B], queries left out; must be False at the labels.
        excluded_negatives: bool [B, W * B * n], hard negatives left out.
        temperature: divides the scores; PAIR has none, 1.

    Returns:
        Scalar.
    """
    if excluded_negatives is None:
        excluded_negatives = torch.zeros_like(negative_scores, dtype=torch.bool)
    return contrastive(
        torch.cat([query_scores, negative_scores], dim=1),
        labels,
        torch.cat([excluded_queries, excluded_negatives], dim=1),
        temperature,
    )


def pointwise(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of relevant or not, mean over pairs (RocketQA step 2, the ranker).

    With logit z1 - z0 the two-class softmax cross-entropy is the binary one, and P(1) its sigmoid.

    Args:
        logits: [P], one logit difference per pair.
        labels: [P], 1 relevant, 0 not.
    """
    logits = at_least_float32(logits)
    return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


def listwise(logits: Tensor, absent: Tensor | None = None) -> Tensor:
    """Softmax cross-entropy within each list, positive at index 0 (RocketQAv2, L_sup); mean.

    Args:
        logits: [L, m], one row per list.
        absent: bool [L, m], padding of lists that are shorter than m.
    """
    return contrastive(
        logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device), absent
    )


def candidate_labels(
    rank: int, batch_size: int, num_negatives: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Where each local query finds its positive among the gathered candidates: int64 [B].

    Every rank contributes its B positives, then its B * n hard negatives, and ranks follow each
    other; so row i of rank w has label w * B * (1 + n) + i (RocketQA's cross-batch negatives, where
    n is 1). Rank 0 of a world of one is in-batch negatives.
    """
    return rank * batch_size * (1 + num_negatives) + torch.arange(batch_size, device=device)


def negative_columns(
    ranks: int, batch_size: int, num_negatives: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Where the hard negatives of all ranks lie among the gathered candidates: int64 [W * B * n].

    They follow each rank's positives, see `candidate_labels`.
    """
    share = batch_size * (1 + num_negatives)
    own = torch.arange(batch_size, share, device=device)
    return (torch.arange(ranks, device=device)[:, None] * share + own).flatten()


def known_positives(positive_hashes: Tensor, candidate_hashes: Tensor, labels: Tensor) -> Tensor:
    """Candidates that are known positives of a row's query, or equal in text to one: bool [B, M].

    The released code leaves them in as negatives; masking them is our default. The label itself is
    never masked.

    Args:
        positive_hashes: int64 [B, P], content hashes of all known positives of each query; shorter
            rows are padded by repeating one of their own.
        candidate_hashes: int64 [M].
        labels: int64 [B], as for `contrastive`.
    """
    return contains(positive_hashes, candidate_hashes).scatter(1, labels[:, None], False)


def contains(rows: Tensor, values: Tensor) -> Tensor:
    """Whether each row of `rows` [B, P] holds each of `values` [M]: bool [B, M]."""
    found = torch.zeros(len(rows), len(values), dtype=torch.bool, device=values.device)
    # One column at a time: [B, P, M] at once would be gigabytes for queries with many positives.
    for column in rows.unbind(dim=1):
        found |= column[:, None] == values[None, :]
    return found


def at_least_float32(values: Tensor) -> Tensor:
    """Scores in float32, or as they are where they are wider: raw products reach hundreds."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
