"""SQuAD JSON: articles of paragraphs with questions; the paragraph is the question's one positive.

A SQuAD file is some tens of megabytes and is parsed whole. A place is a file and the number of the
article. Questions that their paragraph does not answer (version 2) are left out and counted; their
paragraphs stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from typing_extensions import override

from pipeline.sources.content import passage_id_of
from pipeline.sources.id_index import SeenIds
from pipeline.sources.json_rows import JsonObject, json_document, list_of, objects_of, text_of
from pipeline.sources.lines import BadRow, parsed
from pipeline.sources.msmarco_passage import read_queries
from pipeline.sources.parameters import SquadParams
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


class _Question(NamedTuple):
    query_id: str
    text: str
    answers: tuple[str, ...]


class _Paragraph(NamedTuple):
    split: Split
    place: Place
    title: str
    text: str
    questions: list[_Question]
    impossible: int

    def passage_id(self) -> str:
        return passage_id_of(self.title, self.text)


class SquadSource(Source):
    """Reads the layout of `SquadParams`."""

    def __init__(self, params: SquadParams, problems: Problems) -> None:
        super().__init__(problems)
        self._params = params
        self._impossible = 0

    @override
    def passages(self) -> Iterator[Passage]:
        def read() -> Iterator[tuple[str, Passage]]:
            for one in self._paragraphs(self.problems):
                self._impossible += one.impossible
                yield one.passage_id(), Passage(one.passage_id(), one.title, one.text, one.place)

        return SeenIds().first_times(read())

    @override
    def queries(self) -> Iterator[Query]:
        for paragraph, question in self._questions():
            yield Query(question.query_id, question.text, paragraph.split, paragraph.place)
        for path in self._params.paths_of("unlabelled_queries"):
            yield from read_queries(path, "unlabelled", self.problems)

    @override
    def judgements(self) -> Iterator[Judgement]:
        for one, question in self._questions():
            yield Judgement(question.query_id, one.passage_id(), 1, one.place, one.split)

    @override
    def answers(self) -> Iterator[Answers]:
        for one, question in self._questions():
            yield Answers(question.query_id, question.answers, one.place, one.split)

    @override
    def counts(self) -> Mapping[str, int]:
        return {"questions without an answer": self._impossible}

    def _questions(self) -> Iterator[tuple[_Paragraph, _Question]]:
        for paragraph in self._paragraphs(self.problems.repeated()):
            for question in paragraph.questions:
                yield paragraph, question

    def _paragraphs(self, problems: Problems) -> Iterator[_Paragraph]:
        for split, path in self._params.splits_of("examples"):
            for where, article in _articles(path):
                paragraphs = parsed([(where, article)], _paragraphs_of, problems)
                for row in chain.from_iterable(paragraphs):
                    yield from _paragraph(where, article, row, split, problems)


def _articles(path: Path) -> Iterator[tuple[Place, JsonObject]]:
    document = json_document(path)
    articles = document.get("data") if isinstance(document, dict) else None
    if not isinstance(articles, list) or not all(isinstance(one, dict) for one in articles):
        raise DataError(Place(str(path), 0), "no list of articles under 'data'", "give SQuAD JSON")
    for number, one in enumerate(articles, start=1):
        # In place of the line, which would take a number for one.
        yield Place(f"{path}, article {number}", 0), one


def _paragraphs_of(where: Place, article: JsonObject) -> list[Any]:
    return list_of(article, "paragraphs", required=True)


def _paragraph(
    where: Place, article: JsonObject, row: Any, split: Split, problems: Problems
) -> Iterator[_Paragraph]:
    """The paragraph of a row, if it is good; a bad one takes its questions with it."""
    rows = _questions_of(row)
    try:
        title = text_of(article, "title", default="").replace("_", " ")
        text = text_of(_object(row, "paragraph"), "context")
        list_of(row, "qas", required=True)
    except BadRow as bad:
        problems.found(bad.reason, where, bad.what, bad.advice)
        for _ in rows:
            problems.found("question of a bad paragraph", where, bad.what, bad.advice)
        return
    possible = [one for one in rows if not (isinstance(one, dict) and one.get("is_impossible"))]
    questions = parsed(((where, one) for one in possible), _question, problems)
    impossible = len(rows) - len(possible)
    yield _Paragraph(split, where, title, text, list(questions), impossible)


def _questions_of(paragraph: Any) -> list[Any]:
    questions = paragraph.get("qas") if isinstance(paragraph, dict) else None
    return questions if isinstance(questions, list) else []


def _question(where: Place, row: Any) -> _Question:
    row = _object(row, "question")
    answers = [text_of(answer, "text") for answer in objects_of(row, "answers")]
    return _Question(text_of(row, "id"), text_of(row, "question"), tuple(dict.fromkeys(answers)))


def _object(row: Any, what: str) -> JsonObject:
    if not isinstance(row, dict):
        raise BadRow(f"{what} is no object", f"a {what} is {row!r:.60}", "use JSON objects")
    return row
