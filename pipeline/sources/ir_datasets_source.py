"""Any set registered with the `ir_datasets` package, which fetches what it has not fetched yet.

A place is a registered id and the number of the record, since the package hides its files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typing_extensions import override

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
)


class IrDatasetsSource(Source):
    """Reads the sets of `IrDatasetsParams`."""

    def __init__(self, params: IrDatasetsParams, problems: Problems) -> None:
        super().__init__(problems)
        self._params = params

    @override
    def passages(self) -> Iterator[Passage]:
        name = self._params.documents or next(iter(self._params.splits.values()), "")
        for number, document in enumerate(_load(name, "docs").docs_iter(), start=1):
            title = getattr(document, "title", "") or ""
            text = _body(document)
            yield Passage(document.doc_id, title, text, Place(name, number))

    @override
    def queries(self) -> Iterator[Query]:
        named: list[tuple[Split, str]] = [*self._params.splits.items()]
        if self._params.unlabelled:
            named.append(("unlabelled", self._params.unlabelled))
        for split, name in named:
            for number, query in enumerate(_load(name, "queries").queries_iter(), start=1):
                yield Query(query.query_id, query.default_text(), split, Place(name, number))

    @override
    def judgements(self) -> Iterator[Judgement]:
        for name in self._params.splits.values():
            for number, one in enumerate(_load(name, "qrels").qrels_iter(), start=1):
                yield Judgement(one.query_id, one.doc_id, int(one.relevance), Place(name, number))

    @override
    def answers(self) -> Iterator[Answers]:
        for name in self._params.splits.values():
            for number, query in enumerate(_load(name, "queries").queries_iter(), start=1):
                if answers := getattr(query, "answers", None):
                    yield Answers(query.query_id, tuple(answers), Place(name, number))


def _body(document: Any) -> str:
    """The text without the title, where the record keeps them apart."""
    for field in ("text", "body", "abstract"):
        if isinstance(body := getattr(document, field, None), str):
            return body
    return str(document.default_text())


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
