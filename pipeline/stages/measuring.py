"""What is measured of a run, query by query: measures of rank, and answers found in the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from pipeline.artifacts.reader import Artifact
    from pipeline.methods.lists import PassageLists
    from pipeline.methods.metrics import Qrels

ANSWER: Final = "answer@"


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
    """Values by system and measure: one entry a seed.

    Attributes:
        depths: system -> the rank to which its passages were searched for.
        reachable: re-ranked system -> for each seed how many passages of a query were scored at
            most, and the share of the judged queries with a relevant one among them.
    """

    seeds: dict[str, dict[str, list[PerQuery]]] = field(default_factory=dict)
    depths: dict[str, int] = field(default_factory=dict)
    reachable: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    def add(self, system: str, depth: int, measured: Mapping[str, PerQuery]) -> None:
        """Keep another seed's values of a system."""
        self.depths[system] = depth
        own = self.seeds.setdefault(system, {})
        for measure, values in measured.items():
            own.setdefault(measure, []).append(values)

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


@dataclass(frozen=True, eq=False)
class Judgements:
    """What runs are measured against: relevant passages, and answers to be found in the text.

    Attributes:
        dataset: where both are from.
        qrels: the judgements of passages.
        answers: query index -> its answers, for those that have some.
        texts: passage index -> text, of those that were looked into.
    """

    dataset: Artifact
    qrels: Qrels
    answers: Mapping[int, Sequence[str]]
    texts: dict[int, str] = field(default_factory=dict)

    @classmethod
    def read(cls, dataset: Artifact) -> Judgements:
        """Those of a Dataset."""
        from pipeline.stages import tables

        answers: dict[int, list[str]] = {}
        if dataset.rows("answers"):
            table = dataset.read("answers")
            columns = (table[name].to_pylist() for name in ("query_index", "answers"))
            answers = {query: texts for query, texts in zip(*columns, strict=True) if texts}
        return cls(dataset, tables.qrels_of(dataset), answers)

    def of_rank(self, queries: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        """Those of the queries that measures of rank count: the judged ones."""
        import numpy as np

        return queries[np.isin(queries, self.qrels.query_indices)]

    def answered(self, queries: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        """Those of the queries that answer@k counts: the ones with answers."""
        import numpy as np

        return queries[np.isin(queries, list(self.answers))]

    def missing(self, measure: str, queries: npt.NDArray[np.integer]) -> str:
        """What none of the queries has that the measure needs; empty where one has it."""
        if measure.startswith(ANSWER):
            return "" if len(self.answered(queries)) else "answers"
        return "" if len(self.of_rank(queries)) else "judged passages"

    def read_texts(self, passages: npt.NDArray[np.integer]) -> None:
        """Read the texts of those passages that are not read yet, one shard at a time."""
        import numpy as np

        known = np.fromiter(self.texts, np.int64, len(self.texts))
        wanted = np.setdiff1d(passages, known)
        for shard in self.dataset.shards("passages") if len(wanted) else ():
            inside = wanted[(wanted >= shard.first_row) & (wanted < shard.first_row + shard.rows)]
            if len(inside):
                column = shard.read(["text"])["text"].take(inside - shard.first_row)
                self.texts.update(zip(inside.tolist(), column.to_pylist(), strict=True))


def cutoff(measure: str) -> int:
    """The last rank that a measure looks at; 0 where it looks at all."""
    _, _, rank = measure.partition("@")
    return int(rank) if rank else 0


def measure_run(
    lists: PassageLists,
    depth: int,
    queries: npt.NDArray[np.integer],
    judgements: Judgements,
    measures: Sequence[str],
) -> dict[str, PerQuery]:
    """Measures of rank over the judged queries, answer@k over those with answers.

    Measures that look deeper than `depth`, the ranks that were searched, are left out: they would
    be understated. So are those that no query has anything for.
    """
    from pipeline.methods import metrics

    names = [
        name for name in measures if cutoff(name) <= depth and not judgements.missing(name, queries)
    ]
    of_rank = [name for name in names if not name.startswith(ANSWER)]
    judged = judgements.of_rank(queries)
    values = metrics.measure(lists, judgements.qrels, judged, of_rank) if of_rank else {}
    measured = {name: PerQuery(judged, found) for name, found in values.items()}
    answers = [name for name in names if name.startswith(ANSWER)]
    return measured | _answers(lists, queries, judgements, answers) if answers else measured


def _answers(
    lists: PassageLists,
    queries: npt.NDArray[np.integer],
    judgements: Judgements,
    measures: Sequence[str],
) -> dict[str, PerQuery]:
    """answer@k over the queries that have answers."""
    from pipeline.methods.answers import first_matches
    from pipeline.methods.filters import window

    deepest = max(map(cutoff, measures))
    lists = lists.of(judgements.answered(queries))
    lists = lists.keep(window(lists, 1, deepest))
    judgements.read_texts(lists.passage_indices)
    answers = [judgements.answers[query] for query in lists.query_indices.tolist()]
    matches = first_matches(lists, answers, judgements.texts.__getitem__, deepest)
    return {name: PerQuery(matches.query_indices, matches.at(cutoff(name))) for name in measures}
