"""Stage `evaluate`: how well each run ranks, and what may be claimed of the differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import AfterValidator, Field, field_validator, model_validator

from pipeline.artifacts.kinds import CANDIDATES, DATASET, EVALUATION, SCORED_CANDIDATES
from pipeline.dag.contract import (
    Context,
    Input,
    Inputs,
    Mismatch,
    Outcome,
    Params,
    Progress,
    Resources,
    stage,
)
from pipeline.sources.records import LabelledSplit
from pipeline.stages import lineage
from pipeline.stages.comparing import Steps, comparisons, neighbours, not_compared, steps_behind
from pipeline.stages.measuring import ANSWER, Judgements, Measured, PerQuery, measure_run
from pipeline.stages.runs import (
    MIXED,
    RANKED,
    derived,
    mixing_weights,
    reachable,
    runs_of,
    searched,
    write_trec,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pipeline.artifacts.reader import Artifact
    from pipeline.artifacts.writer import ArtifactWriter
    from pipeline.methods.statistics import SystemScores

VALIDATION: Final = "validation"


def _of_one_name(counts: dict[str, int]) -> dict[str, int]:
    """A mapping has no order in a key, but the names of runs have one."""
    if len(counts) != 1:
        apart = ", ".join(f"{name}: {count}" for name, count in counts.items()) or "NAME: n"
        raise ValueError(f"a mapping of one name: write [{apart}]")
    return counts


Seeds = Annotated[dict[str, Annotated[int, Field(ge=1)]], AfterValidator(_of_one_name)]


class EvaluateParams(Params):
    """What is measured on which runs.

    Attributes:
        names: the systems of the artifacts wired to `runs`, in order. `NAME: 3` names the next
            three, which are seeds of one system, as is a name that comes again. A run with ranker
            scores also gives its re-ranked and its mixed run.
        untrained: names of systems without seeds (BM25, a model as released). Others are compared
            where equally many optimiser steps are behind them.
        splits: whose queries; the mix's weight is chosen on `validation` alone.
        measures: by ir-measures' names; those that look deeper than a run was searched are left out
            for it. `Success@k` is a query with a relevant passage among the first k, `R@k` the
            share of its relevant passages there.
        compared: the measure of the comparisons, of the mix's weight and of the warning about a
            ranker: one of `measures`, or answer@k.
        comparisons: pairs of names; empty means each system with the one before it.
        answer_depths: answer@k, where the dataset has answers.
        shown: the measures of the table that is printed; all are in `metrics.json`.
        groups: name -> how the ids of its queries start: each gets a table of its own, without
            comparisons. For data from several sources.
    """

    names: list[str | Seeds]
    untrained: list[str] = []
    splits: list[LabelledSplit] = Field(default=[VALIDATION, "dev"], min_length=1)
    measures: list[str] = [
        *("RR@10", "RR@100", "nDCG@10", "R@50", "R@100", "R@1000"),
        *("Success@1", "Success@5", "Success@20", "Success@50", "Success@100", "Success@1000"),
    ]
    compared: str = "RR@10"
    comparisons: list[list[str]] = []
    answer_depths: list[Annotated[int, Field(ge=1)]] = [5, 20, 100]
    shown: list[str] = Field(default=["RR@10", "Success@5", "Success@50"])
    groups: dict[str, list[str]] = {}

    def systems(self) -> list[str]:
        """The name of each run."""
        names: list[str] = []
        for entry in self.names:
            counts = {entry: 1} if isinstance(entry, str) else entry
            names += [name for name, count in counts.items() for _ in range(count)]
        return names

    def measured(self) -> list[str]:
        """All measures, answer@k among them."""
        return [*self.measures, *(f"{ANSWER}{depth}" for depth in self.answer_depths)]

    def mismatches(self, wired: Mapping[str, int], resources: Resources) -> Sequence[str]:
        """As many names as runs, where there are some."""
        runs, names = wired.get("runs", 0), self.systems()
        if runs in (0, len(names)):
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
        measures, systems = self.measured(), self.systems()
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
    code_version=3,
    libraries=("ir-measures", "numpy"),
)
def evaluate(
    inputs: Inputs, params: EvaluateParams, writer: ArtifactWriter, context: Context
) -> Outcome:
    """Measure every run on every split, compare them pairwise, write TREC runs."""
    from pipeline.stages import tables

    dataset, artifacts = inputs["dataset"], inputs.many("runs")
    _refuse_removed(artifacts, params)
    judgements = Judgements.read(dataset)
    weights: dict[str, float] = {}
    if VALIDATION in params.splits:
        weights = mixing_weights(artifacts, VALIDATION, judgements, params.compared)
    wired = _Wired(artifacts, params, judgements, weights)
    steps = steps_behind(params.systems(), artifacts)
    document: dict[str, Any] = {"weights": weights, "splits": {}}
    texts, warnings, rows = [], [], []
    with writer.folder("runs") as folder:
        for split in params.splits:
            queries = tables.queries_of(dataset, [split])
            context.progress.start(f"measuring {split}", len(artifacts), "runs")
            measured = wired.measured(split, queries, folder / split, context.progress)
            result = _summary(split, measured, queries, judgements, steps, params)
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


def _refuse_removed(artifacts: Sequence[Artifact], params: EvaluateParams) -> None:
    """Raise Mismatch where a run cannot hold the positives that it would be measured by."""
    for name, artifact in zip(params.systems(), artifacts, strict=True):
        if removed := lineage.positives_removed(artifact) & set(params.splits):
            raise Mismatch(
                f"{name}: the positives of {' and '.join(sorted(removed))} were taken out of this "
                "search, so that every measure would be 0: give `mine` `remove_positives: []` in a "
                "search of its own, or leave the split out of `splits`"
            )


@dataclass(frozen=True, eq=False)
class _Wired:
    """The runs that are wired, and what is asked of them."""

    artifacts: Sequence[Artifact]
    params: EvaluateParams
    judgements: Judgements
    weights: Mapping[str, float]

    def measured(
        self, split: str, queries: npt.NDArray[np.integer], folder: Path, progress: Progress
    ) -> Measured:
        """Measure all runs and what re-ranking makes of them, and write them as TREC files."""
        from pipeline.stages import tables

        judgements, measured = self.judgements, Measured()
        judged = judgements.of_rank(queries)
        for number, (name, artifact) in enumerate(
            zip(self.params.systems(), self.artifacts, strict=True)
        ):
            found = tables.Candidates.read(artifact).of_queries(queries)
            depth, weight = searched(artifact, split, found), self.weights.get(str(number))
            for run in runs_of(name, found, depth, judgements.qrels, weight):
                values = measure_run(run.lists, depth, queries, judgements, self.params.measured())
                measured.add(run.name, depth, values)
                write_trec(folder, run, judgements.dataset, number)
            if found.ranker_scores is not None and len(judged):
                share = reachable(found, judged, judgements.qrels)
                measured.reachable.setdefault(name, []).append(share)
            judgements.texts.clear()
            progress.advance(1)
        return measured


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


def _summary(
    split: str,
    measured: Measured,
    queries: npt.NDArray[np.integer],
    judgements: Judgements,
    steps: Steps,
    params: EvaluateParams,
) -> dict[str, Any]:
    """A split's means, what may be claimed, and what a perfect ranker could reach."""
    systems = _systems(measured, params)
    compared = {
        name: values[params.compared]
        for name, values in systems.items()
        if params.compared in values
    }
    pairs = params.comparisons or neighbours(list(systems))
    lacking = judgements.missing(params.compared, queries)
    return {
        "queries": len(queries),
        "judged_queries": len(judgements.of_rank(queries)),
        "queries_without_answers": len(queries) - len(judgements.answered(queries)),
        "systems": _means(systems),
        "reachable": {
            name: {
                "depth": max(depth for depth, _ in seeds),
                "share": sum(share for _, share in seeds) / len(seeds),
            }
            for name, seeds in measured.reachable.items()
        },
        "comparisons": comparisons(
            pairs, compared, steps, params.untrained, MIXED if split == VALIDATION else None
        ),
        "not_compared": not_compared(pairs, compared, measured.depths, lacking),
        "groups": _groups(measured, queries, judgements.dataset, params),
    }


def _report(split: str, result: Mapping[str, Any], params: EvaluateParams) -> list[str]:
    """A split's ladder with what may be claimed, and the ladder of each group."""
    from pipeline.reports.ladder import claims, ladder, reachable

    title = f"{split} ({result['judged_queries']} judged queries"
    answered = result["queries"] - result["queries_without_answers"]
    title += f", {answered} with answers)" if answered else ")"
    table = f"{title}\n{ladder(result['systems'], params.shown)}"
    said = [
        reachable(result["reachable"]),
        claims(result["comparisons"], result["not_compared"]),
    ]
    return [
        "\n\n".join([table, *filter(None, said)]),
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

    schema = EVALUATION.schema("per_query")
    tables = [
        pa.table(
            [
                pa.array(found.queries, pa.int32()),
                pa.repeat(run, len(found.values)),
                pa.repeat(measure, len(found.values)),
                found.values,
            ],
            schema=schema,
        )
        for split in splits
        for run, measure, found in split
    ]
    writer.write_table("per_query", pa.concat_tables([schema.empty_table(), *tables]))
