"""Rankings to be measured: a retriever's, re-ranked, mixed, and as a perfect ranker orders them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifacts.kinds import SCORED_CANDIDATES
from pipeline.stages import lineage
from pipeline.stages.measuring import ANSWER, measure_run

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pipeline.artifacts.reader import Artifact
    from pipeline.methods.lists import PassageLists
    from pipeline.methods.metrics import Qrels
    from pipeline.stages.measuring import Judgements
    from pipeline.stages.tables import Candidates

RANKED = " + ranker"
MIXED = " + ranker and retriever mixed"
PERFECT = " + perfect ranker"
DERIVED = (RANKED, MIXED, PERFECT)
SMALLEST_STEP = 1e-6


@dataclass(frozen=True, eq=False)
class Run:
    """One ranking of all evaluated queries, and to which rank passages were searched for."""

    name: str
    lists: PassageLists
    scores: npt.NDArray[np.floating]
    depth: int


def derived(names: Sequence[str]) -> list[str]:
    """What the runs are called that a ranker's scores make of those of `names`."""
    return [name + suffix for name in names for suffix in DERIVED]


def runs_of(
    name: str, found: Candidates, depth: int, qrels: Qrels, weight: float | None
) -> list[Run]:
    """The retriever's run and, where a ranker scored it, what re-ranking makes of it.

    The perfect ranker sorts those that were scored by their relevance: no ranker can do better at
    that depth.
    """
    import numpy as np

    runs = [Run(name, found.lists, found.scores, depth)]
    if found.ranker_scores is None:
        return runs
    runs.append(_reordered(name + RANKED, found, found.ranker_scores, depth))
    if weight is not None:
        runs.append(_reordered(name + MIXED, found, _mixed(found, weight), depth))
    grades = qrels.grades(found.lists).astype(np.float64)
    perfect = np.where(np.isnan(found.ranker_scores), np.nan, grades)
    runs.append(_reordered(name + PERFECT, found, perfect, depth))
    return runs


def _reordered(name: str, found: Candidates, scores: npt.NDArray[np.floating], depth: int) -> Run:
    """By `scores` where they are known; below those, the rest in the retriever's order."""
    import numpy as np

    lowest = np.nanmin(scores) if np.isfinite(scores).any() else 0.0
    known = np.where(np.isnan(scores), lowest - found.lists.ranks, scores.astype(np.float64))
    order = found.lists.ordered_by(known)
    return Run(name, found.lists.ranked(known), known[order], depth)


def _mixed(found: Candidates, weight: float) -> npt.NDArray[np.float64]:
    import numpy as np

    from pipeline.methods import mixing

    scored = ~np.isnan(_ranker_scores(found))
    part = found.keep(scored)
    values = np.full(len(scored), np.nan)
    values[scored] = mixing.mixed(part.lists, part.scores, _ranker_scores(part), weight)
    return values


def _ranker_scores(found: Candidates) -> npt.NDArray[np.float32]:
    assert found.ranker_scores is not None
    return found.ranker_scores


def _scored(found: Candidates) -> Candidates:
    import numpy as np

    return found.keep(~np.isnan(_ranker_scores(found)))


def searched(artifact: Artifact, split: str, found: Candidates) -> int:
    """To which rank a run was searched; its longest list, where nobody knows more."""
    known = lineage.searched_depth(artifact, split)
    return int(found.lists.lengths.max(initial=0)) if known is None else known


def reachable(
    found: Candidates, judged: npt.NDArray[np.integer], qrels: Qrels
) -> tuple[int, float]:
    """How many passages of a query were scored at most, and how often a relevant one was there.

    Args:
        found: candidates that a ranker scored.
        judged: the queries that are counted, at least one.
        qrels: their judgements.
    """
    import numpy as np

    lists = _scored(found).lists
    hit = np.isin(judged, lists.queries[qrels.relevant().among(lists)])
    return int(lists.lengths.max(initial=0)), float(hit.mean())


def mixing_weights(
    artifacts: Sequence[Artifact],
    split: str,
    judgements: Judgements,
    measure: str,
) -> dict[str, float]:
    """The ranker's share in the mix for each scored run, by its number; chosen on a split.

    Runs on which the measure says nothing get none.
    """
    from pipeline.stages import tables

    queries = tables.queries_of(judgements.dataset, [split])
    weights = {}
    for number, artifact in enumerate(artifacts):
        if artifact.kind_name == SCORED_CANDIDATES.name:
            found = tables.Candidates.read(artifact).of_queries(queries)
            depth = searched(artifact, split, found)
            weight = _weight(_scored(found), depth, queries, judgements, measure)
            judgements.texts.clear()
            if weight is not None:
                weights[str(number)] = weight
    return weights


def _weight(
    part: Candidates,
    depth: int,
    queries: npt.NDArray[np.integer],
    judgements: Judgements,
    measure: str,
) -> float | None:
    """The weight that does best among the scored candidates; None where nothing is measured."""
    from pipeline.methods import mixing

    def value(lists: PassageLists) -> float | None:
        measured = measure_run(lists, depth, queries, judgements, [measure])
        return float(measured[measure].values.mean()) if measured else None

    if measure.startswith(ANSWER):
        # Each weight brings other passages up: one pass over the corpus for all of them.
        judgements.read_texts(part.lists.passage_indices)
    if value(part.lists) is None:
        return None
    choice = mixing.choose_weight(
        part.lists, part.scores, _ranker_scores(part), lambda lists: value(lists) or 0.0
    )
    return choice.weight


def write_trec(folder: Path, run: Run, dataset: Artifact, number: int) -> None:
    """`query Q0 passage rank score tag`, in our rank order.

    Tools sort such a file by score and break ties in ways of their own, so that equal scores are
    written as falling by a millionth.
    """
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    query_ids = dataset.read("queries", ["query_id"])["query_id"]
    passages = np.unique(run.lists.passage_indices)
    ids = _ids(dataset, passages)
    tag = re.sub(r"[^\w.@-]+", "_", run.name)
    with (folder / f"{number:02d}_{tag}.trec").open("w", encoding="utf-8") as file:
        place = 0
        for query, found in run.lists:
            query_id = query_ids[query].as_py()
            above = np.inf
            for rank, passage in enumerate(found.tolist(), start=1):
                above = min(float(run.scores[place]), _below(above))
                file.write(f"{query_id} Q0 {ids[passage]} {rank} {above:.9g} {tag}\n")
                place += 1


def _ids(dataset: Artifact, wanted: npt.NDArray[np.integer]) -> dict[int, str]:
    ids: dict[int, str] = {}
    for shard in dataset.shards("passages"):
        inside = wanted[(wanted >= shard.first_row) & (wanted < shard.first_row + shard.rows)]
        if len(inside):
            column = shard.read(["passage_id"])["passage_id"].take(inside - shard.first_row)
            ids |= dict(zip(inside.tolist(), column.to_pylist(), strict=True))
    return ids


def _below(score: float) -> float:
    """The next score that still differs in nine digits; infinity has none above it."""
    return score - SMALLEST_STEP * max(1.0, abs(score)) if score < float("inf") else score
