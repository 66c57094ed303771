"""Query-passage pairs with their ids resolved to row numbers, in flat arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from pipeline.sources.id_index import UNKNOWN, IdIndex
from pipeline.sources.known_texts import KnownTexts
from pipeline.sources.records import SPLITS, Answers, Pair, Place, Split

BLOCK = 65536
Ints: TypeAlias = npt.NDArray[np.int64]
Drop: TypeAlias = Callable[[str, Place, str, str], None]
"""Reports a row that is left out: reason, place, what is wrong, advice."""


class LabelledPair(NamedTuple):
    """A pair as read: the ids, a value (a judgement's relevance) and its place."""

    query_id: str
    passage_id: str
    value: int
    place: Place
    split: Split | None = None


def labelled(pairs: Iterable[Pair]) -> Iterator[LabelledPair]:
    """Pairs without a value of their own, with the value 1."""
    return (LabelledPair(one.query_id, one.passage_id, 1, one.place, one.split) for one in pairs)


@dataclass(frozen=True)
class Pairs:
    """Resolved pairs, one per entry of the equally long arrays.

    Attributes:
        query: row of the query.
        passage: row of the passage.
        value: for instance the relevance.
        line: line number, and `file` the position in `files`.
    """

    query: Ints
    passage: Ints
    value: Ints
    line: Ints
    file: Ints
    files: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.query)

    def place(self, at: int) -> Place:
        """Where entry `at` was read."""
        return Place(self.files[int(self.file[at])], int(self.line[at]))

    def take(self, chosen: npt.NDArray[np.bool_] | Ints) -> Pairs:
        """The chosen entries (mask or positions)."""
        return replace(
            self,
            query=self.query[chosen],
            passage=self.passage[chosen],
            value=self.value[chosen],
            line=self.line[chosen],
            file=self.file[chosen],
        )

    def with_queries(self, query: Ints) -> Pairs:
        """The same pairs under other query rows."""
        return replace(self, query=query)

    def with_value(self, value: int) -> Pairs:
        """The same pairs, all with one value."""
        return replace(self, value=np.full(len(self), value, dtype=np.int64))

    def keys(self) -> Ints:
        """One number per (query, passage)."""
        return (self.query << 32) | self.passage

    def ordered(self) -> Pairs:
        """By query, within a query as read (which may be a ranking)."""
        return self.take(np.argsort(self.query, kind="stable"))


def resolve(
    what: str,
    rows: Iterable[LabelledPair],
    queries: IdIndex,
    splits: Ints,
    passages: IdIndex,
    drop: Drop,
) -> Pairs:
    """Look up the ids of pairs, dropping those that point nowhere or not to what they mean.

    Args:
        what: how messages call such a pair.
        rows: the pairs as read.
        queries: the queries' ids.
        splits: the queries' splits, as positions in `SPLITS`.
        passages: the passages' ids.
        drop: told about pairs that are left out.
    """
    rows = iter(rows)
    files: dict[str, int] = {}
    blocks = [np.zeros((0, 5), dtype=np.int64)]
    while block := list(islice(rows, BLOCK)):
        query = queries.find([row.query_id for row in block])
        passage = passages.find([row.passage_id for row in block])
        good = (query != UNKNOWN) & (passage != UNKNOWN)
        for at in np.flatnonzero(~good):
            _drop_dangling(what, block[at], bool(query[at] == UNKNOWN), drop)
        for at in np.flatnonzero(good):
            good[at] = fits_split(what, block[at], int(splits[query[at]]), drop)
        kept = [row for row, fine in zip(block, good, strict=True) if fine]
        values = [
            (row.value, row.place.line, files.setdefault(row.place.file, len(files)))
            for row in kept
        ]
        columns = np.array(values, dtype=np.int64).reshape(len(kept), 3)
        blocks.append(np.column_stack([query[good], passage[good], columns]))
    table = np.concatenate(blocks)
    return Pairs(table[:, 0], table[:, 1], table[:, 2], table[:, 3], table[:, 4], tuple(files))


