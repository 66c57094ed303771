"""Tevatron JSONL, versions 1 and 2.

Version 1: `query_id`, `query`, `positive_passages` and `negative_passages` (each `docid`, `title`,
`text`). Version 2: `query_id`, `query_text`, `positive_document_ids` and `negative_document_ids`,
whose documents stand in a corpus of `docid`, `document_text` lines. Version 1 may have a corpus too
(`docid`, `title`, `text`), which then holds all passages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from typing_extensions import override

from pipeline.sources.examples import Context, Example, ExampleSource
from pipeline.sources.json_rows import JsonObject, ids_of, jsonl, objects_of, text_of, texts_of
from pipeline.sources.lines import BadRow, parsed
from pipeline.sources.parameters import TevatronParams
from pipeline.sources.records import Passage, Place, Problems, Split


class TevatronSource(ExampleSource):
    """Reads the layout of `TevatronParams`."""

    def __init__(self, params: TevatronParams, problems: Problems) -> None:
        super().__init__(problems, params.paths_of("unlabelled_queries"))
        self._params = params

    @override
    def corpus(self) -> Iterable[Passage] | None:
        paths = self._params.paths_of("corpus")
        return self._read_corpus(paths) if paths else None

    def _read_corpus(self, paths: list[Path]) -> Iterator[Passage]:
        for path in paths:
            yield from parsed(jsonl(path, self.problems), _passage, self.problems)

    @override
    def examples(self, problems: Problems) -> Iterator[Example]:
        for split, path in self._params.splits_of("examples"):
            yield from self._read_examples(path, split, problems)

    def _read_examples(self, path: Path, split: Split, problems: Problems) -> Iterator[Example]:
        def example(where: Place, row: JsonObject) -> Example:
            return Example(
                text_of(row, "query_id"),
                text_of(row, "query", "query_text"),
                split,
                where,
                positives=self._contexts(row, "positive"),
                negatives=self._contexts(row, "negative"),
                answers=texts_of(row, "answers"),
            )

        return parsed(jsonl(path, problems), example, problems)

    def _contexts(self, row: JsonObject, role: str) -> tuple[Context, ...]:
        ids = ids_of(row, f"{role}_document_ids")
        if ids and not self._params.corpus:
            raise BadRow(
                "document ids without a corpus",
                f"'{role}_document_ids' name documents, but there is no corpus",
                "name the corpus file under `corpus`",
            )
        inside = (
            Context(
                text_of(passage, "title", default=""), text_of(passage, "text"), _docid(passage)
            )
            for passage in objects_of(row, f"{role}_passages")
        )
        return (*(Context("", "", one) for one in ids), *inside)


def _docid(row: JsonObject) -> str:
    return text_of(row, "docid", "document_id")


def _passage(where: Place, row: JsonObject) -> Passage:
    title = text_of(row, "title", default="")
    return Passage(_docid(row), title, text_of(row, "document_text", "text"), where)
