"""Stage `evaluate`: how well each run ranks, and what may be claimed of the differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pydantic import Field

from pipeline.artifacts.kinds import CANDIDATES, DATASET, EVALUATION, SCORED_CANDIDATES
from pipeline.dag.contract import Context, Input, Inputs, Outcome, Params, stage
from pipeline.stages.runs import DERIVED, RANKED, Run, mixing_weights, runs_of, write_trec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pipeline.artifacts.reader import Artifact
    from pipeline.artifacts.writer import ArtifactWriter
    from pipeline.methods.metrics import Qrels
    from pipeline.methods.statistics import SystemScores

VALIDATION = "validation"


class EvaluateParams(Params):
    """What is measured on which runs.

    Attributes:
        names: one for each artifact wired to `runs`, in order. A name that comes again is another
            seed of the same system. A run with ranker scores also gives its re-ranked and its
            mixed run.
        untrained: names of systems without seeds (BM25, a model as released).
        splits: whose queries; the mix's weight is chosen on `validation` alone.
        measures: by ir-measures' names; those that look deeper than a run goes are left out for it.
        compared: the measure of the comparisons.
        comparisons: pairs of names; empty means each system with the one before it.
        answer_depths: answer@k, where the dataset has answers.
        shown: the measures of the table that is printed; all are in `metrics.json`.
        groups: name -> how the ids of its queries start: each gets a table of its own, without
            comparisons. For data from several sources.
    """

    names: list[str]
    untrained: list[str] = []
    splits: list[str] = [VALIDATION, "dev"]
    measures: list[str] = ["RR@10", "Success@1", "Success@5", "Success@20", "Success@50", "nDCG@10"]
    compared: str = "RR@10"
    comparisons: list[list[str]] = []
    answer_depths: list[int] = [5, 20, 100]
    shown: list[str] = Field(default=["RR@10", "Success@5", "Success@50"])
    groups: dict[str, list[str]] = {}


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


@stage(
    params=EvaluateParams,
    inputs={"dataset": DATASET, "runs": Input((CANDIDATES, SCORED_CANDIDATES), many=True)},
    output=EVALUATION,
    libraries=("ir-measures", "numpy"),
)
def evaluate(
    inputs: Inputs, params: EvaluateParams, writer: ArtifactWriter, context: Context
) -> Outcome:
    """Measure every run on every split, compare them pairwise, write TREC runs."""
    from pipeline.stages import tables

    dataset, artifacts = inputs["dataset"], inputs.many("runs")
    if len(artifacts) != len(params.names):
        raise ValueError(
            f"{len(artifacts)} runs are wired and {len(params.names)} names given: one for each"
        )
    qrels = tables.qrels_of(dataset)
    weights: dict[str, float] = {}
    if VALIDATION in params.splits:
        chosen_on = _judged(tables.queries_of(dataset, [VALIDATION]), qrels)
        if len(chosen_on):
            weights = mixing_weights(artifacts, chosen_on, qrels, params.compared)
    document: dict[str, Any] = {"weights": weights, "splits": {}}
    texts, warnings, rows = [], [], []
    with writer.folder("runs") as folder:
        for split in params.splits:
            queries = tables.queries_of(dataset, [split])
            context.progress.start(f"measuring {split}", len(artifacts), "runs")
            measured = Measured()
            for number, artifact in enumerate(artifacts):
                found = tables.Candidates.read(artifact).of_queries(queries)
                for run in runs_of(params.names[number], found, qrels, weights.get(str(number))):
                    measured.add(run.name, _measure(run, queries, qrels, dataset, params))
                    write_trec(folder / split, run, dataset, number)
                context.progress.advance(1)
            result = {
                "queries": len(queries),
                "judged_queries": len(_judged(queries, qrels)),
                "queries_without_answers": _without_answers(queries, dataset),
                **_summary(measured, params),
                "groups": _groups(measured, queries, dataset, params),
            }
            document["splits"][split] = result
            rows.append(_per_query(measured))
            texts += _report(split, result, params)
            if split == VALIDATION:
                warnings = _losing_rankers(result["systems"], params)
    writer.document("metrics.json", document)
    _write_per_query(writer, rows)
    return Outcome(
        rows_in=len(artifacts),
        rows_out=len(artifacts),
        unit="runs",
        metrics={"weights": weights},
        warnings=warnings,
        report="\n\n".join(texts),
    )


def _judged(queries: npt.NDArray[np.integer], qrels: Qrels) -> npt.NDArray[np.integer]:
    """Those of the queries that have a judgement."""
    import numpy as np

    return queries[np.isin(queries, qrels.query_indices)]


# Measures ---------------------------------------------------------------------------------


def _measure(
    run: Run,
    queries: npt.NDArray[np.integer],
    qrels: Qrels,
    dataset: Artifact,
    params: EvaluateParams,
) -> dict[str, PerQuery]:
    """Measures of rank over the judged queries, answer@k over those with answers."""
    from pipeline.methods import metrics

    names = [name for name in params.measures if _cutoff(name) <= run.depth]
    judged = _judged(queries, qrels)
    values = metrics.measure(run.lists, qrels, judged, names) if len(judged) and names else {}
    measured = {name: PerQuery(judged, found) for name, found in values.items()}
    depths = [depth for depth in params.answer_depths if depth <= run.depth]
    if depths and len(queries) > _without_answers(queries, dataset):
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


def _without_answers(queries: npt.NDArray[np.integer], dataset: Artifact) -> int:
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


def _groups(
    measured: Measured,
    queries: npt.NDArray[np.integer],
    dataset: Artifact,
    params: EvaluateParams,
) -> dict[str, Any]:
    """Means and deviations over the queries of each group that has some among `queries`."""
    ids = dataset.read("queries", ["query_id"])["query_id"].take(queries).to_pylist()
    groups = {}
    for name, prefixes in params.groups.items():
        inside = [query_id.startswith(tuple(prefixes)) for query_id in ids]
        chosen = queries[inside]
        if len(chosen):
            systems = _systems(measured.among(chosen), params)
            groups[name] = {"queries": len(chosen), "systems": _means(systems)}
    return groups


def _systems(measured: Measured, params: EvaluateParams) -> dict[str, dict[str, SystemScores]]:
    """Scores by system and measure; measures that no query has are left out."""
    import numpy as np

    from pipeline.methods.statistics import SystemScores

    return {
        name: {
            measure: SystemScores(
                name, np.stack([seed.values for seed in seeds]), name in params.untrained
            )
            for measure, seeds in by_measure.items()
            if len(seeds[0].values)
        }
        for name, by_measure in measured.seeds.items()
    }


def _means(systems: Mapping[str, Mapping[str, SystemScores]]) -> dict[str, Any]:
    return {
        name: {
            measure: {
                "mean": scores.mean,
                "deviation": scores.deviation,
                "seeds": len(scores.values),
            }
            for measure, scores in by_measure.items()
        }
        for name, by_measure in systems.items()
    }


def _summary(measured: Measured, params: EvaluateParams) -> dict[str, Any]:
    """Means and deviations over seeds, comparisons, and what a perfect ranker could reach."""
    from pipeline.methods.statistics import compare

    systems = _systems(measured, params)
    pairs = params.comparisons or _neighbours(list(systems))
    by_measure = {name: values.get(params.compared) for name, values in systems.items()}
    scored = [(by_measure[a], by_measure[b]) for a, b in pairs]
    compared = compare([(a, b) for a, b in scored if a is not None and b is not None])
    return {
        "systems": _means(systems),
        "comparisons": [asdict(comparison) for comparison in compared],
    }


def _neighbours(names: Sequence[str]) -> list[list[str]]:
    """Each system with the one before; what was re-ranked, with the run it re-ranks."""
    ladder = [name for name in names if not name.endswith(DERIVED)]
    pairs = [[name, before] for before, name in pairwise(ladder)]
    pairs += [[name, name.removesuffix(RANKED)] for name in names if name.endswith(RANKED)]
    return pairs


def _report(split: str, result: Mapping[str, Any], params: EvaluateParams) -> list[str]:
    """A split's ladder with what may be claimed, and the ladder of each group."""
    from pipeline.reports.ladder import claims, ladder

    shown = ladder(result["systems"], params.shown)
    title = f"{split} ({result['judged_queries']} judged queries)"
    return [
        f"{title}\n{shown}\n\n{claims(result['comparisons'])}",
        *(
            f"{split}, {name} ({group['queries']} queries)\n"
            + ladder(group["systems"], params.shown)
            for name, group in result["groups"].items()
        ),
    ]


