"""Stage `tokenize`: queries and passages as token ids; no later stage tokenises again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from pipeline.artifacts.kinds import BASE_MODEL, DATASET, TOKENS
from pipeline.dag.contract import Context, Inputs, Outcome, Params, Progress, stage

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.artifacts.reader import Artifact, Shard
    from pipeline.artifacts.writer import ArtifactWriter
    from pipeline.text.template import InputTemplate


def _switched(value: Any) -> Any:
    """`on` and `off` are plain words in YAML 1.2, and the usual ones here."""
    return {"on": True, "off": False}.get(value, value) if isinstance(value, str) else value


class TokenizeParams(Params):
    """Lengths in tokens, special tokens included, and how titles are used.

    Attributes:
        query_max_len: of a query (the paper: 32).
        passage_max_len: of a passage with its title (the paper: 128).
        pair_max_len: of a query with a passage, for the ranker (the paper: 160); its head
            `interaction` reads both inputs in their own lengths instead.
        title: whether the title is part of a passage: `on` or `off`.
        missing_title: what stands for a missing title (the released code: `-`).
    """

    query_max_len: int = Field(default=32, ge=3)
    passage_max_len: int = Field(default=128, ge=3)
    pair_max_len: int = Field(default=160, ge=3)
    title: Annotated[bool, BeforeValidator(_switched)] = True
    missing_title: Literal["-", ""] = "-"


@dataclass(frozen=True)
class _Task:
    table: str
    shard: Shard


@dataclass(frozen=True)
class _MakeWork:
    """Opens the tokenizer once per worker."""

    folder: Path | None
    base: Artifact
    template: InputTemplate
    writer: ArtifactWriter

    def __call__(self) -> _TokenizeShard:
        from pipeline.text.tokenizer import load_tokenizer

        return _TokenizeShard(load_tokenizer(self.base.folder("model")), self)


class _TokenizeShard:
    def __init__(self, tokenizer: Any, made: _MakeWork) -> None:
        self._tokenizer = tokenizer
        self._template, self._writer = made.template, made.writer

    def __call__(self, task: _Task, progress: Progress) -> dict[str, Any]:
        from pipeline.text.statistics import passage_truncation, query_truncation
        from pipeline.text.tokenizer import tokenize_passages, tokenize_queries

        if task.table == "queries":
            texts = task.shard.read(["text"])["text"].to_pylist()
            queries = tokenize_queries(self._tokenizer, self._template, texts)
            table = queries.table
            cut = {"query": query_truncation(self._template, queries.lengths)}
        else:
            rows = task.shard.read(["title", "text"])
            passages = tokenize_passages(
                self._tokenizer,
                self._template,
                rows["title"].to_pylist(),
                rows["text"].to_pylist(),
            )
            table = passages.table
            title, text = passage_truncation(
                self._template, passages.title_lengths, passages.text_lengths
            )
            cut = {"title": title, "text": text}
        info = {what: vars(truncation) for what, truncation in cut.items()}
        self._writer.shards(task.table).write(task.shard.index, table, info)
        progress.advance(task.shard.rows)
        return info


@stage(
    params=TokenizeParams,
    inputs={"dataset": DATASET, "base": BASE_MODEL},
    output=TOKENS,
    libraries=("transformers", "tokenizers"),
)
def tokenize(
    inputs: Inputs, params: TokenizeParams, writer: ArtifactWriter, context: Context
) -> Outcome:
    """Turn all texts into token ids, cut to what the longest input can use."""
    from pipeline.distributed.shards import run_shards

    dataset, base = inputs["dataset"], inputs["base"]
    template = _template(base, params, writer)
    writer.document("template.json", template.model_dump(mode="json"))
    tasks, rows = [], 0
    for table in ("queries", "passages"):
        done = writer.shards(table).done()
        shards = dataset.shards(table)
        rows += sum(shard.rows for shard in shards)
        tasks += [_Task(table, shard) for shard in shards if shard.index not in done]
    context.progress.start("tokenising", rows)
    context.progress.advance(rows - sum(task.shard.rows for task in tasks))
    run_shards(
        _MakeWork(None, base, template, writer),
        tasks,
        context.resources.on_cpus(),
        context.progress,
        writer.store,
    )
    return Outcome(rows_in=rows, rows_out=rows, metrics=_truncation(writer))


def _template(base: Artifact, params: TokenizeParams, writer: ArtifactWriter) -> InputTemplate:
    """The layout of inputs that the base model can read; keeps its tokenizer."""
    from pipeline.models.base_folder import check_capacity
    from pipeline.models.layout import copy_tokenizer
    from pipeline.text.template import Tokenization
    from pipeline.text.tokenizer import input_template, load_tokenizer

    folder = base.folder("model")
    tokenizer = load_tokenizer(folder)
    template = input_template(tokenizer, Tokenization(**params.model_dump()))
    lengths = {name: length for name, length in params if name.endswith("_max_len")}
    check_capacity(folder, f"{base.kind_name} {base}", template.vocab_size, lengths)
    if not writer.finished("tokenizer"):
        with writer.folder("tokenizer") as target:
            copy_tokenizer(folder, target)
            # A bare vocabulary is read by the rules of the model type, which is not told here.
            if not (target / "tokenizer.json").exists():
                tokenizer.save_pretrained(str(target))
    return template


def _truncation(writer: ArtifactWriter) -> dict[str, float]:
    """Over all shards: the share of sequences that were cut, and of tokens that were lost."""
    totals: dict[str, dict[str, int]] = {}
    for table in ("queries", "passages"):
        for record in writer.shards(table).done().values():
            for what, counted in record.info.items():
                total = totals.setdefault(what, dict.fromkeys(counted, 0))
                for name, value in counted.items():
                    total[name] += value
    shares = {}
    for what, total in totals.items():
        shares[f"{what}_cut_share"] = total["cut"] / max(total["sequences"], 1)
        shares[f"{what}_tokens_lost_share"] = total["lost"] / max(total["tokens"], 1)
    return shares
