"""Any set registered with the `ir_datasets` package, which fetches what it has not fetched yet.

A place is a registered id and the number of the record, since the package hides its files.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

from typing_extensions import override

from pipeline.sources.lines import integer, parsed
from pipeline.sources.parameters import IrDatasetsParams
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
    training_last,
)

READING_ERRORS = (ValueError, RuntimeError, LookupError, TypeError, OSError, EOFError, zlib.error)
"""What the package raises for data that it cannot read or fetch."""


class IrDatasetsSource(Source):
    """Reads the sets of `IrDatasetsParams`."""

    def __init__(self, params: IrDatasetsParams, problems: Problems) -> None:
        super().__init__(problems)
        self._params = params

    @override
    def passages(self) -> Iterator[Passage]:
        name = self._params.documents or next(iter(self._params.splits.values()))
        for where, document in _records(name, "docs"):
            title = getattr(document, "title", "") or ""
            yield Passage(document.doc_id, title, _body(document), where)

    @override
    def queries(self) -> Iterator[Query]:
        named: list[tuple[Split, str]] = [*self._params.splits.items()]
        named.sort(key=lambda one: training_last(one[0]))
        if self._params.unlabelled:
            named.append(("unlabelled", self._params.unlabelled))
        for split, name in named:
            for where, query in _records(name, "queries"):
                yield Query(query.query_id, query.default_text(), split, where)

    @override
    def judgements(self) -> Iterator[Judgement]:
        for split, name in self._params.splits.items():

            def judgement(where: Place, row: Any, split: Split = split) -> Judgement:
                relevance = integer(str(row.relevance), "relevance")
                return Judgement(row.query_id, row.doc_id, relevance, where, split)

            yield from parsed(_records(name, "qrels"), judgement, self.problems)

    @override
    def answers(self) -> Iterator[Answers]:
        for split, name in self._params.splits.items():
            for where, query in _records(name, "queries"):
                if answers := getattr(query, "answers", None):
                    yield Answers(query.query_id, tuple(answers), where, split)


def _body(document: Any) -> str:
    """The text without the title, where the record keeps them apart."""
    for field in ("text", "body", "abstract"):
        if isinstance(body := getattr(document, field, None), str):
            return body
    return str(document.default_text())


def _records(name: str, part: str) -> Iterator[tuple[Place, Any]]:
    """The records of a set with their numbers, from 1.

    Raises:
        DataError: the package cannot read or fetch them.
    """
    dataset = _load(name, part)
    number = 0
    try:
        for record in getattr(dataset, f"{part}_iter")():
            number += 1
            yield Place(name, number), record
    except READING_ERRORS as error:
        # What a consumer of this generator raises is never thrown into it.
        raise DataError(
            Place(name, number + 1),
            f"ir_datasets cannot read the {part} ({type(error).__name__}: {error})",
            "mend or fetch the files again that this set is made of",
        ) from error


def _load(name: str, part: str) -> Any:
    import ir_datasets

    try:
        dataset = ir_datasets.load(name)
    except KeyError:
        raise DataError(
            Place(name, 0), "no such id in ir_datasets", "see https://ir-datasets.com for its ids"
        ) from None
    if not getattr(dataset, f"has_{part}")():
        raise DataError(Place(name, 0), f"this set has no {part}", "choose an id that has them")
    return dataset