def _losing_rankers(systems: Mapping[str, Mapping[str, Any]], params: EvaluateParams) -> list[str]:
    """A warning for each ranker that does not rank better than its retriever."""
    warnings = []
    for name, values in systems.items():
        if not name.endswith(RANKED) or params.compared not in values:
            continue
        ranker = values[params.compared]["mean"]
        retriever = systems[name.removesuffix(RANKED)][params.compared]["mean"]
        if ranker <= retriever:
            warnings.append(
                f"on validation the ranker alone ({params.compared} {ranker:.3f}) does not rank "
                f"better than the retriever ({retriever:.3f}) whose candidates it re-ranks; "
                "denoising with it can do harm"
            )
    return warnings


# The per-query table ------------------------------------------------------------------------


def _per_query(measured: Measured) -> list[tuple[str, str, PerQuery]]:
    """(run, measure, values), a system's seeds numbered from 0."""
    return [
        (f"{system}#{number}", measure, values)
        for system, by_measure in measured.seeds.items()
        for measure, seeds in by_measure.items()
        for number, values in enumerate(seeds)
    ]


def _write_per_query(
    writer: ArtifactWriter, splits: Sequence[Sequence[tuple[str, str, PerQuery]]]
) -> None:
    import pyarrow as pa

    tables = [
        pa.table(
            {
                "query_index": pa.array(found.queries, pa.int32()),
                "run": pa.repeat(run, len(found.values)),
                "measure": pa.repeat(measure, len(found.values)),
                "value": found.values,
            }
        )
        for split in splits
        for run, measure, found in split
    ]
    writer.write_table("per_query", pa.concat_tables(tables))
