"""Stage `pool`: what negatives are drawn from while training goes on (SimANS and its kin)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pipeline.artifacts.kinds import (
    CALIBRATION,
    CANDIDATES,
    DATASET,
    EMBEDDINGS,
    NEGATIVE_POOLS,
    TOKENS,
)
from pipeline.dag.contract import Context, Input, Inputs, Outcome, stage
from pipeline.stages.pool_params import PoolParams

if TYPE_CHECKING:
    from pipeline.artifacts.writer import ArtifactWriter
    from pipeline.stages.pool_shard import PoolTask


@stage(
    params=PoolParams,
    inputs={
        "dataset": DATASET,
        "tokens": TOKENS,
        "candidates": Input((CANDIDATES,), many=True),
        "embeddings": Input((EMBEDDINGS,), many=True, optional=True),
        "calibration": Input((CALIBRATION,), optional=True),
    },
    output=NEGATIVE_POOLS,
    draws=True,
    libraries=("numpy",),
)
def pool(inputs: Inputs, params: PoolParams, writer: ArtifactWriter, context: Context) -> Outcome:
    """Weigh each query's candidates; training draws negatives from them anew in every epoch."""
    import numpy as np

    from pipeline.distributed.shards import run_shards
    from pipeline.stages import cautions, pool_report, tables
    from pipeline.stages.pool_shard import MakePoolWork

    dataset = inputs["dataset"]
    queries = tables.queries_of(dataset, [params.split])
    labelled = int(np.isin(queries, tables.positives_of(dataset).lists().query_indices).sum())
    tasks = _tasks(inputs)
    written = writer.shards("pools")
    done = written.done()
    context.progress.start("weighing", sum(task.shard.rows for task in tasks), "queries")
    context.progress.advance(sum(task.shard.rows for task in tasks if task.index in done))
    run_shards(
        MakePoolWork(
            dataset, inputs["tokens"], inputs.get("calibration"), params, writer, context.seed
        ),
        [task for task in tasks if task.index not in done],
        context.resources.on_cpus(),
        context.progress,
        writer.store,
    )
    writer.document("pools.json", {"one_row_per_query": params.positive != "each"})
    infos = [info for info in written.infos() if info]
    counts: Counter[str] = Counter()
    for info in infos:
        counts.update(info["counts"])
    searched, kept = (sum(info[name] for info in infos) for name in ("queries", "queries_kept"))
    dropped = {
        "no positive": len(queries) - labelled,
        "no candidates": labelled - searched,
        "starved": searched - kept,
    }
    metrics = pool_report.merged([info["measured"] for info in infos])
    warnings = []
    if params.sampler.name != "top":
        warnings += cautions.on_overlap(
            metrics,
            f"sampler '{params.sampler.name}' hardly differs from `top`; look at the quantiles of "
            "difference_score, and move `b`, lower `a`, or give the pool more depth",
        )
    if not kept:
        warnings.append("no query has a pool: nothing can be trained on this")
    if params.filters.ranker_below is not None:
        warnings += cautions.on_probabilities(inputs)
    return Outcome(
        rows_in=len(queries),
        rows_out=kept,
        unit="queries",
        dropped={reason: count for reason, count in dropped.items() if count},
        counts={**counts, "pools": sum(info["measured"]["pools"] for info in infos)},
        metrics=metrics,
        warnings=warnings,
    )


def _tasks(inputs: Inputs) -> list[PoolTask]:
    """One for each shard of candidates, with the embeddings that belong to them."""
    from pipeline.stages import tables
    from pipeline.stages.pool_shard import PoolTask

    found, embeddings = inputs.many("candidates"), inputs.many("embeddings")
    tables.refuse_repeated_queries(found)
    pairs = zip(found, embeddings or [None] * len(found), strict=True)
    shards = [(shard, vectors) for each, vectors in pairs for shard in each.shards("candidates")]
    return [PoolTask(index, *shard) for index, shard in enumerate(shards)]
