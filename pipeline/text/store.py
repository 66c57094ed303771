"""Token tables as flat memory maps, and model inputs assembled from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from pipeline.text.template import InputTemplate, Layout, Lengths

TEMPLATE_FILE = "template.json"

# What a ranker reads: `[CLS] query [SEP] title text [SEP]`, or the retriever's query input and its
# passage input laid end to end.
PairLayout = Literal["pair", "joined"]
ARRAYS = (
    "query_ids",
    "query_starts",
    "passage_ids",
    "passage_starts",
    "title_lengths",
    "content_hash",
)


@dataclass(frozen=True)
class TokenBatch:
    """Model inputs, padded right.

    Attributes:
        input_ids: [rows, longest] int64.
        attention_mask: [rows, longest] int64, 1 on tokens, 0 on padding.
        token_type_ids: [rows, longest] int64 segment ids.
        query_lengths: [rows] int64, where inputs are joined: tokens of the first one.
    """

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]
    query_lengths: NDArray[np.int64] | None = None

    @property
    def rows(self) -> int:
        """Inputs in the batch."""
        return len(self.input_ids)

    @property
    def tokens(self) -> int:
        """Tokens in the batch, padding not counted."""
        return int(self.attention_mask.sum())


@dataclass(frozen=True)
class _Piece:
    """For each row of a batch, a stretch of a flat array of ids."""

    ids: NDArray[Any]
    starts: NDArray[np.int64]
    lengths: Lengths


class TokenStore:
    """Token ids of all queries and passages of a dataset, ready to become model inputs.

    A passage is stored as its title's tokens followed by its text's, so that the second sequence
    of a pair is one stretch. Opening maps the files; nothing is read before it is asked for.
    """

    def __init__(self, folder: Path, template: InputTemplate, arrays: dict[str, NDArray[Any]]):
        self.folder = folder
        self.template = template
        self.content_hash: NDArray[np.int64] = arrays["content_hash"]
        self._query_ids = arrays["query_ids"]
        self._query_starts = arrays["query_starts"]
        self._passage_ids = arrays["passage_ids"]
        self._passage_starts = arrays["passage_starts"]
        self._title_lengths = arrays["title_lengths"]
        self._missing_title = np.asarray(template.missing_title_ids, dtype=np.int64)

    def __reduce__(self) -> tuple[Any, ...]:
        # A pickled memory map would carry its data; another process maps the files itself.
        return TokenStore.open, (self.folder,)

    @classmethod
    def build(
        cls,
        folder: Path,
        queries: Iterable[pa.Table],
        passages: Iterable[pa.Table],
        template: InputTemplate,
    ) -> TokenStore:
        """Write the flat arrays of token tables, in the order of the tables, and open them.

        Args:
            folder: made if needed; a store that is there is replaced.
            queries: tables with `ids`.
            passages: tables with `title_ids`, `text_ids`, `content_hash`.
            template: the layout of the inputs.

        Raises:
            ValueError: an id is negative or outside the template's vocabulary, or a row is null.
        """
        folder.mkdir(parents=True, exist_ok=True)
        # The template is written last: a folder without it was left half done.
        (folder / TEMPLATE_FILE).unlink(missing_ok=True)
        id_type = np.dtype(np.uint16 if template.vocab_size <= 2**16 else np.int32)
        with (
            _ArrayFile(folder / "query_ids.npy", id_type) as ids,
            _ArrayFile(folder / "query_starts.npy", np.dtype(np.int64)) as starts,
        ):
            starts.append(np.zeros(1, dtype=np.int64))
            for table in queries:
                values, ends = _flat(table, "ids", template.vocab_size)
                starts.append(ends + ids.rows)
                ids.append(values)
        with (
            _ArrayFile(folder / "passage_ids.npy", id_type) as ids,
            _ArrayFile(folder / "passage_starts.npy", np.dtype(np.int64)) as starts,
            _ArrayFile(folder / "title_lengths.npy", np.dtype(np.uint16)) as title_lengths,
            _ArrayFile(folder / "content_hash.npy", np.dtype(np.int64)) as hashes,
        ):
            starts.append(np.zeros(1, dtype=np.int64))
            for table in passages:
                titles, title_ends = _flat(table, "title_ids", template.vocab_size)
                texts, text_ends = _flat(table, "text_ids", template.vocab_size)
                starts.append(title_ends + text_ends + ids.rows)
                ids.append(_interleave(titles, title_ends, texts, text_ends))
                title_lengths.append(np.diff(title_ends, prepend=0))
                hashes.append(table.column("content_hash").to_numpy())
        (folder / TEMPLATE_FILE).write_text(template.model_dump_json(indent=2), encoding="utf-8")
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> TokenStore:
        """Map the files of a store.

        Raises:
            FileNotFoundError: the folder holds no complete store.
        """
        path = folder / TEMPLATE_FILE
        if not path.is_file():
            raise FileNotFoundError(f"{folder} holds no complete token store: build it again")
        template = InputTemplate.model_validate_json(path.read_text(encoding="utf-8"))
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
        return cls(folder, template, arrays)

    @property
    def queries(self) -> int:
        """Queries in the store."""
        return len(self._query_starts) - 1

    @property
    def passages(self) -> int:
        """Passages in the store."""
        return len(self._passage_starts) - 1

    def query_lengths(self, query_indices: ArrayLike) -> Lengths:
        """Tokens of query inputs, special tokens included, after truncation."""
        _, stored = self._query_stretch(query_indices)
        return self.template.cut_queries(stored) + self.template.single.special_count

    def passage_lengths(self, passage_indices: ArrayLike) -> Lengths:
        """Tokens of passage inputs, special tokens included, after truncation."""
        _, titles, texts = self._passage_stretch(passage_indices)
        kept_titles, kept_texts = self.template.cut_passages(titles, texts)
        return kept_titles + kept_texts + self.template.passage_layout.special_count

    def pair_lengths(
        self, query_indices: ArrayLike, passage_indices: ArrayLike, layout: PairLayout = "pair"
    ) -> Lengths:
        """Tokens of pair inputs, special tokens included, after truncation."""
        if layout == "joined":
            return self.query_lengths(query_indices) + self.passage_lengths(passage_indices)
        _, queries = self._query_stretch(query_indices)
        _, titles, texts = self._passage_stretch(passage_indices)
        kept_queries, kept_passages = self.template.cut_pairs(queries, titles + texts)
        return kept_queries + kept_passages + self.template.pair.special_count

    def longest_pair(self, layout: PairLayout = "pair") -> int:
        """Tokens of the longest query with the longest passage: no pair input has more."""
        if layout == "joined":
            queries = self.query_lengths(np.arange(self.queries))
            return int(queries.max() + self.passage_lengths(np.arange(self.passages)).max())
        query = np.diff(self._query_starts).argmax()
        passage = np.diff(self._passage_starts).argmax()
        return int(self.pair_lengths([query], [passage])[0])

    def text_ids(self, passage_index: int) -> NDArray[Any]:
        """The stored token ids of a passage's text, without its title, uncut."""
        starts, titles, texts = self._passage_stretch([passage_index])
        first = int(starts[0] + titles[0])
        return self._passage_ids[first : first + int(texts[0])]

    def query_batch(self, query_indices: ArrayLike) -> TokenBatch:
        """Inputs `[CLS] query [SEP]`."""
        starts, stored = self._query_stretch(query_indices)
        query = _Piece(self._query_ids, starts, self.template.cut_queries(stored))
        return self._assemble(self.template.single, [[query]])

    def passage_batch(self, passage_indices: ArrayLike) -> TokenBatch:
        """Inputs `[CLS] title [SEP] text [SEP]`, or `[CLS] text [SEP]` where titles are off."""
        return self._assemble(self.template.passage_layout, self._passage_pieces(passage_indices))

    def pair_batch(
        self, query_indices: ArrayLike, passage_indices: ArrayLike, layout: PairLayout = "pair"
    ) -> TokenBatch:
        """Inputs of queries with passages, row by row, in one of the two layouts."""
        query_starts, queries = self._query_stretch(query_indices)
        if layout == "joined":
            query = _Piece(self._query_ids, query_starts, self.template.cut_queries(queries))
            sequences = [[query], *self._passage_pieces(passage_indices)]
            batch = self._assemble(self.template.joined_layout, sequences)
            return replace(batch, query_lengths=self.query_lengths(query_indices))
        passage_starts, titles, texts = self._passage_stretch(passage_indices)
        kept_queries, kept_passages = self.template.cut_pairs(queries, titles + texts)
        query = _Piece(self._query_ids, query_starts, kept_queries)
        passage = _Piece(self._passage_ids, passage_starts, kept_passages)
        return self._assemble(self.template.pair, [[query], [passage]])

    def _passage_pieces(self, indices: ArrayLike) -> list[list[_Piece]]:
        """The sequences of passage inputs: title and text, or the text alone."""
        starts, titles, texts = self._passage_stretch(indices)
        kept_titles, kept_texts = self.template.cut_passages(titles, texts)
        text = _Piece(self._passage_ids, starts + titles, kept_texts)
        if not self.template.tokenization.title:
            return [[text]]
        missing = titles == 0
        placeholder = _Piece(
            self._missing_title, np.zeros_like(starts), np.where(missing, kept_titles, 0)
        )
        title = _Piece(self._passage_ids, starts, np.where(missing, 0, kept_titles))
        return [[placeholder, title], [text]]

    def _query_stretch(self, indices: ArrayLike) -> tuple[NDArray[np.int64], Lengths]:
        index = _checked(indices, self.queries, "query")
        starts = self._query_starts[index]
        return starts, self._query_starts[index + 1] - starts

    def _passage_stretch(self, indices: ArrayLike) -> tuple[NDArray[np.int64], Lengths, Lengths]:
        index = _checked(indices, self.passages, "passage")
        starts = self._passage_starts[index]
        titles = self._title_lengths[index].astype(np.int64)
        return starts, titles, self._passage_starts[index + 1] - starts - titles

    def _assemble(self, layout: Layout, sequences: Sequence[Sequence[_Piece]]) -> TokenBatch:
        pieces = [piece for sequence in sequences for piece in sequence]
        lengths: Lengths = (
            np.sum([piece.lengths for piece in pieces], axis=0) + layout.special_count
        )
        rows, width = len(lengths), int(lengths.max(initial=0))
        input_ids = np.full((rows, width), self.template.pad_id, dtype=np.int64)
        token_type_ids = np.full((rows, width), self.template.pad_type, dtype=np.int64)
        flat_ids, flat_types = input_ids.reshape(-1), token_type_ids.reshape(-1)
        # Where in the flattened batch each row's next token goes.
        position = np.arange(rows, dtype=np.int64) * width
        for gap, (ids, types) in enumerate(zip(layout.specials, layout.special_types, strict=True)):
            for token, segment in zip(ids, types, strict=True):
                flat_ids[position] = token
                flat_types[position] = segment
                position += 1
            if gap == len(sequences):
                break
            for piece in sequences[gap]:
                source, target = _moves(piece, position)
                flat_ids[target] = piece.ids[source]
                flat_types[target] = layout.sequence_types[gap]
                position += piece.lengths
        mask = np.arange(width)[None, :] < lengths[:, None]
        return TokenBatch(input_ids, mask.astype(np.int64), token_type_ids)


