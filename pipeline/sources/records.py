"""The records a reader yields, the `Source` it implements, and how it says that data is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, get_args

Split: TypeAlias = Literal["train", "validation", "dev", "test", "unlabelled"]
LabelledSplit: TypeAlias = Literal["train", "validation", "dev", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
"""All splits, in the order in which a Dataset numbers their queries."""
LABELLED_SPLITS: tuple[LabelledSplit, ...] = get_args(LabelledSplit)
"""Those whose queries can have judgements."""


def training_last(split: Split) -> int:
    """A sort key for what is read: of a query in two splits the copy that is read first stays.

    Where bad rows are left out, it is then the training copy that goes.
    """
    return -SPLITS.index(split)


ProblemPolicy: TypeAlias = Literal["fail", "skip"]


class Place(NamedTuple):
    """Where a record was read: a file and a line (or row) of it, from 1; 0 for the whole."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


NOWHERE = Place("(generated)", 0)


class Passage(NamedTuple):
    """One passage; a title `-` or empty means that it has none."""

    passage_id: str
    title: str
    text: str
    place: Place = NOWHERE


class Query(NamedTuple):
    """One query and the split it belongs to."""

    query_id: str
    text: str
    split: Split
    place: Place = NOWHERE


class Judgement(NamedTuple):
    """A relevance label; 1 or more is relevant, 0 or less is judged and not relevant.

    Here and in the other records that refer to a query, `split` is that of the data they came with,
    for a query of another split is not the one they mean; None where the data do not tell.
    """

    query_id: str
    passage_id: str
    relevance: int
    place: Place = NOWHERE
    split: Split | None = None


class Answers(NamedTuple):
    """The short answers of a query."""

    query_id: str
    answers: tuple[str, ...]
    place: Place = NOWHERE
    split: Split | None = None


class Pair(NamedTuple):
    """A query and a passage: a given negative, an excluded passage or a hidden label."""

    query_id: str
    passage_id: str
    place: Place = NOWHERE
    split: Split | None = None


class DataError(ValueError):
    """Data that cannot be used as it is.

    Attributes:
        place: file and line.
        what: what is wrong there.
        advice: what to do about it.
    """

    def __init__(self, place: Place, what: str, advice: str) -> None:
        super().__init__(f"{place}: {what}; {advice}")
        self.place = place
        self.what = what
        self.advice = advice


class Problems:
    """What to do about rows that cannot be used: stop at the first, or leave them out and count.

    Args:
        policy: `fail` raises a `DataError` at the first bad row; `skip` counts bad rows by reason.

    Attributes:
        counts: reason -> rows left out.
    """

    def __init__(self, policy: ProblemPolicy = "fail") -> None:
        self.policy = policy
        self.counts: Counter[str] = Counter()

    def found(self, reason: str, place: Place, what: str, advice: str) -> None:
        """Report a bad row that the caller then leaves out.

        Args:
            reason: a few words without values, under which rows are counted.
            place: file and line of the row.
            what: the problem in this row, with its values.
            advice: what the user can do about it.

        Raises:
            DataError: where the policy is `fail`.
        """
        if self.policy == "fail":
            raise DataError(place, what, f"{advice}, or leave such rows out with on_problem: skip")
        self.counts[reason] += 1

    def repeated(self) -> Problems:
        """A copy for reading the same rows once more, whose counts go nowhere."""
        return Problems(self.policy)


class Source:
    """A collection that can be read as streams; a format overrides what it has.

    Every stream is opened once and read to its end, in the order of the methods here, so a reader
    may rely in a later stream on what an earlier one has seen. Nothing needs to be sorted. Ids,
    duplicate rows and dangling references are checked by `assemble`, not by readers.

    A reader that yields validation queries itself has its own division; otherwise `assemble` carves
    validation queries out of the training queries.

    Args:
        problems: where the reader reports rows that it cannot parse.

    Attributes:
        looked_for: the files that it reads or would read if they were there, for messages.
    """

    looked_for: Sequence[str] = ()

    def __init__(self, problems: Problems) -> None:
        self.problems = problems

    def passages(self) -> Iterator[Passage]:
        """All passages, each once."""
        return iter(())

    def queries(self) -> Iterator[Query]:
        """All queries of all splits, each once."""
        return iter(())

    def judgements(self) -> Iterator[Judgement]:
        """Relevance labels of queries that are not held back."""
        return iter(())

    def answers(self) -> Iterator[Answers]:
        """Short answers."""
        return iter(())

    def negatives(self) -> Iterator[Pair]:
        """Negatives that came with the data."""
        return iter(())

    def excluded(self) -> Iterator[Pair]:
        """Suspected positives beside the judgements, never to be drawn as negatives."""
        return iter(())

    def hidden(self) -> Iterator[Pair]:
        """Relevant passages of unlabelled queries, held back to measure pseudo-labels."""
        return iter(())

    def counts(self) -> Mapping[str, int]:
        """Numbers worth a line in the report, asked for after all streams were read."""
        return {}


def place(path: Path | str, line: int = 0) -> Place:
    """The place of a line of a file."""
    return Place(str(path), line)
