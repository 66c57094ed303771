"""Parquet collections: one file of passages, and per split files of queries, judgements and
answers.

A place is a file and a row number, since Parquet has no lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from typing_extensions import override

from pipeline.sources.lines import BadRow, bounded, parsed
from pipeline.sources.parameters import ParquetParams
from pipeline.sources.records import (
    Answers,
    DataError,
    Judgement,
    Passage,
    Place,
    Problems,
    Query,
    Source,
    Split,
)

BATCH_ROWS = 8192


class ParquetSource(Source):
    """Reads the layout of `ParquetParams`."""

    def __init__(self, params: ParquetParams, problems: Problems) -> None:
        super().__init__(problems)
        self._params = params

    @override
    def passages(self) -> Iterator[Passage]:
        columns = {"passage_id": ("text", True), "title": ("text", False), "text": ("text", True)}
        for path in self._params.paths_of("corpus"):
            yield from parsed(read_rows(path, columns, self.problems), _passage, self.problems)

    @override
    def queries(self) -> Iterator[Query]:
        files: list[tuple[Split, Path]] = self._params.splits_of("queries")
        unlabelled = self._params.paths_of("unlabelled_queries")
        columns = {"query_id": ("text", True), "text": ("text", True)}
        for split, path in [*files, *(("unlabelled", path) for path in unlabelled)]:

            def query(where: Place, row: Sequence[Any], split: Split = split) -> Query:
                return Query(_given(row[0], "query_id"), _given(row[1], "text"), split, where)

            yield from parsed(read_rows(path, columns, self.problems), query, self.problems)

    @override
    def judgements(self) -> Iterator[Judgement]:
        columns = {
            "query_id": ("text", True),
            "passage_id": ("text", True),
            "relevance": ("integer", True),
        }
        for split, path in self._params.splits_of("qrels"):

            def judgement(where: Place, row: Sequence[Any], split: Split = split) -> Judgement:
                query_id, passage_id = _given(row[0], "query_id"), _given(row[1], "passage_id")
                relevance = bounded(_given(row[2], "relevance"), "relevance")
                return Judgement(query_id, passage_id, relevance, where, split)

            yield from parsed(read_rows(path, columns, self.problems), judgement, self.problems)

    @override
    def answers(self) -> Iterator[Answers]:
        columns = {"query_id": ("text", True), "answers": ("texts", True)}
        for split, path in self._params.splits_of("answers"):

            def answers(where: Place, row: Sequence[Any], split: Split = split) -> Answers:
                given = tuple(_given(answer, "an answer") for answer in row[1] or ())
                return Answers(_given(row[0], "query_id"), given, where, split)

            yield from parsed(read_rows(path, columns, self.problems), answers, self.problems)


def _given(value: Any, column: str) -> Any:
    if value is None:
        raise BadRow(f"{column} is null", f"{column} is null", "fill it in")
    return value


def _passage(where: Place, row: Sequence[Any]) -> Passage:
    return Passage(_given(row[0], "passage_id"), row[1] or "", _given(row[2], "text"), where)


def read_rows(
    path: Path, columns: dict[str, tuple[str, bool]], problems: Problems
) -> Iterator[tuple[Place, Sequence[Any]]]:
    """Stream the rows of a Parquet file as tuples in the order of `columns`; None where a column
    may be missing and is. Rows with texts that are not UTF-8 are reported and left out.

    Raises:
        DataError: no such file, no Parquet, a column missing or of another type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    whole = Place(str(path), 0)
    if not path.is_file():
        raise DataError(whole, "no such file", "check `path` and the file names")
    row = 0
    try:
        with pq.ParquetFile(path) as file:
            present = _check(file.schema_arrow, columns, whole)
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=present):
                # Whole columns are many times as quick as single rows.
                try:
                    rows = _rows(batch, columns)
                except UnicodeDecodeError:
                    rows = _single_rows(batch, columns, whole.file, row, problems)
                for number, one in rows:
                    yield Place(whole.file, row + number), one
                row += len(batch)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            Place(whole.file, row + 1 if row else 0),
            f"the file cannot be read ({error})",
            "it is cut off, damaged or no Parquet; write it again",
        ) from error


def _rows(batch: Any, columns: Iterable[str]) -> Iterator[tuple[int, Sequence[Any]]]:
    """The rows of a batch, numbered from 1.

    Raises:
        UnicodeDecodeError: at once, for text that is not UTF-8 anywhere in it.
    """
    values = [
        batch.column(name).to_pylist() if name in batch.schema.names else [None] * len(batch)
        for name in columns
    ]
    return enumerate(zip(*values, strict=True), start=1)


def _single_rows(
    batch: Any, columns: Iterable[str], file: str, before: int, problems: Problems
) -> Iterator[tuple[int, Sequence[Any]]]:
    """The rows of a batch of which some are not UTF-8; those are reported."""
    for at in range(len(batch)):
        try:
            ((_, row),) = _rows(batch.slice(at, 1), columns)
        except UnicodeDecodeError as error:
            problems.found(
                "not UTF-8",
                Place(file, before + at + 1),
                f"a text is not UTF-8 ({error})",
                "write the column again from correct texts",
            )
            continue
        yield at + 1, row


def _check(schema: Any, columns: dict[str, tuple[str, bool]], whole: Place) -> list[str]:
    import pyarrow.types as types

    def text(kind: Any) -> bool:
        if types.is_dictionary(kind):
            return text(kind.value_type)
        strings = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
        # A column in which all is missing has no type of its own.
        return bool(strings or types.is_null(kind))

    fits: dict[str, Callable[[Any], bool]] = {
        "text": text,
        "integer": lambda kind: types.is_integer(kind) or types.is_null(kind),
        "texts": lambda kind: (
            types.is_null(kind)
            or ((types.is_list(kind) or types.is_large_list(kind)) and text(kind.value_type))
        ),
    }
    present = []
    for name, (wanted, required) in columns.items():
        if name in schema.names:
            kind = schema.field(name).type
            if not fits[wanted](kind):
                raise DataError(
                    whole, f"column '{name}' is {kind}, wanted {wanted}", "cast it when writing"
                )
            present.append(name)
        elif required:
            found = ", ".join(schema.names)
            raise DataError(whole, f"no column '{name}' (found: {found})", "add or rename it")
    return present
