"""Reading a text collection into a Dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from pipeline.artifacts.kinds import DATASET
from pipeline.artifacts.writer import ArtifactWriter
from pipeline.dag.contract import (
    Context,
    FileSource,
    Inputs,
    Outcome,
    OutsideSource,
    PackageSource,
    Params,
    ValueSource,
    stage,
)
from pipeline.sources.records import Split
from pipeline.sources.registry import SourceConfiguration, outside


class IngestParams(Params):
    """Parameters of `ingest`.

    Attributes:
        source: what to read, told apart by `format`.
        on_problem: `fail` stops at the first bad row with its file and line; `skip` leaves bad rows
            out and counts them by reason.
        validation_share: part of the training queries to move to validation, in groups that share a
            query text, a relevant passage, a copy of one or its title, where the source has no
            validation queries.
        max_queries: split -> most of its queries to keep, drawn by the seed after validation was
            carved out: for trying a pipeline on a part of the data. Passages stay.
        training_positives: most positives of a training query to keep: those of highest relevance,
            of equal ones a draw by the seed and the texts. The others become hidden labels, which
            no training knows of: for measuring false negatives. Validation keeps all of its own.
        passages_per_shard: passages per shard: the unit of later parallel work and of resuming.
    """

    source: SourceConfiguration
    on_problem: Literal["fail", "skip"] = "fail"
    validation_share: float = Field(default=0.1, ge=0, lt=1)
    max_queries: dict[Split, Annotated[int, Field(ge=0)]] = {}
    # Left out where it is not given, so that it is in no key of a dataset with all its labels.
    training_positives: int | None = Field(
        default=None, ge=1, exclude_if=lambda value: value is None
    )
    passages_per_shard: int = Field(default=10_000, gt=0)


def _sources(params: IngestParams) -> Sequence[OutsideSource]:
    named = outside(params.source)
    return (
        *(FileSource(str(path)) for path in named.files),
        *(PackageSource(name) for name in named.packages),
        *(ValueSource(name, value) for name, value in named.values.items()),
    )


@stage(params=IngestParams, output=DATASET, draws=True, sources=_sources, code_version=2)
def ingest(
    inputs: Inputs, params: IngestParams, writer: ArtifactWriter, context: Context
) -> Outcome:
    """Read a text collection and check it: passages, queries by split, and their labels."""
    from pipeline.sources.assemble import Assembly
    from pipeline.sources.records import Problems
    from pipeline.sources.registry import open_source

    assembly = Assembly(
        open_source(params.source, Problems(params.on_problem)),
        passages_per_shard=params.passages_per_shard,
        validation_share=params.validation_share,
        seed=context.seed,
        max_queries=params.max_queries,
        training_positives=params.training_positives,
    )
    shards = writer.shards("passages")
    done = shards.done()
    context.progress.start("passages", None)
    for index, table in enumerate(assembly.passages()):
        if index not in done:
            shards.write(index, table)
        context.progress.advance(table.num_rows)
    tables = assembly.finish()
    writer.write_table("queries", tables.queries)
    writer.write_table("qrels", tables.qrels)
    writer.write_table("answers", tables.answers)
    writer.write_table("excluded", tables.excluded)
    writer.write_table("negatives", tables.negatives)
    writer.write_table("hidden_qrels", tables.hidden_qrels)
    report = tables.report
    return Outcome(
        rows_in=report.rows_in,
        rows_out=report.rows_out,
        dropped=report.dropped,
        counts=report.counts,
        warnings=report.warnings,
    )
