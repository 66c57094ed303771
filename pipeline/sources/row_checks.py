"""Which passages and queries of a source can be used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from pipeline.sources.content import query_id_of
from pipeline.sources.known_texts import KnownTexts
from pipeline.sources.records import Passage, Place, Problems, Query

Row = TypeVar("Row", Passage, Query)


class RowChecks:
    """Checks ids and texts of rows, and reports those that have to be left out.

    Args:
        problems: where they are reported.

    Attributes:
        refused: rows left out by `drop`.
    """

    def __init__(self, problems: Problems) -> None:
        self.refused = 0
        self._problems = problems

    def drop(self, reason: str, where: Place, what: str, advice: str) -> None:
        """Report a row that is left out, see `Problems.found`."""
        self._problems.found(reason, where, what, advice)
        self.refused += 1

    def usable(self, what: str, own_id: str, text: str, where: Place) -> bool:
        """Whether a row has a good id and text; a bad one is dropped.

        Args:
            what: `passage` or `query`.
            own_id: its id.
            text: its clean text, a passage's with its title.
            where: its place.
        """
        if not own_id.strip():
            self.drop(f"{what} without an id", where, "the id is empty", "give every row an id")
        elif own_id.split() != [own_id]:
            self.drop(
                f"{what} id with white space",
                where,
                f"{what} id {own_id!r} holds white space, which separates columns in TREC files",
                "put another character in its place",
            )
        elif not text:
            self.drop(f"empty {what}", where, f"{what} '{own_id}' has no text", "take it out")
        elif not encodable(own_id) or not encodable(text):
            self.drop(
                f"{what} with lone surrogates",
                where,
                f"{what} '{own_id!a}' holds half a character (a lone surrogate)",
                "write the text as UTF-8 instead of \\u escapes",
            )
        else:
            return True
        return False

    def first_times(
        self, what: str, rows: Sequence[Row], ids: Sequence[str], known: KnownTexts
    ) -> list[Row]:
        """Those of usable rows whose id is new to `known`; the others are dropped."""
        titles = (row.title if isinstance(row, Passage) else "" for row in rows)
        texts = (f"{title}\t{row.text}" for title, row in zip(titles, rows, strict=True))
        repeated = known.add(ids, texts)
        for at, conflicting in repeated.items():
            self._drop_repeated(what, ids[at], rows[at], conflicting)
        return [row for at, row in enumerate(rows) if at not in repeated]

    def _drop_repeated(
        self, what: str, own_id: str, row: Passage | Query, conflicting: bool
    ) -> None:
        # An id that was made of a text tells a reader nothing.
        derived = own_id == query_id_of(row.text)
        name = f"{what} {row.text[:60]!r}" if derived else f"{what} id '{own_id}'"
        another = " with another text" if conflicting else ""
        # A passage, unlike a query, stays: it does no harm once its labels are left out.
        kind = "conflicting" if conflicting and isinstance(row, Query) else "repeated"
        self.drop(
            f"{kind} {what} id", row.place, f"{name} is used before{another}", "make ids unique"
        )


def encodable(text: str) -> bool:
    """Whether UTF-8 has all characters of the text; it has none for half a surrogate pair."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