def _drop_dangling(what: str, row: LabelledPair, query_is_unknown: bool, drop: Drop) -> None:
    kind, one = ("query", row.query_id) if query_is_unknown else ("passage", row.passage_id)
    drop(
        f"{what} of an unknown {kind}",
        row.place,
        f"{what} of {kind} '{one}', which does not exist",
        "check that the files belong together",
    )


def fits_split(what: str, row: LabelledPair | Answers, split: int, drop: Drop) -> bool:
    """Whether a row came with data of its query's split; if not, it is dropped.

    Ids may begin anew in each split, and a query in two splits stays in the evaluated one. A row of
    another split is then about another query, or would carry training labels into an evaluation.
    """
    if row.split is None or row.split == SPLITS[split]:
        return True
    drop(
        f"{what} of another split",
        row.place,
        f"{what} for the split '{row.split}' of query '{row.query_id}', whose split is "
        f"'{SPLITS[split]}'",
        "keep a query and all that refers to it in the files of one split",
    )
    return False


def drop_ambiguous(what: str, pairs: Pairs, passages: KnownTexts, drop: Drop) -> Pairs:
    """The pairs without those of passages with two texts, of which nobody knows which is meant."""
    ambiguous = of_two_texts(pairs, passages)
    for at in np.flatnonzero(ambiguous):
        drop(
            f"{what} of a passage with two texts",
            pairs.place(int(at)),
            f"{what} of a passage whose id has two texts",
            "give each text an id of its own",
        )
    return pairs.take(~ambiguous)


def of_two_texts(pairs: Pairs, passages: KnownTexts) -> npt.NDArray[np.bool_]:
    """Which pairs are of a passage whose id came with more than one text."""
    return np.isin(pairs.passage, sorted(passages.conflicting))


def joined(pairs: Pairs, others: Pairs) -> Pairs:
    """`pairs`, and after them `others`."""
    return Pairs(
        np.concatenate([pairs.query, others.query]),
        np.concatenate([pairs.passage, others.passage]),
        np.concatenate([pairs.value, others.value]),
        np.concatenate([pairs.line, others.line]),
        np.concatenate([pairs.file, others.file + len(pairs.files)]),
        (*pairs.files, *others.files),
    )


def merge_repeated(what: str, pairs: Pairs, drop: Drop) -> tuple[Pairs, int]:
    """Keep the first of equal pairs, in the order read; conflicting values are dropped as a
    problem.

    Returns:
        The distinct pairs and how many agreed with an earlier one.
    """
    _, first, group = np.unique(pairs.keys(), return_index=True, return_inverse=True)
    conflicting = pairs.value != pairs.value[first[group]]
    for at in np.flatnonzero(conflicting):
        drop(
            f"conflicting {what}",
            pairs.place(int(at)),
            f"{what} {pairs.value[at]}, which elsewhere is {pairs.value[first[group[at]]]}",
            "keep one of them",
        )
    agreeing = len(pairs) - len(first) - int(conflicting.sum())
    return pairs.take(np.sort(first)), agreeing


def without(pairs: Pairs, others: Pairs) -> tuple[Pairs, int]:
    """`pairs` that are not in `others`, and how many were."""
    known = np.isin(pairs.keys(), others.keys())
    return pairs.take(~known), int(known.sum())


def columns_of(pairs: Pairs, value: str | None = None) -> Mapping[str, npt.NDArray[np.int32]]:
    """The pairs as int32 columns, with the value under the name `value`."""
    columns = {
        "query_index": pairs.query.astype(np.int32),
        "passage_index": pairs.passage.astype(np.int32),
    }
    return columns if value is None else columns | {value: pairs.value.astype(np.int32)}


def group_by_query(pairs: Pairs, count: int) -> Iterator[Ints]:
    """For each of `count` queries, the passages of its pairs."""
    ordered = pairs.ordered()
    bounds = np.searchsorted(ordered.query, np.arange(count + 1))
    for start, end in pairwise(bounds):
        yield ordered.passage[start:end]
