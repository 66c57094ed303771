"""DPR: Wikipedia passages, training JSON, and questions with answers.

`psgs_w100.tsv` is written with quotation marks around texts that hold some (doubled inside), as the
csv module does, one record per line. Question files hold the answers as a Python list.
"""

from __future__ import annotations

import ast
import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from typing_extensions import override

from pipeline.sources.examples import Context, Example, ExampleSource, read_fields
from pipeline.sources.json_rows import JsonObject, json_array, objects_of, text_of, texts_of
from pipeline.sources.lines import MAX_LINE_BYTES, BadRow, lines, parsed, report_columns
from pipeline.sources.parameters import DprParams
from pipeline.sources.records import DataError, Passage, Place, Problems, Split

CORPUS_COLUMNS = ["id", "text", "title"]
QUESTION_COLUMNS = ["question", "answers"]


class DprSource(ExampleSource):
    """Reads the layout of `DprParams`; `hard_negative_ctxs` are the given negatives."""

    def __init__(self, params: DprParams, problems: Problems) -> None:
        super().__init__(problems, params.paths_of("unlabelled_queries"))
        self._params = params

    @override
    def corpus(self) -> Iterable[Passage] | None:
        if self._params.corpus is None:
            return None
        return read_wikipedia(self._params.required("corpus"), self.problems)

    @override
    def examples(self, problems: Problems) -> Iterator[Example]:
        readers = {"examples": self._read_examples, "questions": read_questions}
        return read_fields(self._params, readers, problems)

    def _read_examples(self, path: Path, split: Split, problems: Problems) -> Iterator[Example]:
        def example(where: Place, row: JsonObject) -> Example:
            positives = self._contexts(row, "positive_ctxs")
            taken = 1 if self._params.positives == "first" else len(positives)
            return Example(
                None,
                text_of(row, "question"),
                split,
                where,
                positives=positives[:taken],
                excluded=positives[taken:],
                negatives=self._contexts(row, "hard_negative_ctxs"),
                answers=texts_of(row, "answers"),
            )

        return parsed(json_array(path, problems), example, problems)

    def _contexts(self, row: JsonObject, name: str) -> tuple[Context, ...]:
        in_corpus = self._params.corpus is not None
        return tuple(
            Context(
                text_of(context, "title", default=""),
                text_of(context, "text"),
                text_of(context, "passage_id", "psg_id", default=None if in_corpus else "") or None,
            )
            for context in objects_of(row, name)
        )


def read_wikipedia(path: Path, problems: Problems) -> Iterator[Passage]:
    """Read `id, text, title` lines below a header.

    Raises:
        DataError: the header is missing or another one.
    """
    rows = _quoted_rows(path, CORPUS_COLUMNS, problems)
    where, header = next(rows, (Place(str(path), 1), []))
    if header != CORPUS_COLUMNS:
        raise DataError(where, f"the header is {header}", f"write the header {CORPUS_COLUMNS}")
    for where, (passage_id, text, title) in rows:
        yield Passage(passage_id, title, text, where)


def read_questions(path: Path, split: Split, problems: Problems) -> Iterator[Example]:
    """Read `question, answers` lines, the answers a list in Python's notation."""

    def example(where: Place, row: list[str]) -> Example:
        try:
            answers = ast.literal_eval(row[1])
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            answers = None
        if not isinstance(answers, list) or not all(isinstance(one, str) for one in answers):
            raise BadRow("answers are no list", f"answers are {row[1][:60]!r}", 'write ["a", "b"]')
        return Example(None, row[0], split, where, answers=tuple(answers))

    return parsed(_quoted_rows(path, QUESTION_COLUMNS, problems), example, problems)


def _quoted_rows(
    path: Path, columns: list[str], problems: Problems
) -> Iterator[tuple[Place, list[str]]]:
    for where, line in lines(path, problems):
        try:
            # Most lines have no quotation mark, and splitting is several times as quick.
            row = line.split("\t") if '"' not in line else _unquoted(line)
        except csv.Error as error:
            problems.found("bad quotation marks", where, str(error), "write one record per line")
            continue
        if len(row) != len(columns):
            report_columns(len(row), columns, where, problems)
            continue
        yield where, row


def _unquoted(line: str) -> list[str]:
    # The limit is one of the whole process, so it is put back for whoever else reads tables.
    limit = csv.field_size_limit(MAX_LINE_BYTES)
    try:
        return next(csv.reader([line], delimiter="\t"))
    finally:
        csv.field_size_limit(limit)
