"""Between artifacts' tables and the forms that methods, search and training work on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.artifacts.reader import Artifact, Shard
from pipeline.dag.contract import Inputs, Mismatch
from pipeline.methods.filters import KnownPairs
from pipeline.methods.lists import PassageLists
from pipeline.methods.metrics import Qrels
from pipeline.methods.pools import Pools
from pipeline.search.ranking import Excluded, TopK
from pipeline.sources.records import Split
from pipeline.text.store import TokenStore
from pipeline.text.template import InputTemplate

TEMPLATE = "template.json"
# What can be done without the queries of a split.
_INSTEAD = {
    "unlabelled": "; name files of such queries in `source`, or extend "
    "recipes/without_unlabelled.yaml, which does without",
    "train": "; training needs judgements of that split: name them so in `source`",
}


def queries_of(dataset: Artifact, splits: Sequence[str]) -> npt.NDArray[np.int64]:
    """The query indices of the given splits, ascending.

    Raises:
        Mismatch: a split has no queries.
    """
    found = dataset.read("queries", ["split"])["split"].to_numpy(zero_copy_only=False)
    for split in splits:
        if split not in found:
            raise Mismatch(
                f"the dataset has no queries of split '{split}': it has "
                f"{', '.join(sorted(set(found)))}{_INSTEAD.get(split, '')}"
            )
    return np.flatnonzero(np.isin(found, list(splits)))


def split_sizes(dataset: Artifact) -> dict[str, int]:
    """Queries per split."""
    found = dataset.read("queries", ["split"])["split"].value_counts().to_pylist()
    return {row["values"]: row["counts"] for row in found}


def pairs_of(dataset: Artifact, table: str) -> KnownPairs:
    """The pairs of a table; none where the dataset lacks it."""
    if not dataset.has(table):
        return KnownPairs.of()
    rows = dataset.read(table, ["query_index", "passage_index"])
    return KnownPairs.of((rows["query_index"].to_numpy(), rows["passage_index"].to_numpy()))


def given_negatives(dataset: Artifact) -> PassageLists:
    """The negatives that came with the data, in the order they came."""
    rows = dataset.read("negatives", ["query_index", "passage_index"])
    return PassageLists.from_pairs(rows["query_index"].to_numpy(), rows["passage_index"].to_numpy())


def qrels_of(dataset: Artifact) -> Qrels:
    """All judgements."""
    rows = dataset.read("qrels")
    return Qrels(*(rows[name].to_numpy() for name in ("query_index", "passage_index", "relevance")))


def positives_of(dataset: Artifact) -> KnownPairs:
    """The pairs judged relevant."""
    return qrels_of(dataset).relevant() if dataset.has("qrels") else KnownPairs.of()


def never_negative(dataset: Artifact, tokens: Artifact) -> KnownPairs:
    """Pairs that must not become negatives: positives, suspected ones, and copies of either."""
    known = positives_of(dataset) | pairs_of(dataset, "excluded")
    return known.with_copies(content_hashes(tokens))


@dataclass(frozen=True, eq=False)
class QueryBlock:
    """Queries of one output shard of a search, and the passages they must not be given."""

    index: int
    queries: npt.NDArray[np.int64]
    depth: int
    excluded: Excluded


def query_blocks(
    queries_of_splits: Mapping[Split, npt.NDArray[np.int64]],
    depths: Mapping[Split, int],
    remove_positives: Sequence[str],
    rows: int,
    known: KnownPairs,
) -> list[QueryBlock]:
    """The queries of each split in blocks of at most `rows`, splits in the order of `depths`."""
    blocks: list[QueryBlock] = []
    lists = known.lists()
    for split, depth in depths.items():
        queries = queries_of_splits[split]
        for first in range(0, len(queries), rows):
            block = queries[first : first + rows]
            excluded = Excluded.none()
            if split in remove_positives:
                own = lists.of(block)
                excluded = Excluded(own.rows, own.passage_indices.astype(np.int64))
            blocks.append(QueryBlock(len(blocks), block, depth, excluded))
    return blocks


def content_hashes(tokens: Artifact) -> npt.NDArray[np.int64]:
    """int64 [passages], equal for passages of equal text."""
    hashes = tokens.read("passages", ["content_hash"])["content_hash"].to_numpy()
    return np.asarray(hashes, dtype=np.int64)


def open_tokens(tokens: Artifact) -> TokenStore:
    """The node-local memory-mapped form of a Tokens artifact, made on a node's first use."""

    def build(folder: Path) -> None:
        template = InputTemplate.model_validate(tokens.document(TEMPLATE))
        TokenStore.build(folder, tokens.iterate("queries"), tokens.iterate("passages"), template)

    return TokenStore.open(tokens.derived("tokens", build))


