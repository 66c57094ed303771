"""TREC collections: documents, topics, judgements and runs.

Documents: JSONL of `id` and `contents` (or `docid`/`_id` and `text`, perhaps `title`); TSV of two
or three columns; `<DOC>` records, of which `DOCNO`, `TITLE` or `HEADLINE`, and all of `TEXT` are
read, without tags. Topics: `id, text` lines, or `<top>` records, of which the number and the title
are read; the fields may or may not be closed by an end tag.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

from typing_extensions import override

from pipeline.sources.json_rows import JsonObject, jsonl, text_of
from pipeline.sources.lines import MAX_LINE_BYTES, lines, parsed, report_columns
from pipeline.sources.msmarco_passage import read_queries
from pipeline.sources.parameters import TrecParams
from pipeline.sources.qrels import read_qrels, read_run
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

TAG = re.compile(r"<[^>]*>")
NUMBER_LABEL = re.compile(r"^\s*(Number|Topic)\s*:\s*", re.IGNORECASE)
TITLE_LABEL = re.compile(r"^\s*(Title|Topic)\s*:\s*", re.IGNORECASE)


class TrecSource(Source):
    """Reads the layout of `TrecParams`."""

    def __init__(self, params: TrecParams, problems: Problems) -> None:
        super().__init__(problems)
        self._params = params

    @override
    def passages(self) -> Iterator[Passage]:
        read = {"jsonl": _read_jsonl, "tsv": _read_tsv, "sgml": read_documents}
        for path in self._params.paths_of("corpus"):
            yield from read[self._params.corpus_layout](path, self.problems)

    @override
    def queries(self) -> Iterator[Query]:
        for split, path in self._params.splits_of("topics"):
            yield from read_topics(path, split, self.problems)
        for path in self._params.paths_of("unlabelled_queries"):
            yield from read_topics(path, "unlabelled", self.problems)

    @override
    def judgements(self) -> Iterator[Judgement]:
        for _, path in self._params.splits_of("qrels"):
            yield from read_qrels(path, self.problems)

    @override
    def negatives(self) -> Iterator[Pair]:
        for _, path in self._params.splits_of("runs"):
            yield from read_run(path, self._params.run_depth, self.problems)


def _read_jsonl(path: Path, problems: Problems) -> Iterator[Passage]:
    def passage(where: Place, row: JsonObject) -> Passage:
        title = text_of(row, "title", default="")
        return Passage(
            text_of(row, "id", "docid", "_id"), title, text_of(row, "contents", "text"), where
        )

    return parsed(jsonl(path, problems), passage, problems)


def _read_tsv(path: Path, problems: Problems) -> Iterator[Passage]:
    for where, line in lines(path, problems):
        row = line.split("\t")
        if len(row) == 2:
            yield Passage(row[0], "", row[1], where)
        elif len(row) == 3:
            yield Passage(row[0], row[1], row[2], where)
        else:
            report_columns(len(row), ["id", "title (optional)", "text"], where, problems)


def _records(path: Path, tag: str, problems: Problems) -> Iterator[tuple[Place, str]]:
    """The text between `<tag>`, at the start of a line, and `</tag>`; bounded like a line."""
    start, end = re.compile(rf"<{tag}>", re.I), re.compile(rf"</{tag}>", re.I)
    where: Place | None = None
    held: list[str] = []
    size = 0
    for place, line in lines(path, problems):
        if opening := start.match(line.lstrip()):
            if where is not None:
                raise DataError(where, f"<{tag}> without </{tag}>", "close the record")
            where, held, size = place, [], 0
            line = line.lstrip()[opening.end() :]
        if where is None:
            continue
        held.append(line)
        size += len(line)
        if size > MAX_LINE_BYTES:
            raise DataError(where, f"<{tag}> is longer than {MAX_LINE_BYTES}", "close the record")
        if end.search(line):
            yield where, end.split("\n".join(held))[0]
            where = None
    if where is not None:
        raise DataError(where, f"<{tag}> without </{tag}>", "the file is cut off; fetch it again")


def _field(record: str, *names: str) -> str | None:
    """The text of the first field of any of `names`, up to its end tag or the next tag."""
    for name in names:
        if found := re.search(rf"<{name}>(.*?)(?=</{name}>|<[a-z]+>|\Z)", record, re.I | re.S):
            return html.unescape(TAG.sub(" ", found[1])).strip()
    return None


def read_documents(path: Path, problems: Problems) -> Iterator[Passage]:
    """Read `<DOC>` records."""
    for where, record in _records(path, "DOC", problems):
        number = _field(record, "DOCNO")
        texts = re.findall(r"<TEXT>(.*?)</TEXT>", record, re.I | re.S)
        if not number:
            problems.found("no DOCNO", where, "<DOC> without <DOCNO>", "add it")
            continue
        text = html.unescape(" ".join(TAG.sub(" ", one).strip() for one in texts))
        yield Passage(number, _field(record, "TITLE", "HEADLINE") or "", text, where)


def read_topics(path: Path, split: Split, problems: Problems) -> Iterator[Query]:
    """Read topics as `id, text` lines or as `<top>` records, told apart by the first character."""
    _, first = next(lines(path, problems.repeated()), (None, ""))
    if not first.lstrip().startswith("<"):
        yield from read_queries(path, split, problems)
        return
    for where, record in _records(path, "top", problems):
        number, title = _field(record, "num"), _field(record, "title")
        if not number or not title:
            missing = "title" if number else "num"
            problems.found(f"no {missing}", where, f"<top> without <{missing}>", "add it")
            continue
        number = NUMBER_LABEL.sub("", number)
        yield Query(number.strip(), TITLE_LABEL.sub("", title), split, where)
