"""Stage `pool`: what negatives are drawn from while training goes on (SimANS and its kin)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.artifacts.kinds import (
    CALIBRATION,
    CANDIDATES,
    DATASET,
    EMBEDDINGS,
    NEGATIVE_POOLS,
    TOKENS,
)
from pipeline.dag.contract import Context, Input, Inputs, Mismatch, Outcome, stage
from pipeline.stages.pool_params import PoolParams

if TYPE_CHECKING:
    from pipeline.artifacts.reader import Artifact
    from pipeline.artifacts.writer import ArtifactWriter
    from pipeline.stages.pool_params import SamplerParams
    from pipeline.stages.pool_shard import PoolTask

# Weights that leave more than this share of the candidates in play hardly prefer any.
_NEARLY_UNIFORM = 0.97
_SPREAD = "`standardised: true` counts differences in units of their spread"
# What makes a sampler prefer the top candidates less, and what makes it prefer some more.
_SOFTER = {
    "softmax": ["raise `temperature`"],
    "nearest": ["move `b`"],
    "simans": ["look at the quantiles of difference_score and move `b`", "lower `a`"],
    "simans_laplace": ["look at the quantiles of difference_score and move `b`", "lower `a`"],
    "doc_sim": ["move `b`", "lower `a`"],
}
_SHARPER = {
    "softmax": "lower `temperature`",
    "simans": f"raise `a`, or {_SPREAD}",
    "simans_laplace": f"raise `a`, or {_SPREAD}",
    "doc_sim": f"raise `a`, or {_SPREAD}",
    "trisampler_query": _SPREAD,
    "trisampler": _SPREAD,
}


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
    code_version=3,
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
    if params.filters.without_answer:
        _check_answers(dataset, params.split)
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
    warnings = _cautions(metrics, params.sampler)
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


def _check_answers(dataset: Artifact, split: str) -> None:
    """Raise Mismatch where there is no answer to look for."""
    from pipeline.stages import tables
    from pipeline.stages.measuring import Judgements

    if not len(Judgements.read(dataset).answered(tables.queries_of(dataset, [split]))):
        raise Mismatch(
            f"filter 'without_answer' looks for answers, and no query of '{split}' comes with any: "
            "leave it out"
        )


def _check_order(found: Sequence[Artifact], embeddings: Sequence[Artifact]) -> None:
    """Raise Mismatch where candidates stand beside the vectors that found other ones."""
    from pipeline.stages import lineage

    keys = [each.manifest.key for each in embeddings]
    for number, (candidates, key) in enumerate(zip(found, keys, strict=False), 1):
        made_of = lineage.input_key(candidates, "embeddings")
        if made_of in keys and made_of != key:
            raise Mismatch(
                f"candidates {number} were found by embeddings {keys.index(made_of) + 1} of those "
                "wired: wire both in the same order"
            )


def _cautions(metrics: Mapping[str, Any], sampler: SamplerParams) -> list[str]:
    """Warnings of a draw that is almost that of `top`, or almost uniform, and was to be neither."""
    from pipeline.stages import cautions

    found = []
    if sampler.name != "top":
        advice = [*_SOFTER.get(sampler.name, ()), "give the pool more depth"]
        found += cautions.on_overlap(
            metrics, f"sampler '{sampler.name}' hardly differs from `top`; {', or '.join(advice)}"
        )
    share = metrics.get("effective_share", 0.0)
    if sampler.name in _SHARPER and share > _NEARLY_UNIFORM:
        found.append(
            f"the pools' effective size is {share:.0%} of their candidates: sampler "
            f"'{sampler.name}' hardly differs from `uniform`; {_SHARPER[sampler.name]}"
        )
    return found


def _tasks(inputs: Inputs) -> list[PoolTask]:
    """One for each shard of candidates, with the embeddings that belong to them."""
    from pipeline.stages import tables
    from pipeline.stages.pool_shard import PoolTask

    found, embeddings = inputs.many("candidates"), inputs.many("embeddings")
    tables.refuse_repeated_queries(found)
    _check_order(found, embeddings)
    pairs = zip(found, embeddings or [None] * len(found), strict=True)
    shards = [(shard, vectors) for each, vectors in pairs for shard in each.shards("candidates")]
    return [PoolTask(index, *shard) for index, shard in enumerate(shards)]