class _ArrayFile:
    """A one-dimensional .npy file that grows, for arrays whose length is known at the end."""

    def __init__(self, path: Path, dtype: np.dtype[Any]):
        self._path = path
        self._dtype = dtype
        self.rows = 0

    def __enter__(self) -> _ArrayFile:
        self._file: BinaryIO = self._path.open("wb")
        self._write_header()
        return self

    def __exit__(self, *exception: object) -> None:
        # numpy leaves room in a header for the longest possible first dimension.
        self._file.seek(0)
        self._write_header()
        self._file.close()

    def append(self, values: NDArray[Any]) -> None:
        """Write values at the end, as the file's type."""
        self._file.write(np.ascontiguousarray(values, dtype=self._dtype).data)
        self.rows += len(values)

    def _write_header(self) -> None:
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self.rows,),
        }
        np.lib.format.write_array_header_1_0(self._file, header)


def _flat(
    table: pa.Table, column: str, vocab_size: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Values of a list column, and where each row ends in them."""
    lists = table.column(column).combine_chunks()
    if lists.null_count:
        raise ValueError(f"token table: {column} has {lists.null_count} null rows")
    values: NDArray[np.int32] = lists.flatten().to_numpy()
    if values.size and (values.min() < 0 or values.max() >= vocab_size):
        raise ValueError(
            f"token table: {column} has ids from {values.min()} to {values.max()}, but the "
            f"template's vocabulary has {vocab_size}: the table belongs to another tokeniser"
        )
    return values, np.cumsum(lists.value_lengths().to_numpy(), dtype=np.int64)


def _interleave(
    first: NDArray[np.int32],
    first_ends: NDArray[np.int64],
    second: NDArray[np.int32],
    second_ends: NDArray[np.int64],
) -> NDArray[np.int32]:
    """Row by row, the first list's values and then the second's."""
    joined = np.empty(len(first) + len(second), dtype=np.int32)
    first_lengths = np.diff(first_ends, prepend=0)
    second_lengths = np.diff(second_ends, prepend=0)
    first_starts = first_ends - first_lengths
    second_starts = second_ends - second_lengths
    row_starts = first_starts + second_starts
    source, target = _moves(_Piece(first, first_starts, first_lengths), row_starts)
    joined[target] = first[source]
    source, target = _moves(
        _Piece(second, second_starts, second_lengths), row_starts + first_lengths
    )
    joined[target] = second[source]
    return joined


def _moves(
    piece: _Piece, targets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Source and target positions of every token of a piece, rows laid end to end."""
    before = np.cumsum(piece.lengths) - piece.lengths
    count = np.arange(int(piece.lengths.sum()), dtype=np.int64)
    source = np.repeat(piece.starts - before, piece.lengths) + count
    target = np.repeat(targets - before, piece.lengths) + count
    return source, target


def _checked(indices: ArrayLike, rows: int, noun: str) -> NDArray[np.int64]:
    index = np.asarray(indices, dtype=np.int64)
    if index.size and (index.min() < 0 or index.max() >= rows):
        raise IndexError(
            f"{noun} index {index.min()} to {index.max()} is outside a store of {rows}"
        )
    return index
