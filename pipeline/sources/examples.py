"""Formats whose records are training examples: a query with the passages that belong to it inside.

`ExampleSource` turns such records into the streams of a `Source`. Since nothing but ids and hashes
is kept in memory, each stream reads the files once more. Passages and queries without an id get one
from their text, so that equal ones become one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from typing_extensions import override

from pipeline.sources.content import (
    clean,
    clean_title,
    content_digest,
    passage_id_of,
    query_id_of,
)
from pipeline.sources.id_index import UNKNOWN, IdIndex, SeenIds
from pipeline.sources.msmarco_passage import read_queries
from pipeline.sources.parameters import FolderParams
from pipeline.sources.records import (
    Answers,
    Judgement,
    Pair,
    Passage,
    Place,
    Problems,
    Query,
    Source,
    Split,
    training_last,
)

BLOCK = 8192


class Context(NamedTuple):
    """A passage inside an example; `passage_id` is None where it has none of its own."""

    title: str
    text: str
    passage_id: str | None = None


class Example(NamedTuple):
    """A query with its passages; `query_id` is None where it has none of its own."""

    query_id: str | None
    text: str
    split: Split
    place: Place
    positives: tuple[Context, ...] = ()
    negatives: tuple[Context, ...] = ()
    excluded: tuple[Context, ...] = ()
    answers: tuple[str, ...] = ()

    def id(self) -> str:
        """The query's own id, or one derived from its text."""
        return query_id_of(self.text) if self.query_id is None else self.query_id


ExampleReader: TypeAlias = Callable[[Path, Split, Problems], Iterator[Example]]


def read_fields(
    params: FolderParams, readers: Mapping[str, ExampleReader], problems: Problems
) -> Iterator[Example]:
    """The examples of the files of several fields, each read by its field's reader, training last.

    Args:
        params: where the files are.
        readers: field of split -> names, with what reads its files.
        problems: told about bad rows.
    """
    files = [
        (split, path, reader)
        for field, reader in readers.items()
        for split, path in params.splits_of(field)
    ]
    for split, path, reader in sorted(files, key=lambda file: training_last(file[0])):
        yield from reader(path, split, problems)


class ExampleSource(Source):
    """A source of examples, with or without a corpus beside them.

    With a corpus, contexts are looked up in it: by id where they have one, else by title and text.
    Without, the contexts are the passages.
    """

    def __init__(self, problems: Problems, unlabelled: Sequence[Path] = ()) -> None:
        """Read examples, and queries without labels from files of `id, text` lines."""
        super().__init__(problems)
        self._unlabelled = unlabelled
        self._by_text = TextIndex()

    @abstractmethod
    def examples(self, problems: Problems) -> Iterator[Example]:
        """All examples of all splits, reporting bad rows to `problems`."""

    def corpus(self) -> Iterable[Passage] | None:
        """The passages beside the examples, if there are any."""
        return None

    def needs_texts(self) -> bool:
        """Whether contexts must be looked up in the corpus by their text."""
        return False

    @override
    def passages(self) -> Iterator[Passage]:
        corpus = self.corpus()
        if corpus is None:
            return SeenIds().first_times(self._inner_passages(self.problems))
        return self._by_text.watch(corpus) if self.needs_texts() else iter(corpus)

    def _inner_passages(self, problems: Problems) -> Iterator[tuple[str, Passage]]:
        for example in self.examples(problems):
            for title, text, own in (*example.positives, *example.negatives, *example.excluded):
                derived = passage_id_of(title, text)
                passage_id = derived if own is None else own
                # Another text under one id is another passage, for `assemble` to find out.
                yield f"{passage_id}\t{derived}", Passage(passage_id, title, text, example.place)

    @override
    def queries(self) -> Iterator[Query]:
        # With a corpus this is the first stream that reads the examples, so it counts the bad rows.
        problems = self.problems if self.corpus() is not None else self.problems.repeated()

        def named() -> Iterator[tuple[str, Query]]:
            for example in self.examples(problems):
                query = Query(example.id(), example.text, example.split, example.place)
                # Another text or split under one id is another query, for `assemble` to find out.
                yield f"{query.split}\t{query.query_id}\t{clean(query.text)}", query

        yield from SeenIds().first_times(named())
        for path in self._unlabelled:
            yield from read_queries(path, "unlabelled", self.problems)

    @override
    def judgements(self) -> Iterator[Judgement]:
        for example in self.examples(self.problems.repeated()):
            for context in example.positives:
                if (passage_id := self._id_of(context, example.place)) is not None:
                    yield Judgement(example.id(), passage_id, 1, example.place, example.split)

    @override
    def negatives(self) -> Iterator[Pair]:
        return self._pairs("negatives")

    @override
    def excluded(self) -> Iterator[Pair]:
        return self._pairs("excluded")

    def _pairs(self, role: str) -> Iterator[Pair]:
        for example in self.examples(self.problems.repeated()):
            for context in getattr(example, role):
                if (passage_id := self._id_of(context, example.place)) is not None:
                    yield Pair(example.id(), passage_id, example.place, example.split)

    @override
    def answers(self) -> Iterator[Answers]:
        for example in self.examples(self.problems.repeated()):
            if example.answers:
                yield Answers(example.id(), example.answers, example.place, example.split)

    def _id_of(self, context: Context, where: Place) -> str | None:
        if context.passage_id is not None:
            return context.passage_id
        if not self.needs_texts():
            return passage_id_of(context.title, context.text)
        found = self._by_text.find(context.title, context.text)
        if found is None:
            self.problems.found(
                "passage not in the corpus",
                where,
                f"no passage of the corpus reads {clean(context.text)[:60]!r}",
                "give the corpus these lines were made from, or none to take theirs",
            )
        return found


class TextIndex:
    """Finds a passage's id by its title and text, with 16 bytes and the id itself per passage."""

    def __init__(self) -> None:
        self._index = IdIndex()
        self._ids: list[Any] = []

    def watch(self, passages: Iterable[Passage]) -> Iterator[Passage]:
        """Pass passages on and remember them; among equal ones the first is found."""
        block: list[Passage] = []
        for passage in passages:
            block.append(passage)
            yield passage
            if len(block) == BLOCK:
                self._add(block)
                block = []
        self._add(block)

    def _add(self, block: list[Passage]) -> None:
        import pyarrow as pa

        new = self._index.add([_text_key(passage.title, passage.text) for passage in block])
        ids = [passage.passage_id for passage, fresh in zip(block, new, strict=True) if fresh]
        self._ids.append(pa.array(ids, pa.string()))

    def find(self, title: str, text: str) -> str | None:
        """The id of the passage with this title and text, or None."""
        row = int(self._index.find([_text_key(title, text)])[0])
        return None if row == UNKNOWN else self._id_at(row)

    def _id_at(self, row: int) -> str:
        import pyarrow as pa

        if len(self._ids) > 1:
            self._ids = [pa.concat_arrays(self._ids)]
        return str(self._ids[0][row])


def _text_key(title: str, text: str) -> bytes:
    return content_digest(clean_title(title), clean(text))
