"""MS MARCO passage ranking: `pid, text` and `qid, text` lines, and judgements.

Titles, which the collection lacks, may come from a second file of `pid, title` lines in the same
order.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from typing_extensions import override

from pipeline.sources.lines import tsv
from pipeline.sources.parameters import MsMarcoPassageParams, RocketqaParams
from pipeline.sources.qrels import read_qrels
from pipeline.sources.records import (
    DataError,
    Judgement,
    Pair,
    Passage,
    Problems,
    Query,
    Source,
    Split,
)


class MsMarcoPassageSource(Source):
    """Reads the layout of `MsMarcoPassageParams`."""

    def __init__(self, params: MsMarcoPassageParams | RocketqaParams, problems: Problems) -> None:
        super().__init__(problems)
        self._params = params

    @override
    def passages(self) -> Iterator[Passage]:
        params = self._params
        titles = params.required("titles") if params.titles else None
        return read_collection(params.required("corpus"), titles, self.problems)

    @override
    def queries(self) -> Iterator[Query]:
        for split, path in self._params.splits_of("queries"):
            yield from read_queries(path, split, self.problems)
        for path in self._params.paths_of("unlabelled_queries"):
            yield from read_queries(path, "unlabelled", self.problems)

    @override
    def judgements(self) -> Iterator[Judgement]:
        for _, path in self._params.splits_of("qrels"):
            yield from read_qrels(path, self.problems)

    @override
    def excluded(self) -> Iterator[Pair]:
        for path in self._params.paths_of("excluded"):
            for judgement in read_qrels(path, self.problems):
                yield Pair(judgement.query_id, judgement.passage_id, judgement.place)


def read_queries(path: Path, split: Split, problems: Problems) -> Iterator[Query]:
    """Read `qid, text` lines."""
    for where, (query_id, text) in tsv(path, ["query id", "text"], problems):
        yield Query(query_id, text, split, where)


def read_collection(corpus: Path, titles: Path | None, problems: Problems) -> Iterator[Passage]:
    """Read `pid, text` lines, and their titles from lines in the same order, some of which may
    lack.

    Raises:
        DataError: titles are left over at the end, so the files differ in order or passages.
    """
    rows = tsv(titles, ["passage id", "title"], problems) if titles else iter(())
    waiting = next(rows, None)
    for where, (passage_id, text) in tsv(corpus, ["passage id", "text"], problems):
        title = ""
        if waiting is not None and waiting[1][0] == passage_id:
            title = waiting[1][1]
            waiting = next(rows, None)
        yield Passage(passage_id, title, text, where)
    if waiting is not None:
        place, (passage_id, _) = waiting
        raise DataError(
            place,
            f"passage '{passage_id}' has a title but does not come next in {corpus}",
            "bring both files into the same order and take out titles without a passage",
        )
