"""DuReader-retrieval's baseline archive.

The collection is several parts of lines `-, title, text, 0`; a JSON object maps the line number,
counted from 0 through all parts, to the passage's id. Training passages come as text only and are
looked up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from typing_extensions import override

from pipeline.sources.content import clean, without_spaces
from pipeline.sources.examples import Context, Example, ExampleSource
from pipeline.sources.json_rows import JsonObject, json_entries, jsonl, objects_of, text_of
from pipeline.sources.lines import all_lines, parsed, report_columns
from pipeline.sources.parameters import DureaderParams
from pipeline.sources.records import DataError, Passage, Place, Problems, Query, Split
from pipeline.sources.rocketqa_files import read_dual_lines

PART_COLUMNS = ["-", "title", "text", "0"]
LINE_NUMBER = re.compile(r"[0-9]{1,18}")


class DureaderSource(ExampleSource):
    """Reads the layout of `DureaderParams`."""

    def __init__(self, params: DureaderParams, problems: Problems) -> None:
        super().__init__(problems, params.paths_of("unlabelled_queries"))
        self._params = params
        self._text: Callable[[str], str] = without_spaces if params.remove_spaces else clean

    @override
    def corpus(self) -> Iterable[Passage] | None:
        parts = self._params.paths_of("corpus")
        passages = read_parts(parts, self._params.required("passage_ids"), self.problems)
        return (
            passage._replace(title=self._text(passage.title), text=self._text(passage.text))
            for passage in passages
        )

    @override
    def needs_texts(self) -> bool:
        return True

    @override
    def queries(self) -> Iterator[Query]:
        return (query._replace(text=self._text(query.text)) for query in super().queries())

    @override
    def examples(self, problems: Problems) -> Iterator[Example]:
        for split, path in self._params.splits_of("dual"):
            for example in read_dual_lines(path, split, problems):
                yield example._replace(
                    text=self._text(example.text),
                    positives=tuple(map(self._spaced, example.positives)),
                    negatives=tuple(map(self._spaced, example.negatives)),
                )
        for split, path in self._params.splits_of("examples"):
            yield from self._questions(path, split, problems)

    def _spaced(self, context: Context) -> Context:
        return Context(self._text(context.title), self._text(context.text), context.passage_id)

    def _questions(self, path: Path, split: Split, problems: Problems) -> Iterator[Example]:
        def example(where: Place, row: JsonObject) -> Example:
            positives = tuple(
                Context("", "", text_of(paragraph, "paragraph_id"))
                for paragraph in objects_of(row, "answer_paragraphs", required=True)
            )
            text = self._text(text_of(row, "question"))
            return Example(text_of(row, "question_id"), text, split, where, positives=positives)

        return parsed(jsonl(path, problems), example, problems)


class _Numbered(NamedTuple):
    number: int
    passage_id: str


def read_parts(parts: Iterable[Path], passage_ids: Path, problems: Problems) -> Iterator[Passage]:
    """Read the parts of a collection with their ids.

    A line that is left out keeps its number, so that the ids of later lines do not move.

    Raises:
        DataError: the map and the lines do not fit together, or differ in order.
    """
    ids = _read_map(passage_ids)
    entry = next(ids, None)
    number = -1
    for part in parts:
        for where, line in all_lines(part, problems):
            number += 1
            if not line:
                continue
            while entry is not None and entry.number < number:
                entry = next(ids, None)
            if entry is None or entry.number != number:
                raise DataError(
                    Place(str(passage_ids), 0),
                    f"no id for line {number} of the collection ({where}) in its place",
                    "sort the map by line number and give all parts in order",
                )
            row = line.split("\t")
            if len(row) != len(PART_COLUMNS):
                report_columns(len(row), PART_COLUMNS, where, problems)
                continue
            yield Passage(entry.passage_id, row[1], row[2], where)
    while entry is not None and entry.number <= number:
        entry = next(ids, None)
    if entry is not None:
        raise DataError(
            Place(str(passage_ids), 0),
            f"the map has an id for line {entry.number}, but the parts end with line {number}",
            "give all parts in order",
        )


def _read_map(path: Path) -> Iterator[_Numbered]:
    """Stream a flat JSON object of numbers to ids, too large to hold as a dict."""
    for where, number, passage_id in json_entries(path):
        if not LINE_NUMBER.fullmatch(number):
            raise DataError(where, f"{number[:40]!r} is no line number", "count lines from 0")
        if not isinstance(passage_id, str):
            raise DataError(
                where,
                f"the id of line {number} is a {type(passage_id).__name__}",
                "write ids as JSON strings",
            )
        yield _Numbered(int(number), passage_id)