@dataclass(frozen=True, eq=False)
class Candidates:
    """Candidates of queries in rank order.

    Attributes:
        lists: the passages.
        scores: float32 [N], the retriever's.
        ranker_scores: float32 [N], the ranker's logits, NaN where a candidate was not scored; None
            where no ranker has seen them.
    """

    lists: PassageLists
    scores: npt.NDArray[np.float32]
    ranker_scores: npt.NDArray[np.float32] | None = None

    @classmethod
    def of_table(cls, table: pa.Table) -> Candidates:
        """From the rows of a Candidates or ScoredCandidates artifact."""
        table = table.combine_chunks()
        passages = _list_column(table, "passage_index")
        lists = PassageLists.from_lengths(
            table["query_index"].to_numpy(), passages.value_lengths().to_numpy(), _values(passages)
        )
        scored = "ranker_score" in table.column_names
        return cls(
            lists,
            _values(_list_column(table, "score")),
            _values(_list_column(table, "ranker_score")) if scored else None,
        )

    @classmethod
    def of_top_k(cls, query_indices: npt.NDArray[np.integer], found: TopK) -> Candidates:
        """From a search's result for the given queries, row by row."""
        filled = found.passage_index >= 0
        lists = PassageLists.from_lengths(query_indices, found.counts, found.passage_index[filled])
        return cls(lists, found.score[filled])

    @classmethod
    def read(cls, *artifacts: Artifact) -> Candidates:
        """All candidates of one artifact, or of several that share no query."""
        refuse_repeated_queries(artifacts)
        return cls.of_table(pa.concat_tables(each.read("candidates") for each in artifacts))

    def table(self) -> pa.Table:
        """The rows of an artifact's table."""
        columns = {
            "query_index": pa.array(self.lists.query_indices, pa.int32()),
            "passage_index": list_array(self.lists, self.lists.passage_indices, pa.int32()),
            "score": list_array(self.lists, self.scores, pa.float32()),
        }
        if self.ranker_scores is not None:
            columns["ranker_score"] = list_array(self.lists, self.ranker_scores, pa.float32())
        return pa.table(columns)

    def of_queries(self, query_indices: npt.NDArray[np.integer]) -> Candidates:
        """Only the given queries' candidates; queries without any are left out."""
        rows = np.isin(self.lists.query_indices, query_indices)
        entries = rows[self.lists.rows]
        return self._entries(self.lists.take(rows), entries)

    def keep(self, entries: npt.NDArray[np.bool_]) -> Candidates:
        """The same queries with only the entries set in the mask."""
        return self._entries(self.lists.keep(entries), entries)

    def _entries(self, lists: PassageLists, entries: npt.NDArray[np.bool_]) -> Candidates:
        ranker = None if self.ranker_scores is None else self.ranker_scores[entries]
        return Candidates(lists, self.scores[entries], ranker)


def refuse_repeated_queries(candidates: Sequence[Artifact]) -> None:
    """Raise Mismatch where a query has candidates in more than one of the artifacts."""
    found = pa.concat_tables(each.read("candidates", ["query_index"]) for each in candidates)
    queries, counts = np.unique(found["query_index"].to_numpy(), return_counts=True)
    if (counts > 1).any():
        raise Mismatch(
            f"{(counts > 1).sum()} queries (query index {queries[counts > 1][0]} is the first) "
            f"have candidates in more than one of {', '.join(map(str, candidates))}: wire those "
            "of each split once"
        )


def list_lengths(
    candidates: Artifact, query_indices: npt.NDArray[np.integer]
) -> npt.NDArray[np.int64]:
    """How many candidates each of the given queries has, for those that are in the artifact."""
    lengths = []
    for table in candidates.iterate("candidates", ["query_index", "passage_index"]):
        chosen = np.isin(table["query_index"].to_numpy(), query_indices)
        lengths.append(_list_column(table, "passage_index").value_lengths().to_numpy()[chosen])
    return np.concatenate(lengths).astype(np.int64) if lengths else np.empty(0, np.int64)


def probabilities(candidates: Candidates, calibration: Artifact | None) -> npt.NDArray[np.float64]:
    """The ranker's P(1) for each candidate, calibrated where a Calibration is given; NaN unscored.

    Raises:
        Mismatch: no ranker has scored the candidates.
    """
    from pipeline.methods.calibration import Calibration

    if candidates.ranker_scores is None:
        raise Mismatch(
            "the candidates carry no ranker scores: wire what a stage `score` has made of them"
        )
    platt = Calibration()
    if calibration is not None:
        fitted = calibration.document("calibration.json")
        platt = Calibration(fitted["slope"], fitted["intercept"])
    return platt.probabilities(candidates.ranker_scores)


