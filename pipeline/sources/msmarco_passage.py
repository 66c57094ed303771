"""MS MARCO passage ranking: `pid, text` and `qid, text` lines, and judgements.

Titles, which the collection lacks, may come from a second file of `pid, title` lines in the same
order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from typing_extensions import override

from pipeline.sources.lines import all_lines, report_columns, tsv
from pipeline.sources.parameters import MsMarcoPassageParams, RocketqaParams
from pipeline.sources.qrels import read_qrels
from pipeline.sources.records import (
    DataError,
    Judgement,
    Pair,
    Passage,
    Place,
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
        for split, path in self._params.splits_of("qrels"):
            yield from read_qrels(path, split, self.problems)

    @override
    def excluded(self) -> Iterator[Pair]:
        for path in self._params.paths_of("excluded"):
            for judgement in read_qrels(path, None, self.problems):
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
    columns = ["passage id", "text"]
    ahead = _Titles(tsv(titles, ["passage id", "title"], problems) if titles else iter(()))
    for where, line in all_lines(corpus, problems):
        row = [] if line is None else line.split("\t")
        if len(row) == len(columns):
            yield Passage(row[0], ahead.title_of(row[0]), row[1], where)
        elif line != "":
            ahead.refused += 1
            if line is not None:
                report_columns(len(row), columns, where, problems)
    if (left := ahead.left_over()) is not None:
        place, (passage_id, _) = left
        raise DataError(
            place,
            f"passage '{passage_id}' has a title but does not come next in {corpus}",
            "bring both files into the same order and take out titles without a passage",
        )


class _Titles:
    """Titles in the order of their passages.

    Attributes:
        refused: lines of the collection that were left out since the last passage with a title;
            each may have one, and under which id cannot be told.
    """

    def __init__(self, rows: Iterator[tuple[Place, list[str]]]) -> None:
        self.refused = 0
        self._rows = rows
        self._ahead: deque[tuple[Place, list[str]]] = deque()

    def title_of(self, passage_id: str) -> str:
        """The title of the next passage, empty if it has none."""
        self._look_ahead()
        for passed, (_, (own_id, title)) in enumerate(islice(self._ahead, self.refused + 1)):
            if own_id == passage_id:
                for _ in range(passed + 1):
                    self._ahead.popleft()
                self.refused = 0
                return title
        return ""

    def left_over(self) -> tuple[Place, list[str]] | None:
        """The first title at the end that belongs to no line of the collection, if there is one."""
        self._look_ahead()
        return self._ahead[0] if len(self._ahead) > self.refused else None

    def _look_ahead(self) -> None:
        while len(self._ahead) <= self.refused and (row := next(self._rows, None)) is not None:
            self._ahead.append(row)
