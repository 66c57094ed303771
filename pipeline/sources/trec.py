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
from pipeline.sources.lines import MAX_LINE_BYTES, all_lines, lines, parsed, report_columns
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
AROUND = re.compile(r"<!--.*?-->|<[?!/]?([a-z][^\s>/]*)[^>]*>", re.I)
FIELDS = {
    "DOC": ("DOCNO", "DOCID", "DOCHDR", "DATE", "HEADER", "HEAD", "TITLE", "HEADLINE", "TEXT"),
    "top": (
        *("HEAD", "NUM", "DOM", "TITLE", "DESC", "SMRY", "NARR", "CON", "FAC", "NAT", "DEF"),
        *("TIME", "QUERY", "QUERYTIME", "QUERYTWEETTIME"),
    ),
}
"""The fields of records, at which one that has no end tag ends."""
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
        for split, path in self._params.splits_of("qrels"):
            yield from read_qrels(path, split, self.problems)

    @override
    def negatives(self) -> Iterator[Pair]:
        for split, path in self._params.splits_of("runs"):
            yield from read_run(path, split, self._params.run_depth, self.problems)


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
    """The text between `<tag>` and `</tag>`; bounded like a line.

    A record of which a line cannot be read is left out, as that line was reported.
    """
    start, end = re.compile(_opening(tag), re.I), re.compile(rf"</{tag}\s*>", re.I)
    where: Place | None = None
    held: list[str] | None = None
    size = 0
    for place, line in all_lines(path, problems):
        rest = line or ""
        if where is not None and start.match(rest.lstrip()):
            if held is not None:
                raise DataError(where, f"<{tag}> without </{tag}>", "close the record")
            where = None
        if line is None:
            held = None
        while rest:
            if where is None:
                opening = start.search(rest)
                _report_outside(rest[: opening.start()] if opening else rest, tag, place, problems)
                if opening is None:
                    break
                where, held, size, rest = place, [], 0, rest[opening.end() :]
            closing = end.search(rest)
            size += len(rest)
            if size > MAX_LINE_BYTES:
                raise DataError(
                    where, f"<{tag}> is longer than {MAX_LINE_BYTES}", "close the record"
                )
            if held is not None:
                held.append(rest[: closing.start()] if closing else rest)
            if closing is None:
                break
            if held is not None:
                yield where, "\n".join(held)
            where, rest = None, rest[closing.end() :]
    if where is not None and held is not None:
        raise DataError(where, f"<{tag}> without </{tag}>", "the file is cut off; fetch it again")


def _opening(name: str) -> str:
    return rf"<{name}(?:\s[^>]*)?>"


def _report_outside(text: str, tag: str, where: Place, problems: Problems) -> None:
    """Report what stands between records, other than comments and tags of elements around them."""
    known = {tag.upper(), *FIELDS[tag]}

    def without_tag(found: re.Match[str]) -> str:
        return found[0] if (found[1] or "").upper() in known else ""

    text = AROUND.sub(without_tag, text).strip()
    if text:
        problems.found(
            f"text outside <{tag}> records",
            where,
            f"{text[:60]!r} stands outside <{tag}> and </{tag}>",
            "put it into a record or take it out",
        )


def _field(record: str, tag: str, *names: str) -> str | None:
    """The text of the first field of any of `names`, up to its end tag or the next field."""
    fields = "|".join(map(_opening, FIELDS[tag]))
    for name in names:
        pattern = rf"{_opening(name)}(.*?)(?=</{name}\s*>|{fields}|\Z)"
        if found := re.search(pattern, record, re.I | re.S):
            return html.unescape(TAG.sub(" ", found[1])).strip()
    return None


def read_documents(path: Path, problems: Problems) -> Iterator[Passage]:
    """Read `<DOC>` records."""
    for where, record in _records(path, "DOC", problems):
        number = _field(record, "DOC", "DOCNO")
        texts = re.findall(rf"{_opening('TEXT')}(.*?)(?:</TEXT\s*>|\Z)", record, re.I | re.S)
        if not number:
            problems.found("no DOCNO", where, "<DOC> without <DOCNO>", "add it")
            continue
        text = html.unescape(" ".join(TAG.sub(" ", one).strip() for one in texts))
        yield Passage(number, _field(record, "DOC", "TITLE", "HEADLINE") or "", text, where)


def read_topics(path: Path, split: Split, problems: Problems) -> Iterator[Query]:
    """Read topics as `id, text` lines or as `<top>` records, told apart by the first character."""
    _, first = next(lines(path, problems.repeated()), (None, ""))
    if not first.lstrip().startswith("<"):
        yield from read_queries(path, split, problems)
        return
    for where, record in _records(path, "top", problems):
        number, title = _field(record, "top", "num"), _field(record, "top", "title")
        if not number or not title:
            missing = "title" if number else "num"
            problems.found(f"no {missing}", where, f"<top> without <{missing}>", "add it")
            continue
        number = NUMBER_LABEL.sub("", number)
        yield Query(number.strip(), TITLE_LABEL.sub("", title), split, where)
