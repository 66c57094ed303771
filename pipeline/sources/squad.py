"""SQuAD JSON: articles of paragraphs with questions; the paragraph is the question's one positive.

A SQuAD file is some tens of megabytes and is parsed whole. A place is a file and the number of the
article. Questions that their paragraph does not answer (version 2) are left out and counted; their
paragraphs stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from typing_extensions import override

from pipeline.sources.content import passage_id_of
from pipeline.sources.id_index import SeenIds
from pipeline.sources.json_rows import (
    JsonObject,
    json_document,
    objects_of,
    text_of,
)
from pipeline.sources.lines import parsed
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


class _Article(NamedTuple):
    split: Split
    place: Place
    title: str
    paragraphs: list[tuple[str, list[_Question]]]
    impossible: int


class SquadSource(Source):
    """Reads the layout of `SquadParams`."""

    def __init__(self, params: SquadParams, problems: Problems) -> None:
        super().__init__(problems)
        self._params = params
        self._impossible = 0

    @override
    def passages(self) -> Iterator[Passage]:
        def read() -> Iterator[tuple[str, Passage]]:
            for article in self._articles(self.problems):
                self._impossible += article.impossible
                for text, _ in article.paragraphs:
                    passage_id = passage_id_of(article.title, text)
                    yield passage_id, Passage(passage_id, article.title, text, article.place)

        return SeenIds().first_times(read())

    @override
    def queries(self) -> Iterator[Query]:
        for article, _, question in self._questions():
            yield Query(question.query_id, question.text, article.split, article.place)
        for path in self._params.paths_of("unlabelled_queries"):
            yield from read_queries(path, "unlabelled", self.problems)

    @override
    def judgements(self) -> Iterator[Judgement]:
        for article, text, question in self._questions():
            passage_id = passage_id_of(article.title, text)
            yield Judgement(question.query_id, passage_id, 1, article.place)

    @override
    def answers(self) -> Iterator[Answers]:
        for article, _, question in self._questions():
            yield Answers(question.query_id, question.answers, article.place)

    @override
    def counts(self) -> Mapping[str, int]:
        return {"questions without an answer": self._impossible}

    def _questions(self) -> Iterator[tuple[_Article, str, _Question]]:
        for article in self._articles(self.problems.repeated()):
            for text, questions in article.paragraphs:
                for question in questions:
                    yield article, text, question

    def _articles(self, problems: Problems) -> Iterator[_Article]:
        for split, path in self._params.splits_of("examples"):

            def article(where: Place, row: JsonObject, split: Split = split) -> _Article:
                return _article(where, row, split)

            yield from parsed(_rows(path), article, problems)


def _rows(path: Path) -> Iterator[tuple[Place, JsonObject]]:
    document = json_document(path)
    articles = document.get("data") if isinstance(document, dict) else None
    if not isinstance(articles, list) or not all(isinstance(one, dict) for one in articles):
        raise DataError(Place(str(path), 0), "no list of articles under 'data'", "give SQuAD JSON")
    for number, one in enumerate(articles, start=1):
        yield Place(str(path), number), one


def _article(where: Place, row: JsonObject, split: Split) -> _Article:
    title = text_of(row, "title", default="").replace("_", " ")
    paragraphs = []
    impossible = 0
    for paragraph in objects_of(row, "paragraphs", required=True):
        questions = []
        for question in objects_of(paragraph, "qas", required=True):
            if question.get("is_impossible"):
                impossible += 1
            else:
                questions.append(_question(question))
        paragraphs.append((text_of(paragraph, "context"), questions))
    return _Article(split, where, title, paragraphs, impossible)


def _question(row: JsonObject) -> _Question:
    answers = [text_of(answer, "text") for answer in objects_of(row, "answers")]
    return _Question(text_of(row, "id"), text_of(row, "question"), tuple(dict.fromkeys(answers)))
