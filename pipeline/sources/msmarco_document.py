"""MS MARCO document ranking: `id, url, title, body` lines; the address is not read."""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import override

from pipeline.sources.lines import tsv
from pipeline.sources.msmarco_passage import read_queries
from pipeline.sources.parameters import MsMarcoDocumentParams
from pipeline.sources.qrels import read_qrels
from pipeline.sources.records import Judgement, Passage, Problems, Query, Source


class MsMarcoDocumentSource(Source):
    """Reads the layout of `MsMarcoDocumentParams`."""

    def __init__(self, params: MsMarcoDocumentParams, problems: Problems) -> None:
        super().__init__(problems)
        self._params = params

    @override
    def passages(self) -> Iterator[Passage]:
        columns = ["document id", "url", "title", "body"]
        for where, row in tsv(self._params.required("corpus"), columns, self.problems):
            document_id, _, title, body = row
            yield Passage(document_id, title, body, where)

    @override
    def queries(self) -> Iterator[Query]:
        for split, path in self._params.splits_of("queries"):
            yield from read_queries(path, split, self.problems)
        for path in self._params.paths_of("unlabelled_queries"):
            yield from read_queries(path, "unlabelled", self.problems)

    @override
    def judgements(self) -> Iterator[Judgement]:
        for split, path in self._params.splits_of("qrels"):
            yield from read_qrels(path, split, self.problems)
