"""RocketQA's own files: a corpus of passages and titles with judgements, or training lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from typing_extensions import override

from pipeline.sources.examples import Context, Example, ExampleSource, read_fields
from pipeline.sources.lines import BadRow, lines, parsed, tsv
from pipeline.sources.msmarco_passage import MsMarcoPassageSource, read_collection
from pipeline.sources.parameters import RocketqaLinesParams, RocketqaParams
from pipeline.sources.records import Answers, Passage, Place, Problems, Split

DUAL_COLUMNS = [
    "query",
    "title of a positive",
    "positive",
    "title of a negative",
    "negative",
    "0",
]
CROSS_COLUMNS = ["query", "title", "passage", "label"]


class RocketqaSource(MsMarcoPassageSource):
    """Reads the layout of `RocketqaParams`; it is MS MARCO's, with answers."""

    def __init__(self, params: RocketqaParams, problems: Problems) -> None:
        super().__init__(params, problems)
        self._answer_files = params.splits_of("answers")

    def answers(self) -> Iterator[Answers]:
        """Lines of a query id and one answer per further column."""
        for split, path in self._answer_files:
            for where, line in lines(path, self.problems):
                query_id, *answers = line.split("\t")
                given = tuple(answer for answer in answers if answer)
                yield Answers(query_id, given, where, split)


class RocketqaLinesSource(ExampleSource):
    """Reads the training lines of `RocketqaLinesParams`."""

    def __init__(self, params: RocketqaLinesParams, problems: Problems) -> None:
        super().__init__(problems, params.paths_of("unlabelled_queries"))
        self._params = params

    @override
    def corpus(self) -> Iterable[Passage] | None:
        params = self._params
        if not params.corpus:
            return None
        titles = params.required("titles") if params.titles else None
        return read_collection(params.required("corpus"), titles, self.problems)

    @override
    def needs_texts(self) -> bool:
        return self._params.corpus is not None

    @override
    def examples(self, problems: Problems) -> Iterator[Example]:
        readers = {"dual": read_dual_lines, "cross": read_cross_lines}
        return read_fields(self._params, readers, problems)


def read_dual_lines(path: Path, split: Split, problems: Problems) -> Iterator[Example]:
    """Read training lines of a dual encoder; the last column carries nothing."""
    for where, row in tsv(path, DUAL_COLUMNS, problems):
        query, positive_title, positive, negative_title, negative, _ = row
        yield Example(
            None,
            query,
            split,
            where,
            positives=(Context(positive_title, positive),),
            negatives=(Context(negative_title, negative),),
        )


def read_cross_lines(path: Path, split: Split, problems: Problems) -> Iterator[Example]:
    """Read training lines of a cross-encoder; label 1 is a positive, 0 a negative."""

    def example(where: Place, row: list[str]) -> Example:
        query, title, text, label = row
        if label not in ("0", "1"):
            raise BadRow("label is not 0 or 1", f"label is {label[:40]!r}", "write 0 or 1")
        context = (Context(title, text),)
        if label == "1":
            return Example(None, query, split, where, positives=context)
        return Example(None, query, split, where, negatives=context)

    return parsed(tsv(path, CROSS_COLUMNS, problems), example, problems)
