"""What is measured of a run, query by query: measures of rank, and answers found in the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from pipeline.artifacts.reader import Artifact
    from pipeline.methods.metrics import Qrels
    from pipeline.stages.runs import Run


@dataclass(frozen=True, eq=False)
class PerQuery:
    """Values of one measure, and the queries they belong to."""

    queries: npt.NDArray[np.integer]
    values: npt.NDArray[np.float64]

    def among(self, chosen: npt.NDArray[np.integer]) -> PerQuery:
        """The values of those of `chosen` that are there."""
        import numpy as np

        kept = np.isin(self.queries, chosen)
        return PerQuery(self.queries[kept], self.values[kept])


@dataclass
class Measured:
    """Values by system and measure: one entry a seed."""

    seeds: dict[str, dict[str, list[PerQuery]]] = field(default_factory=dict)

    def add(self, system: str, measured: Mapping[str, PerQuery]) -> None:
        """Keep another seed's values of a system."""
        for measure, values in measured.items():
            self.seeds.setdefault(system, {}).setdefault(measure, []).append(values)

    def among(self, chosen: npt.NDArray[np.integer]) -> Measured:
        """The values of some queries only."""
        return Measured(
            {
                system: {
                    measure: [one.among(chosen) for one in seeds]
                    for measure, seeds in by_measure.items()
                }
                for system, by_measure in self.seeds.items()
            }
        )


def judged_queries(queries: npt.NDArray[np.integer], qrels: Qrels) -> npt.NDArray[np.integer]:
    """Those of the queries that have a judgement."""
    import numpy as np

    return queries[np.isin(queries, qrels.query_indices)]


def measure_run(
    run: Run,
    queries: npt.NDArray[np.integer],
    qrels: Qrels,
    dataset: Artifact,
    measures: Sequence[str],
    answer_depths: Sequence[int],
) -> dict[str, PerQuery]:
    """Measures of rank over the judged queries, answer@k over those with answers.

    Those that look deeper than the run goes are left out.
    """
    from pipeline.methods import metrics

    names = [name for name in measures if _cutoff(name) <= run.depth]
    judged = judged_queries(queries, qrels)
    values = metrics.measure(run.lists, qrels, judged, names) if len(judged) and names else {}
    measured = {name: PerQuery(judged, found) for name, found in values.items()}
    depths = [depth for depth in answer_depths if depth <= run.depth]
    if depths and len(queries) > queries_without_answers(queries, dataset):
        measured |= _answer_measures(run, queries, dataset, depths)
    return measured


def _cutoff(name: str) -> int:
    _, _, cutoff = name.partition("@")
    return int(cutoff) if cutoff else 0


def _answers(dataset: Artifact) -> dict[int, list[str]]:
    if not dataset.rows("answers"):
        return {}
    table = dataset.read("answers")
    columns = (table[name].to_pylist() for name in ("query_index", "answers"))
    return dict(zip(*columns, strict=True))


def queries_without_answers(queries: npt.NDArray[np.integer], dataset: Artifact) -> int:
    """Queries that answer@k leaves out."""
    answers = _answers(dataset)
    return sum(not answers.get(int(query)) for query in queries)


def _answer_measures(
    run: Run, queries: npt.NDArray[np.integer], dataset: Artifact, depths: Sequence[int]
) -> dict[str, PerQuery]:
    """answer@k over the queries that have answers."""
    import numpy as np

    from pipeline.methods.answers import first_matches
    from pipeline.methods.filters import window

    answers = _answers(dataset)
    lists = run.lists.of(queries)
    lists = lists.keep(window(lists, 1, max(depths)))
    texts = _texts(dataset, np.unique(lists.passage_indices))
    matches = first_matches(
        lists, [answers.get(int(query), []) for query in queries], texts.__getitem__, max(depths)
    )
    found = matches.query_indices
    return {f"answer@{depth}": PerQuery(found, matches.at(depth)) for depth in depths}


def _texts(dataset: Artifact, wanted: npt.NDArray[np.integer]) -> dict[int, str]:
    """Texts of the given passages, reading one shard at a time."""
    texts: dict[int, str] = {}
    for shard in dataset.shards("passages"):
        inside = wanted[(wanted >= shard.first_row) & (wanted < shard.first_row + shard.rows)]
        if len(inside):
            column = shard.read(["text"])["text"].take(inside - shard.first_row)
            texts |= dict(zip(inside.tolist(), column.to_pylist(), strict=True))
    return texts
