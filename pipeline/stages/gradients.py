"""Stage `gradients`: what negatives contribute to the gradient, by their rank (SimANS' pilot)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline.artifacts.kinds import (
    CANDIDATES,
    DATASET,
    EMBEDDINGS,
    GRADIENT_STUDY,
    RETRIEVER,
    TOKENS,
)
from pipeline.dag.contract import Context, Inputs, Mismatch, Outcome, Params, stage
from pipeline.sources.records import LabelledSplit

if TYPE_CHECKING:
    from pipeline.artifacts.writer import ArtifactWriter
    from pipeline.stages.gradient_shard import RankTask


class GradientsParams(Params):
    """Whose gradients are taken, and how many at once.

    Attributes:
        split: whose labelled queries are looked at.
        max_queries: so many of them, drawn at random.
        depth: the best negatives of each query, which the softmax goes over together with one
            positive. Queries with fewer candidates beside their known positives are left out: a
            search that leaves positives in has to go somewhat deeper.
        positive: the first labelled passage of a query, or one drawn at random.
        random_negatives: passages drawn uniformly for each query as a line to compare with, rank 0
            of the table. Each joins the softmax by itself.
        ranks_per_task: ranks that a worker sums up in one pass over the queries; it keeps a vector
            of the layer's size in float64 for each.
        gradients_at_once: pairs whose gradients are computed together; memory holds a few vectors
            of the layer's size in float32 for each (7 MB where states have 384 numbers, 28 MB
            where they have 768).
    """

    split: LabelledSplit = "dev"
    max_queries: int = Field(default=200, ge=2)
    depth: int = Field(default=200, ge=1)
    positive: Literal["first", "random"] = "first"
    random_negatives: int = Field(default=10, ge=1)
    ranks_per_task: int = Field(default=10, ge=1)
    gradients_at_once: int = Field(default=16, ge=1)


@stage(
    params=GradientsParams,
    inputs={
        "retriever": RETRIEVER,
        "tokens": TOKENS,
        "dataset": DATASET,
        "candidates": CANDIDATES,
        "embeddings": EMBEDDINGS,
    },
    output=GRADIENT_STUDY,
    draws=True,
    libraries=("numpy", "torch", "transformers"),
)
def gradients(
    inputs: Inputs, params: GradientsParams, writer: ArtifactWriter, context: Context
) -> Outcome:
    """Measure the gradients of negatives by rank: means, variances, direction."""
    from pipeline.distributed.shards import run_shards
    from pipeline.stages import exports, tables
    from pipeline.stages.gradient_shard import MakeGradientWork
    from pipeline.stages.gradient_study import GradientStudy

    _refuse_other_retrievers(inputs)
    exports.check_retriever(inputs["retriever"], inputs["tokens"])
    study = GradientStudy.read(inputs, params, context.seed)
    written = writer.shards("ranks")
    done = written.done()
    tasks = _tasks(params)
    queries = len(study.queries)
    pairs = {task.index: queries * len(study.columns(task.ranks)) for task in tasks}
    context.progress.start("taking gradients", sum(pairs.values()), "pairs")
    context.progress.advance(sum(pairs[index] for index in done))
    run_shards(
        MakeGradientWork(inputs, params, writer, context.seed),
        [task for task in tasks if task.index not in done],
        context.resources,
        context.progress,
        writer.store,
    )
    infos = written.infos()
    document = study.document(infos[0]["parameters"])
    writer.document("gradients.json", document)
    return Outcome(
        rows_in=queries + sum(study.dropped.values()),
        rows_out=queries,
        unit="queries",
        dropped=study.dropped,
        counts={"gradients": sum(pairs.values()), "parameters": document["parameters"]},
        metrics={"positive_rank": document["positive_rank"]},
        warnings=_on_short_lists(study.dropped, params),
        device=tables.devices(infos),
    )


def _tasks(params: GradientsParams) -> list[RankTask]:
    """The random passages, then the ranks in blocks."""
    from pipeline.stages.gradient_shard import RankTask

    ranks, size = tuple(range(1, params.depth + 1)), params.ranks_per_task
    blocks = [ranks[first : first + size] for first in range(0, params.depth, size)]
    return [RankTask(index, block) for index, block in enumerate([(0,), *blocks])]


def _on_short_lists(dropped: Mapping[str, int], params: GradientsParams) -> list[str]:
    """A warning where the queries that remain may be a choice of the hard ones."""
    from pipeline.stages.gradient_study import TOO_FEW

    short = dropped.get(TOO_FEW, 0)
    if not short:
        return []
    return [
        f"{short} labelled queries have fewer than {params.depth} negatives and are left out; if "
        "the search has left positives in, those that remain are the queries whose positives it "
        "did not find: search deeper, or give `depth` less"
    ]


def _refuse_other_retrievers(inputs: Inputs) -> None:
    """Raise Mismatch where vectors or candidates are known to be another retriever's."""
    from pipeline.stages import lineage

    own = inputs["retriever"].key
    for name in ("embeddings", "candidates"):
        if lineage.retriever_key(inputs[name]) not in (own, None):
            raise Mismatch(
                f"the {name} {inputs[name]} are not those of the retriever "
                f"{inputs['retriever']}: wire what `encode` and `mine` made from it"
            )
