"""Stage `bm25`: the lexical first stage, as a baseline and as a source of negatives."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pydantic import Field

from pipeline.artifacts.kinds import CANDIDATES, DATASET, TOKENS
from pipeline.dag.contract import Context, Inputs, Outcome, Params, Progress, stage
from pipeline.sources.records import Split
from pipeline.stages.split_params import Depths

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.artifacts.reader import Artifact
    from pipeline.artifacts.writer import ArtifactWriter
    from pipeline.stages.tables import QueryBlock


class Bm25Params(Params):
    """Whose candidates are searched for, how deep, and BM25's two constants.

    Attributes:
        depths: split -> candidates per query.
        remove_positives: splits whose known positives are taken out before the ranking is cut.
        k1: saturation of term frequency.
        b: weight of passage length.
        queries_per_shard: queries that a worker searches for at a time.
    """

    depths: Depths = {"validation": 100, "dev": 100}
    remove_positives: list[Split] = ["train"]
    k1: float = Field(default=0.9, ge=0)
    b: float = Field(default=0.4, ge=0, le=1)
    queries_per_shard: int = Field(default=4096, ge=1)


@dataclass(frozen=True)
class _MakeWork:
    """Indexes the corpus once per node."""

    dataset: Artifact
    params: Bm25Params
    writer: ArtifactWriter

    def __call__(self) -> _SearchBlock:
        return _SearchBlock(self)


class _SearchBlock:
    def __init__(self, made: _MakeWork) -> None:
        from pipeline.search.bm25 import BM25Search

        dataset, params = made.dataset, made.params

        def build(folder: Path) -> None:
            passages = dataset.iterate("passages", ["title", "text"])
            BM25Search.of_passages(passages, k1=params.k1, b=params.b).save(folder)

        self._made = made
        # Another version of the library may weigh otherwise, or not read the index at all.
        name = f"bm25s-{version('bm25s')}-{params.k1}-{params.b}"
        self._search = BM25Search.open(dataset.derived(name, build))
        self._texts = dataset.read("queries", ["text"])["text"]

    def __call__(self, task: QueryBlock, progress: Progress) -> dict[str, Any]:
        from pipeline.stages import tables

        texts = self._texts.take(task.queries).to_pylist()
        found = self._search.search(texts, task.depth, task.excluded, progress.advance)
        candidates = tables.Candidates.of_top_k(task.queries, found)
        info = {"queries_without_result": int((found.counts == 0).sum())}
        self._made.writer.shards("candidates").write(task.index, candidates.table(), info)
        return {}


@stage(
    params=Bm25Params,
    inputs={"dataset": DATASET, "tokens": TOKENS},
    output=CANDIDATES,
    libraries=("bm25s",),
)
def bm25(inputs: Inputs, params: Bm25Params, writer: ArtifactWriter, context: Context) -> Outcome:
    """Search titles and texts by BM25."""
    from pipeline.distributed.shards import run_shards
    from pipeline.stages import tables

    dataset = inputs["dataset"]
    known = tables.never_negative(dataset, inputs["tokens"])
    queries = {split: tables.queries_of(dataset, [split]) for split in params.depths}
    blocks = tables.query_blocks(
        queries, params.depths, params.remove_positives, params.queries_per_shard, known
    )
    written = writer.shards("candidates")
    done = written.done()
    todo = [block for block in blocks if block.index not in done]
    rows = sum(len(block.queries) for block in blocks)
    context.progress.start("searching", rows, "queries")
    context.progress.advance(rows - sum(len(block.queries) for block in todo))
    run_shards(
        _MakeWork(dataset, params, writer),
        todo,
        context.resources.on_cpus(),
        context.progress,
        writer.store,
    )
    without = sum(info["queries_without_result"] for info in written.infos())
    return Outcome(
        rows_in=rows, rows_out=rows, unit="queries", counts={"queries_without_result": without}
    )
