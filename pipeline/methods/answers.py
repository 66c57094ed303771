"""Answer match: does a retrieved passage contain one of the question's short answers?

The token rule is DrQA's simple tokeniser (Chen et al. 2017) in the form that DPR and RocketQA
evaluate with: NFD normalised, lower-cased; a token is a run of letters, digits and marks, or a
single other visible symbol; a passage matches where an answer's tokens occur in it as a contiguous
sequence. Titles are not looked at.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import regex

from pipeline.methods.lists import Mask, PassageLists

_TOKEN = regex.compile(r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]")
# A control character, which no token can contain: sequences become substrings.
_BETWEEN = "\x1f"


@dataclass(frozen=True, eq=False)
class AnswerMatches:
    """Where the first passage with an answer stands.

    Attributes:
        query_indices: int32 [Q], the queries that have answers.
        ranks: int64 [Q], 1-based rank of the first matching passage, 0 where none matches.
        excluded: queries left out because they have no answer.
    """

    query_indices: npt.NDArray[np.int32]
    ranks: npt.NDArray[np.int64]
    excluded: int

    def at(self, k: int) -> npt.NDArray[np.float64]:
        """answer@k per query, 1 or 0: does one of the first k passages contain an answer?"""
        return ((self.ranks >= 1) & (self.ranks <= k)).astype(np.float64)


def tokens(text: str) -> list[str]:
    """The tokens of a text by the rule above."""
    return [token.lower() for token in _TOKEN.findall(unicodedata.normalize("NFD", text))]


def contains(text: str, answers: Sequence[str]) -> bool:
    """Whether any answer occurs in the text as a token sequence; one without tokens never does."""
    return _matches(_sequence(text), _needles(answers))


def first_matches(
    ranking: PassageLists,
    answers: Sequence[Sequence[str]],
    passage_text: Callable[[int], str],
    depth: int = 100,
) -> AnswerMatches:
    """Search the first `depth` passages of every list for an answer.

    Args:
        ranking: passages in rank order.
        answers: the answers of each list's query [Q]; none, or only answers without tokens,
            excludes the query.
        passage_text: text, without title, of a passage index.
        depth: the largest k that is asked for later.
    """
    sequence = lru_cache(maxsize=100_000)(lambda passage: _sequence(passage_text(passage)))
    queries, ranks = [], []
    for (query, passages), accepted in zip(ranking, answers, strict=True):
        needles = _needles(accepted)
        if needles:
            hits = (
                rank
                for rank, passage in enumerate(passages[:depth].tolist(), 1)
                if _matches(sequence(passage), needles)
            )
            queries.append(query)
            ranks.append(next(hits, 0))
    return AnswerMatches(
        np.asarray(queries, dtype=np.int32),
        np.asarray(ranks, dtype=np.int64),
        len(ranking) - len(queries),
    )


def matching(
    lists: PassageLists,
    answers: Sequence[Sequence[str]],
    passage_text: Callable[[int], str],
) -> Mask:
    """Which entries of the lists contain an answer of their query (bool [N]); see `first_matches`.

    Args:
        lists: passages of Q queries.
        answers: the answers of each list's query [Q]; a query without any matches nothing.
        passage_text: text, without title, of a passage index.
    """
    sequence = lru_cache(maxsize=100_000)(lambda passage: _sequence(passage_text(passage)))
    found: list[bool] = []
    for (_, passages), accepted in zip(lists, answers, strict=True):
        needles = _needles(accepted)
        found += [_matches(sequence(passage), needles) for passage in passages.tolist()]
    return np.array(found, dtype=np.bool_)


def _sequence(text: str) -> str:
    return _BETWEEN + "".join(token + _BETWEEN for token in tokens(text))


def _needles(answers: Sequence[str]) -> list[str]:
    return [sequence for sequence in map(_sequence, answers) if sequence != _BETWEEN]


def _matches(sequence: str, needles: Sequence[str]) -> bool:
    return any(needle in sequence for needle in needles)
