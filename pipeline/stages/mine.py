"""Stage `mine`: the exact top-k passages of each query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pipeline.artifacts.kinds import CANDIDATES, DATASET, EMBEDDINGS, TOKENS
from pipeline.dag.contract import Context, Inputs, Outcome, Params, Progress, Resources, stage
from pipeline.sources.records import Split
from pipeline.stages.split_params import Depths, FoldParams

if TYPE_CHECKING:
    from pipeline.artifacts.reader import Artifact
    from pipeline.artifacts.writer import ArtifactWriter
    from pipeline.methods.lists import PassageLists
    from pipeline.stages.tables import QueryBlock


class MineParams(Params):
    """Whose candidates are searched for, and how deep.

    Attributes:
        depths: split -> candidates per query.
        remove_positives: splits whose known positives (and copies of them) are taken out before
            the ranking is cut. Evaluation needs them in.
        backend: `auto` is faiss on the CPU, or on the GPU where there is one; torch on a GPU that
            faiss cannot use.
        queries_per_shard: queries that a worker searches with in one pass over the corpus.
        fold: only these queries of each split.
    """

    depths: Depths = {"train": 1000, "validation": 100, "dev": 100}
    remove_positives: list[Split] = ["train"]
    backend: Literal["auto", "faiss_cpu", "faiss_gpu", "torch"] = "auto"
    queries_per_shard: int = Field(default=4096, ge=1)
    # Left out where it is not given, so that it is in no key of a search of all queries.
    fold: FoldParams | None = Field(default=None, exclude_if=lambda value: value is None)

    def mismatches(self, wired: Mapping[str, int], resources: Resources) -> Sequence[str]:
        """A fold that there is."""
        return () if self.fold is None else self.fold.mistakes()


@dataclass(frozen=True)
class _MakeWork:
    """Settles the backend once per artifact."""

    embeddings: Artifact
    params: MineParams
    writer: ArtifactWriter

    def __call__(self) -> _MineBlock:
        return _MineBlock(self)


@dataclass(frozen=True, eq=False)
class _Task:
    """Queries of one output shard, and their positives that the search leaves out, row by row."""

    block: QueryBlock
    positives: PassageLists


class _MineBlock:
    def __init__(self, made: _MakeWork) -> None:
        from pipeline.models.device import choose_device
        from pipeline.search.backends import automatic_backend

        self._made = made
        self._device = choose_device()
        backend = made.params.backend
        if backend == "auto":
            backend = automatic_backend(str(self._device))
        self._backend = made.writer.settle("backend", backend)

    def __call__(self, task: _Task, progress: Progress) -> dict[str, Any]:
        from pipeline.search.topk import ExactSearch
        from pipeline.stages import tables
        from pipeline.stages.mined_positives import MinedPositives

        embeddings, block = self._made.embeddings, task.block
        queries = tables.query_vectors(embeddings, block.queries)
        search = ExactSearch(
            queries,
            block.depth,
            backend=self._backend,
            device=str(self._device),
            excluded=block.excluded,
        )
        positives = MinedPositives(queries, task.positives)
        for first_passage_index, vectors in tables.vector_blocks(embeddings.shards("passages")):
            search.add(first_passage_index, vectors)
            positives.add(first_passage_index, vectors)
            progress.advance(len(vectors) * len(block.queries))
        candidates = tables.Candidates.of_top_k(block.queries, search.result())
        info = {
            "candidates": len(candidates.scores),
            "device": self._backend,
            "positives": positives.measure(candidates, block.depth),
        }
        self._made.writer.shards("candidates").write(block.index, candidates.table(), info)
        return {}


@stage(
    params=MineParams,
    inputs={"embeddings": EMBEDDINGS, "dataset": DATASET, "tokens": TOKENS},
    output=CANDIDATES,
    libraries=("faiss-gpu", "faiss-cpu"),
    code_version=2,
)
def mine(inputs: Inputs, params: MineParams, writer: ArtifactWriter, context: Context) -> Outcome:
    """Search each query's best passages over the whole corpus, exactly."""
    from pipeline.distributed.shards import run_shards
    from pipeline.stages import folds, mined_positives, tables

    dataset, tokens = inputs["dataset"], inputs["tokens"]
    known = tables.never_negative(dataset, tokens)
    queries = {split: folds.kept(dataset, tokens, split, params.fold) for split in params.depths}
    blocks = tables.query_blocks(
        queries, params.depths, params.remove_positives, params.queries_per_shard, known
    )
    written = writer.shards("candidates")
    done = written.done()
    todo = [block for block in blocks if block.index not in done]
    rows = sum(len(block.queries) for block in blocks)
    passages = inputs["embeddings"].rows("passages")
    left = sum(len(block.queries) for block in todo)
    context.progress.start("searching", rows * passages, "pairs")
    context.progress.advance((rows - left) * passages)
    positives = tables.positives_of(dataset).lists()
    run_shards(
        _MakeWork(inputs["embeddings"], params, writer),
        [_Task(block, _left_out(positives, block)) for block in todo],
        context.resources,
        context.progress,
        writer.store,
    )
    infos = written.infos()
    everyone = len(tables.queries_of(dataset, list(params.depths)))
    return Outcome(
        rows_in=everyone,
        rows_out=rows,
        unit="queries",
        dropped={"other folds": everyone - rows} if everyone > rows else {},
        counts={
            "candidates": sum(info["candidates"] for info in infos),
            "positives_removed": sum(len(block.excluded.query_row) for block in blocks),
        },
        metrics=mined_positives.merged([info["positives"] for info in infos]),
        device=tables.devices(infos),
    )


def _left_out(positives: PassageLists, block: QueryBlock) -> PassageLists:
    """The labelled positives of each of a block's queries that its search leaves out."""
    from pipeline.methods.filters import KnownPairs

    own = positives.of(block.queries)
    excluded = block.excluded
    gone = KnownPairs.of((block.queries[excluded.query_row], excluded.passage_index))
    return own.keep(gone.among(own))
