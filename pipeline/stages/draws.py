"""Stage `draws`: how many false negatives samplers draw, and from which ranks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from pipeline.artifacts.kinds import (
    DATASET,
    DRAW_STUDY,
    NEGATIVE_POOLS,
    TOKENS,
    TRAINING_LISTS,
)
from pipeline.dag.contract import Context, Input, Inputs, Outcome, Params, Resources, stage

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.artifacts.writer import ArtifactWriter
    from pipeline.methods.draws import Drawn
    from pipeline.methods.filters import KnownPairs
    from pipeline.stages.draw_systems import Judge, System


class DrawsParams(Params):
    """What is drawn, and who says what is a false negative.

    Attributes:
        names: one for each of the artifacts wired to `pools`, then for those wired to `lists`.
        num_negatives: drawn from each pool in an epoch. Lists give rows of so many, as in training.
        epochs: how often is drawn.
        judge: `hidden_qrels`: what has a hidden label, or the text of a passage that has one
            (`ingest` with `training_positives`, or the source `pydocs` with `planted_share`);
            `answers`: an unlabelled passage whose text holds an answer of the query. Queries
            without hidden labels, or answers, are left out.
        sampled_queries: queries whose probabilities by rank are kept, drawn by the seed.
    """

    names: list[str] = Field(min_length=1)
    num_negatives: int = Field(default=15, ge=1)
    epochs: int = Field(default=20, ge=1)
    judge: Literal["hidden_qrels", "answers"] = "hidden_qrels"
    sampled_queries: int = Field(default=4, ge=0)

    @field_validator("names")
    @classmethod
    def _different(cls, names: list[str]) -> list[str]:
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            raise ValueError(f"'{repeated[0]}' is given twice: each system has its own name")
        return names

    def mismatches(self, wired: Mapping[str, int], resources: Resources) -> Sequence[str]:
        """As many names as pools and lists, where there are some."""
        systems = wired.get("pools", 0) + wired.get("lists", 0)
        if not wired.get("pools") or systems == len(self.names):
            return ()
        return (
            f"{systems} pools and lists are wired and {len(self.names)} names given: one for each, "
            "those of the pools first",
        )


@stage(
    params=DrawsParams,
    inputs={
        "dataset": DATASET,
        "tokens": TOKENS,
        "pools": Input((NEGATIVE_POOLS,), many=True),
        "lists": Input((TRAINING_LISTS,), many=True, optional=True),
    },
    output=DRAW_STUDY,
    draws=True,
    libraries=("numpy",),
)
def draws(inputs: Inputs, params: DrawsParams, writer: ArtifactWriter, context: Context) -> Outcome:
    """Count the false negatives that samplers draw, and keep how likely each rank is."""
    from pipeline.methods.draws import sampled_pairs
    from pipeline.stages.draw_systems import common_pairs, judged, read_systems

    wired = read_systems(inputs, params)
    every = set().union(*(system.queries for system in wired))
    systems, judge = judged(inputs, params.judge, wired)
    found = _drawn(systems, judge, params, context)
    sampled = sampled_pairs(common_pairs(systems), params.sampled_queries, context.seed)
    writer.write_table("shares", _shares(found))
    writer.write_table("probabilities", _probabilities(systems, found, sampled, params.epochs))
    summary = {system.name: _summary(system, found[system.name]) for system in systems}
    document = {
        "judge": params.judge,
        "num_negatives": params.num_negatives,
        "epochs": params.epochs,
        "queries": len(judge.queries),
        "systems": summary,
        "sampled": _named(inputs, sampled),
    }
    writer.document("draws.json", document)
    left_out = {
        "not in every system": len(every) - judge.asked,
        f"without {judge.needs}": judge.asked - len(judge.queries),
    }
    return Outcome(
        rows_in=len(every),
        rows_out=len(judge.queries),
        unit="queries",
        dropped={reason: count for reason, count in left_out.items() if count},
        metrics={"false_negatives": {name: one["share"] for name, one in summary.items()}},
        report=_report(document),
    )


def _drawn(
    systems: Sequence[System], judge: Judge, params: DrawsParams, context: Context
) -> dict[str, Drawn]:
    """Draw from every system, for the queries that can be judged."""
    from pipeline.methods.draws import Drawn, times_drawn

    context.progress.start("drawing", len(systems), "systems")
    found = {}
    for system in systems:
        times = times_drawn(system.pools, params.num_negatives, context.seed, params.epochs)
        found[system.name] = Drawn(judge.queries, system.pools, times, judge.false)
        context.progress.advance(1)
    return found


def _summary(system: System, drawn: Drawn) -> dict[str, Any]:
    """What is told of a system; None where candidates have no ranks."""
    share, low, high = drawn.share()
    return {
        "share": share,
        "low": low,
        "high": high,
        "drawn": int(drawn.drawn.sum()),
        "false_negatives": int(drawn.false_negatives.sum()),
        "queries_with_false_negatives": float(drawn.in_reach.mean()),
        "pool_size": float(system.pools.lists.lengths.mean()),
        "effective_size": float(system.pools.effective_sizes().mean()),
        "mean_rank": None if system.ranks is None else drawn.mean_rank(system.ranks),
    }


def _report(document: Mapping[str, Any]) -> str:
    from pipeline.reports.ladder import table
    from pipeline.reports.sections import drawn, how_drawn

    told = drawn(document["systems"])
    return f"{how_drawn(document)}\n{table(told.header, told.rows)}"


# Tables -----------------------------------------------------------------------------------------


def _shares(found: Mapping[str, Drawn]) -> pa.Table:
    import pyarrow as pa

    tables = [
        pa.table(
            {
                "system": pa.repeat(name, len(drawn.queries)),
                "query_index": pa.array(drawn.queries, pa.int32()),
                "drawn": pa.array(drawn.drawn, pa.int32()),
                "false_negatives": pa.array(drawn.false_negatives, pa.int32()),
            }
        )
        for name, drawn in found.items()
    ]
    return pa.concat_tables(tables)


def _probabilities(
    systems: Sequence[System], found: Mapping[str, Drawn], sampled: KnownPairs, epochs: int
) -> pa.Table:
    """The pools of the sampled queries, by rank."""
    import numpy as np
    import pyarrow as pa

    tables = [DRAW_STUDY.schema("probabilities").empty_table()]
    for system in systems:
        if system.ranks is None or system.positive_ranks is None:
            continue
        lists = system.pools.lists
        chosen = sampled.contains(lists.query_indices, system.pools.positives)[lists.rows]
        entries = np.flatnonzero(chosen)
        entries = entries[np.lexsort((system.ranks[entries], lists.rows[entries]))]
        columns = (
            pa.repeat(system.name, len(entries)),
            lists.queries[entries],
            system.ranks[entries].astype(np.int32),
            system.pools.probabilities()[entries],
            found[system.name].times[entries] / epochs,
            system.positive_ranks[lists.rows[entries]],
        )
        tables.append(pa.table(list(columns), schema=tables[0].schema))
    return pa.concat_tables(tables)


def _named(inputs: Inputs, sampled: KnownPairs) -> list[dict[str, Any]]:
    """The sampled queries, with what they ask."""
    lists = sampled.lists()
    chosen = inputs["dataset"].read("queries", ["query_id", "text"]).take(lists.query_indices)
    return [
        {"query_index": query, **row, "positive": int(passages[0])}
        for (query, passages), row in zip(lists, chosen.to_pylist(), strict=True)
    ]
