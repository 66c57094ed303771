"""Relevance judgements and runs in the layouts that are about.

Judgements: TREC `qid 0 pid relevance`; `qid pid` (RocketQA, relevance 1); `query-id corpus-id
score` with a header (BEIR). The first line decides, and all other lines must look like it. Columns
are separated by tabs where the first line has one, else by any white space.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.sources.lines import BadRow, integer, lines, parsed, report_columns
from pipeline.sources.records import DataError, Judgement, Pair, Place, Problems, Split

BEIR_HEADER = ["query-id", "corpus-id", "score"]
TREC_COLUMNS = ["query id", "0", "passage id", "relevance"]
PAIR_COLUMNS = ["query id", "passage id"]
RUN_COLUMNS = ["query id", "Q0", "passage id", "rank", "score", "tag"]


def read_qrels(path: Path, split: Split | None, problems: Problems) -> Iterator[Judgement]:
    """Yield the judgements of a file in any of the layouts above.

    Raises:
        DataError: the first line has none of these layouts.
    """

    def judgement(where: Place, row: list[str]) -> Judgement:
        if len(row) == len(PAIR_COLUMNS):
            return Judgement(row[0], row[1], 1, where, split)
        return Judgement(row[0], row[-2], integer(row[-1], "relevance"), where, split)

    return parsed(_rows(path, problems), judgement, problems)


def _rows(path: Path, problems: Problems) -> Iterator[tuple[Place, list[str]]]:
    columns: list[str] | None = None
    separator: str | None = None
    for where, line in lines(path, problems):
        if columns is None:
            separator = "\t" if "\t" in line else None
            columns = _layout(line.split(separator), where)
            if columns is BEIR_HEADER:
                continue
        row = line.split(separator)
        if len(row) != len(columns):
            report_columns(len(row), columns, where, problems)
            continue
        yield where, row


def _layout(first: list[str], where: Place) -> list[str]:
    if first == BEIR_HEADER:
        return BEIR_HEADER
    if len(first) == len(TREC_COLUMNS):
        return TREC_COLUMNS
    if len(first) == len(PAIR_COLUMNS):
        return PAIR_COLUMNS
    raise DataError(
        where,
        f"unknown layout of judgements with {len(first)} columns",
        "give `qid 0 pid relevance`, `qid pid`, or BEIR's three columns with their header",
    )


def read_run(path: Path, split: Split, depth: int, problems: Problems) -> Iterator[Pair]:
    """Yield the pairs of a TREC run (`qid Q0 pid rank score tag`) whose rank is at most `depth`."""

    def rows() -> Iterator[tuple[Place, list[str]]]:
        for where, line in lines(path, problems):
            row = line.split()
            if len(row) != len(RUN_COLUMNS):
                report_columns(len(row), RUN_COLUMNS, where, problems)
                continue
            yield where, row

    def ranked(where: Place, row: list[str]) -> tuple[int, Pair]:
        rank = integer(row[3], "rank")
        if rank < 0:
            raise BadRow("negative rank", f"rank is {rank}", "count ranks from 1")
        return rank, Pair(row[0], row[2], where, split)

    return (pair for rank, pair in parsed(rows(), ranked, problems) if rank <= depth)
