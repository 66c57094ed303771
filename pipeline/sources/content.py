"""What texts look like in a Dataset, and ids for texts that came without one."""

from __future__ import annotations

import hashlib
import re

CONTROL_RUN = re.compile(r"\s*[\x00-\x1f\x7f-\x9f\u2028\u2029]+\s*")
SPACES = re.compile(r"\s+")
MISSING_TITLE = "-"


def clean(text: str) -> str:
    """The text on one line: what a line-based format or a terminal would trip over is taken out.

    A control character (tab, line end, NUL, ...) with the white space around it becomes one space;
    white space at the ends goes. Everything else stays as it is: case, accents and Unicode
    normalisation form are the tokeniser's business, and answers must keep matching.
    """
    # `isprintable` also fails on harmless separators, but is far quicker than the search.
    if not text.isprintable():
        text = CONTROL_RUN.sub(" ", text)
    return text.strip()


def clean_title(title: str) -> str:
    """A clean title; `-`, the mark of a missing one in the RocketQA files, becomes empty."""
    title = clean(title)
    return "" if title == MISSING_TITLE else title


def without_spaces(text: str) -> str:
    """The text without any white space, for languages that do not write any."""
    return SPACES.sub("", text)


def content_digest(*texts: str) -> bytes:
    """16 bytes that identify a sequence of texts."""
    state = hashlib.blake2b(digest_size=16)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.digest()


def passage_id_of(title: str, text: str) -> str:
    """The id of a passage that has none: equal for equal clean title and text."""
    return f"p-{content_digest(clean_title(title), clean(text)).hex()}"


def query_id_of(text: str) -> str:
    """The id of a query that has none: equal for equal clean text."""
    return f"q-{content_digest(clean(text)).hex()}"
