"""Retrieval measures per query, by ir-measures' names and through that library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ir_measures
import numpy as np
import numpy.typing as npt

from pipeline.methods.filters import KnownPairs
from pipeline.methods.lists import PassageLists, places

# Measures of relevant passages' ranks alone. Others (Judged, SetP, NumRet) also count the unjudged
# ones at the end of a list, which are not handed on here.
FAMILIES = ("RR", "Success", "R", "nDCG", "AP", "P")

PerQuery = Mapping[str, npt.NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Qrels:
    """Relevance judgements, one row each, every pair once.

    Attributes:
        query_indices: int32 [J].
        passage_indices: int32 [J].
        relevance: int32 [J]; 1 and more is relevant.
    """

    query_indices: npt.NDArray[np.int32]
    passage_indices: npt.NDArray[np.int32]
    relevance: npt.NDArray[np.int32]

    def relevant(self) -> KnownPairs:
        """The pairs judged relevant."""
        chosen = self.relevance > 0
        return KnownPairs.of((self.query_indices[chosen], self.passage_indices[chosen]))

    def grades(self, lists: PassageLists) -> npt.NDArray[np.int32]:
        """The relevance of each entry, 0 where it is not judged or negative: [N]."""
        rows = (self.query_indices, self.passage_indices), (lists.queries, lists.passage_indices)
        judged, wanted = (queries.astype(np.int64) << 32 | found for queries, found in rows)
        found = places(judged, wanted)
        grades = np.zeros(len(wanted), np.int32)
        grades[found >= 0] = self.relevance[found[found >= 0]].clip(min=0)
        return grades


def parsed(names: Sequence[str]) -> dict[Any, str]:
    """ir-measures' objects, each with the name it was asked for by.

    Raises:
        ValueError: a name is unknown, without a cutoff, or two name the same.
    """
    measures: dict[Any, str] = {}
    strange: list[str] = []
    for name in names:
        try:
            one = ir_measures.parse_measure(name)
            one.validate_params()
        except (NameError, ValueError, AssertionError):
            strange.append(name)
            continue
        if (
            one.NAME not in FAMILIES
            or "cutoff" not in one.params
            or not ir_measures.DefaultPipeline.supports(one)
        ):
            strange.append(name)
        if one in measures:
            raise ValueError(f"{measures[one]} and {name} are the same measure")
        measures[one] = name
    if strange:
        raise ValueError(
            f"cannot measure {', '.join(strange)}; known are {', '.join(FAMILIES)}, each with a "
            "cutoff as in RR@10"
        )
    return measures


def measure(
    ranking: PassageLists,
    qrels: Qrels,
    query_indices: npt.NDArray[np.integer],
    names: Sequence[str],
) -> PerQuery:
    """Values of each measure for each of `query_indices`: name -> float64 [Q].

    Args:
        ranking: passages in our rank order, each once per list. The order is the truth: scores are
            not looked at, because ir-measures' providers break ties in different ways. Other
            queries in it are ignored.
        qrels: judgements of all of `query_indices`.
        query_indices: int [Q], the queries to measure, each once.
        names: such as `RR@10`, `Success@5`, `R@100`, `nDCG@10`, `RR@100`.

    Returns:
        0 for a query without results. nDCG takes the relevance as gain.

    Raises:
        ValueError: a query has no judgement, or a name is unknown.
    """
    measures = parsed(names)
    lists = ranking.of(query_indices)
    judged = _judged_by_rank(lists, qrels)
    unjudged = [query for query in query_indices.tolist() if str(query) not in judged]
    if unjudged:
        raise ValueError(
            f"{len(unjudged)} queries have no qrels, first query_index {unjudged[0]}; "
            "leave such queries out"
        )
    place = {str(query): row for row, query in enumerate(query_indices.tolist())}
    values = {name: np.zeros(len(place)) for name in names}
    for metric in ir_measures.iter_calc(list(measures), judged, _run_by_rank(judged)):
        values[measures[metric.measure]][place[metric.query_id]] = metric.value
    return values


def _run_by_rank(judged: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, float]]:
    """A run with documents named by their rank, scored by strictly falling numbers.

    Each list ends at its last judged passage, since what follows has no influence and would be
    most of the work.
    """
    ends = {
        query: max((int(name) for name in names if name.isdigit()), default=0)
        for query, names in judged.items()
    }
    return {
        query: {str(rank): float(end - rank) for rank in range(1, end + 1)}
        for query, end in ends.items()
        if end
    }


def _judged_by_rank(lists: PassageLists, qrels: Qrels) -> dict[str, dict[str, int]]:
    """Qrels with each passage named by its rank in the list, or by a name that no rank has."""
    rows = PassageLists.from_pairs(qrels.query_indices, np.arange(len(qrels.query_indices)))
    found = KnownPairs.of((qrels.query_indices, qrels.passage_indices)).among(lists)
    ranks = {
        (query, passage): rank
        for query, passage, rank in zip(
            lists.queries[found].tolist(),
            lists.passage_indices[found].tolist(),
            lists.ranks[found].tolist(),
            strict=True,
        )
    }
    judged: dict[str, dict[str, int]] = {}
    for query, entries in rows.of(lists.query_indices):
        passages = qrels.passage_indices[entries].tolist()
        if passages:
            # Some collections use negative grades for spam, which one provider refuses; they are
            # not relevant either.
            judged[str(query)] = {
                str(ranks.get((query, passage), f"missing-{passage}")): max(grade, 0)
                for passage, grade in zip(passages, qrels.relevance[entries].tolist(), strict=True)
            }
    return judged
