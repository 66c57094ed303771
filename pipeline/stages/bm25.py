"""Stage `bm25`: the lexical first stage, as a baseline and as a source of negatives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from pipeline.artifacts.kinds import CANDIDATES, DATASET, TOKENS
from pipeline.dag.contract import Context, Inputs, Outcome, Params, stage

if TYPE_CHECKING:
    from pipeline.artifacts.writer import ArtifactWriter


class Bm25Params(Params):
    """Whose candidates are searched for, how deep, and BM25's two constants.

    Attributes:
        depths: split -> candidates per query.
        remove_positives: splits whose known positives are taken out before the ranking is cut.
        k1: saturation of term frequency.
        b: weight of passage length.
        queries_per_shard: rows of a shard of the result.
    """

    depths: dict[str, int] = {"validation": 100, "dev": 100}
    remove_positives: list[str] = ["train"]
    k1: float = Field(default=0.9, ge=0)
    b: float = Field(default=0.4, ge=0, le=1)
    queries_per_shard: int = Field(default=4096, ge=1)


@stage(
    params=Bm25Params,
    inputs={"dataset": DATASET, "tokens": TOKENS},
    output=CANDIDATES,
    libraries=("bm25s",),
)
def bm25(inputs: Inputs, params: Bm25Params, writer: ArtifactWriter, context: Context) -> Outcome:
    """Search titles and texts by BM25, in the driver's process."""
    from pipeline.search.bm25 import BM25Search
    from pipeline.stages import tables

    dataset = inputs["dataset"]
    known = tables.never_negative(dataset, inputs["tokens"])
    blocks = tables.query_blocks(
        dataset, params.depths, params.remove_positives, params.queries_per_shard, known
    )
    texts = dataset.read("queries", ["text"])["text"]
    rows = sum(len(block.queries) for block in blocks)
    done = writer.shards("candidates").done()
    search = BM25Search(dataset.iterate("passages", ["title", "text"]), k1=params.k1, b=params.b)
    context.progress.start("searching", rows, "queries")
    without = 0
    for block in blocks:
        context.progress.advance(len(block.queries))
        if block.index in done:
            continue
        found = search.search(texts.take(block.queries).to_pylist(), block.depth, block.excluded)
        without += int((found.counts == 0).sum())
        candidates = tables.Candidates.of_top_k(block.queries, found)
        writer.shards("candidates").write(block.index, candidates.table())
    return Outcome(
        rows_in=rows,
        rows_out=rows,
        unit="queries",
        counts={"queries_without_result": without},
    )
