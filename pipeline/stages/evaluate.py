"""Stage `evaluate`: how well each run ranks, and what may be claimed of the differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, field_validator, model_validator

from pipeline.artifacts.kinds import CANDIDATES, DATASET, EVALUATION, SCORED_CANDIDATES
from pipeline.dag.contract import Context, Input, Inputs, Outcome, Params, stage
from pipeline.stages.measuring import (
    Measured,
    PerQuery,
    judged_queries,
    measure_run,
    queries_without_answers,
)
from pipeline.stages.runs import DERIVED, RANKED, derived, mixing_weights, runs_of, write_trec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pipeline.artifacts.reader import Artifact
    from pipeline.artifacts.writer import ArtifactWriter
    from pipeline.methods.statistics import SystemScores

VALIDATION = "validation"


class EvaluateParams(Params):
    """What is measured on which runs.

    Attributes:
        names: the systems of the artifacts wired to `runs`, in order. `NAME: 3` names the next
            three, which are seeds of one system, as is a name that comes again. A run with ranker
            scores also gives its re-ranked and its mixed run.
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

    names: list[str | dict[str, Annotated[int, Field(ge=1)]]]
    untrained: list[str] = []
    splits: list[str] = [VALIDATION, "dev"]
    measures: list[str] = ["RR@10", "Success@1", "Success@5", "Success@20", "Success@50", "nDCG@10"]
    compared: str = "RR@10"
    comparisons: list[list[str]] = []
    answer_depths: list[int] = [5, 20, 100]
    shown: list[str] = Field(default=["RR@10", "Success@5", "Success@50"])
    groups: dict[str, list[str]] = {}

    def systems(self) -> list[str]:
        """The name of each run."""
        names: list[str] = []
        for entry in self.names:
            counts = {entry: 1} if isinstance(entry, str) else entry
            names += [name for name, count in counts.items() for _ in range(count)]
        return names

    def mismatches(self, wired: Mapping[str, int]) -> Sequence[str]:
        """As many names as runs."""
        runs, names = wired.get("runs", 0), self.systems()
        if len(names) == runs:
            return ()
        return (
            f"{runs} runs are wired and {len(names)} names given: one for each, or `NAME: n` "
            "for n seeds in a row",
        )

    @field_validator("measures")
    @classmethod
    def _known_measures(cls, measures: list[str]) -> list[str]:
        from pipeline.methods.metrics import parsed

        parsed(measures)
        return measures

    @model_validator(mode="after")
    def _known_names(self) -> EvaluateParams:
        measures = [*self.measures, *(f"answer@{depth}" for depth in self.answer_depths)]
        systems = self.systems()
        for key, given, known in (
            ("compared", [self.compared], measures),
            ("shown", self.shown if "shown" in self.model_fields_set else [], measures),
            ("untrained", self.untrained, systems),
            ("comparisons", chain(*self.comparisons), [*systems, *derived(systems)]),
        ):
            if strange := [name for name in given if name not in known]:
                raise ValueError(
                    f"{key}: no '{strange[0]}' among {', '.join(dict.fromkeys(known))}"
                )
        if any(len(pair) != 2 for pair in self.comparisons):
            raise ValueError("comparisons: pairs of two names")
        return self


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
    names = params.systems()
    qrels = tables.qrels_of(dataset)
    weights: dict[str, float] = {}
    if VALIDATION in params.splits:
        chosen_on = judged_queries(tables.queries_of(dataset, [VALIDATION]), qrels)
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
                for run in runs_of(names[number], found, qrels, weights.get(str(number))):
                    measured.add(
                        run.name,
                        measure_run(
                            run, queries, qrels, dataset, params.measures, params.answer_depths
                        ),
                    )
                    write_trec(folder / split, run, dataset, number)
                context.progress.advance(1)
            result = {
                "queries": len(queries),
                "judged_queries": len(judged_queries(queries, qrels)),
                "queries_without_answers": queries_without_answers(queries, dataset),
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
