"""Stage `encode`: vectors of queries and passages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pipeline.artifacts.kinds import DATASET, EMBEDDINGS, RETRIEVER, TOKENS
from pipeline.dag.contract import Context, Inputs, Outcome, Params, Progress, stage
from pipeline.sources.records import Split

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pipeline.artifacts.reader import Artifact
    from pipeline.artifacts.writer import ArtifactWriter


class EncodeParams(Params):
    """What is encoded, and in which number format.

    Attributes:
        splits: queries of these splits; empty means all.
        precision: of the model; `auto` is bfloat16 where the device computes in it.
        dtype: in which vectors are stored.
        token_budget: padded tokens of a batch.
        queries_per_shard: rows of a shard of query vectors; passages keep the shards they have.
    """

    splits: list[Split] = []
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    dtype: Literal["float16", "float32"] = "float16"
    token_budget: int = Field(default=16384, ge=1)
    queries_per_shard: int = Field(default=16384, ge=1)


@dataclass(frozen=True, eq=False)
class _Task:
    """One output shard: rows of `table`, as indices."""

    table: Literal["queries", "passages"]
    index: int
    rows: npt.NDArray[np.int64]


@dataclass(frozen=True)
class _MakeWork:
    """Loads the retriever once per worker."""

    retriever: Artifact
    tokens: Artifact
    params: EncodeParams
    writer: ArtifactWriter

    def __call__(self) -> _EncodeShard:
        return _EncodeShard(self)


class _EncodeShard:
    def __init__(self, made: _MakeWork) -> None:
        from pipeline.models.device import choose_device, resolve_precision
        from pipeline.models.dual_encoder import DualEncoder
        from pipeline.models.inference import prepare
        from pipeline.stages.tables import open_tokens

        self._made = made
        self._device = choose_device()
        precision = made.writer.settle(
            "precision", resolve_precision(made.params.precision, self._device)
        )
        model = DualEncoder.load(made.retriever.folder("model"))
        self._model = prepare(model, self._device, precision)
        self._store = open_tokens(made.tokens)

    def __call__(self, task: _Task, progress: Progress) -> dict[str, Any]:
        import numpy as np
        import pyarrow as pa

        from pipeline.models.device import describe
        from pipeline.models.inference import embed
        from pipeline.stages.tables import vector_column
        from pipeline.text.batches import token_budget_batches

        store, rows = self._store, task.rows
        sides = {
            "queries": (self._model.encode_queries, store.query_lengths, store.query_batch),
            "passages": (self._model.encode_passages, store.passage_lengths, store.passage_batch),
        }
        encode, lengths_of, assemble = sides[task.table]
        lengths = lengths_of(rows)
        values = embed(
            encode,
            lambda at: assemble(rows[at]),
            token_budget_batches(lengths, self._made.params.token_budget),
            width=self._model.width,
            device=self._device,
            on_rows=progress.advance,
        ).astype(np.dtype(self._made.params.dtype))
        name = "query_index" if task.table == "queries" else "passage_index"
        table = pa.table({name: pa.array(rows, pa.int32()), "embedding": vector_column(values)})
        info = {
            "first": int(rows[0]),
            "last": int(rows[-1]),
            "tokens": int(lengths.sum()),
            "device": describe(self._device),
        }
        self._made.writer.shards(task.table).write(task.index, table, info)
        return {}


@stage(
    params=EncodeParams,
    inputs={"retriever": RETRIEVER, "tokens": TOKENS, "dataset": DATASET},
    output=EMBEDDINGS,
    libraries=("torch", "transformers"),
)
def encode(
    inputs: Inputs, params: EncodeParams, writer: ArtifactWriter, context: Context
) -> Outcome:
    """Encode all passages and the queries of the given splits, shard by shard."""
    from pipeline.distributed.shards import run_shards
    from pipeline.stages import exports, tables

    exports.check_retriever(inputs["retriever"], inputs["tokens"])
    tasks = _tasks(inputs, params)
    rows = sum(len(task.rows) for task in tasks)
    todo = [task for task in tasks if task.index not in writer.shards(task.table).done()]
    context.progress.start("encoding", rows)
    context.progress.advance(rows - sum(len(task.rows) for task in todo))
    run_shards(
        _MakeWork(inputs["retriever"], inputs["tokens"], params, writer),
        todo,
        context.resources,
        context.progress,
        writer.store,
    )
    infos = [info for table in ("queries", "passages") for info in writer.shards(table).infos()]
    return Outcome(
        rows_in=rows,
        rows_out=rows,
        counts={"tokens": sum(info["tokens"] for info in infos)},
        device=tables.devices(infos),
    )


def _tasks(inputs: Inputs, params: EncodeParams) -> list[_Task]:
    import numpy as np

    from pipeline.stages.tables import queries_of

    tokens, dataset = inputs["tokens"], inputs["dataset"]
    queries = (
        queries_of(dataset, params.splits) if params.splits else np.arange(tokens.rows("queries"))
    )
    tasks = [
        _Task("queries", number, queries[first : first + params.queries_per_shard])
        for number, first in enumerate(range(0, len(queries), params.queries_per_shard))
    ]
    for shard in tokens.shards("passages"):
        rows = np.arange(shard.first_row, shard.first_row + shard.rows)
        tasks.append(_Task("passages", shard.index, rows))
    return tasks