@dataclass(frozen=True, eq=False)
class Judged:
    """A split's queries with what the ranker says of their candidates.

    Attributes:
        queries: the split's query indices.
        positives: the labelled passages of each.
        found: the candidates of those that were scored.
        probability: the ranker's P(1) for each candidate.
        known: pairs that must not become negatives.
    """

    queries: npt.NDArray[np.int64]
    positives: PassageLists
    found: Candidates
    probability: npt.NDArray[np.float64]
    known: KnownPairs

    @classmethod
    def read(cls, inputs: Inputs, split: str) -> Judged:
        """From the inputs `dataset`, `tokens`, `candidates` and, if wired, `calibration`."""
        dataset = inputs["dataset"]
        queries = queries_of(dataset, [split])
        found = Candidates.read(inputs["candidates"]).of_queries(queries)
        return cls(
            queries,
            positives_of(dataset).lists().of(queries),
            found,
            probabilities(found, inputs.get("calibration")),
            never_negative(dataset, inputs["tokens"]),
        )

    @property
    def not_scored(self) -> int:
        """Queries without candidates."""
        return len(self.queries) - len(self.found.lists)


def _list_column(table: pa.Table, name: str) -> pa.ListArray:
    column = table[name]
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _values(lists: pa.ListArray) -> npt.NDArray[Any]:
    values: npt.NDArray[Any] = lists.flatten().to_numpy(zero_copy_only=False)
    return values


def list_array(
    lists: PassageLists, values: npt.NDArray[np.generic], kind: pa.DataType
) -> pa.ListArray:
    """An Arrow list column with one row per list, holding one value per entry."""
    offsets = pa.array(lists.offsets, pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.array(values, kind))


def training_lists(positives: PassageLists, negatives: PassageLists) -> pa.Table:
    """Rows of a TrainingLists artifact: one per query, in the same order on both sides."""
    return pa.table(
        {
            "query_index": pa.array(positives.query_indices, pa.int32()),
            "positives": list_array(positives, positives.passage_indices, pa.int32()),
            "negatives": list_array(negatives, negatives.passage_indices, pa.int32()),
        }
    )


def pools_of(artifact: Artifact) -> Pools:
    """All pools of a NegativePools artifact."""
    table = artifact.read("pools", ["query_index", "positive", "passage_index", "log_weight"])
    table = table.combine_chunks()
    passages = _list_column(table, "passage_index")
    return Pools(
        PassageLists.from_lengths(
            table["query_index"].to_numpy(), passages.value_lengths().to_numpy(), _values(passages)
        ),
        table["positive"].to_numpy(),
        _values(_list_column(table, "log_weight")),
    )


def vectors(table: pa.Table) -> npt.NDArray[np.floating]:
    """The `embedding` column as [rows, width], in its stored format."""
    column = table["embedding"].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    flat: npt.NDArray[np.floating] = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), -1)


def vector_column(values: npt.NDArray[np.floating]) -> pa.FixedSizeListArray:
    """[rows, width] as a fixed-size list column, which keeps the width on disk."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def devices(infos: Sequence[Mapping[str, Any]]) -> str:
    """What computed the shards, each device once."""
    return ", ".join(dict.fromkeys(info["device"] for info in infos))


def vector_blocks(shards: Sequence[Shard]) -> Iterator[tuple[int, npt.NDArray[np.floating]]]:
    """(first passage index, vectors) of each shard, one in memory at a time."""
    for shard in shards:
        yield shard.first_row, vectors(shard.read(["embedding"]))


def open_passage_vectors(embeddings: Artifact) -> npt.NDArray[np.floating]:
    """The passages' vectors as one node-local memory map [passages, d], made on first use."""

    def build(folder: Path) -> None:
        flat = None
        for first, block in vector_blocks(embeddings.shards("passages")):
            if flat is None:
                shape = (embeddings.rows("passages"), block.shape[1])
                flat = np.lib.format.open_memmap(folder / "vectors.npy", "w+", block.dtype, shape)
            flat[first : first + len(block)] = block
        if flat is not None:
            flat.flush()

    folder = embeddings.derived("vectors", build)
    vectors: npt.NDArray[np.floating] = np.load(folder / "vectors.npy", mmap_mode="r")
    return vectors


def query_vectors(
    embeddings: Artifact, query_indices: npt.NDArray[np.integer]
) -> npt.NDArray[np.floating]:
    """Vectors [Q, width] of the given queries, reading only the shards that hold some of them.

    Raises:
        Mismatch: some were not encoded.
    """
    wanted = np.asarray(query_indices)
    found, parts = [], []
    for shard in embeddings.shards("queries"):
        first, last = shard.record.info["first"], shard.record.info["last"]
        if not np.any((wanted >= first) & (wanted <= last)):
            continue
        table = shard.read()
        indices = table["query_index"].to_numpy()
        rows = np.flatnonzero(np.isin(indices, wanted))
        found.append(indices[rows])
        parts.append(vectors(table)[rows])
    indices = np.concatenate(found) if found else np.empty(0, np.int32)
    if len(indices) != len(wanted):
        raise Mismatch(
            f"{embeddings} holds vectors of {len(indices)} of {len(wanted)} wanted queries: give "
            "the encode stage their splits"
        )
    order = np.argsort(indices)
    place = order[np.searchsorted(indices[order], wanted)]
    return np.concatenate(parts)[place]
