"""From a docstring as written to a summary sentence and a body that reads as plain text."""

from __future__ import annotations

import re
from typing import NamedTuple

from pipeline.sources.content import clean

# Filled in while a library is imported: `%(params)s`, or `{klass}` alone on a line.
_PLACEHOLDER = re.compile(r"%\(\w+\)[sdr]|^\s*\{\w+\}\s*$", re.MULTILINE)
_RULE = re.compile(r"[=\-~^*#+_|:\s]{3,}")
_SIGNATURE = re.compile(r"[\w.]+\(.*\)(\s*(->|=>|=|:)\s*\S.*)?")
_NEW_BLOCK = re.compile(r":\w|@\w|[-*+•]\s|\d+[.)]\s|>>>|\.\.\s|Args:|Arguments:")
_SECTION = re.compile(
    r"(?:Parameters|Returns|Yields|Raises|Attributes|Methods|Notes?|Examples?|See Also|References|"
    r"Arguments|Args|Usage|Warnings?):?"
)
_EXAMPLES = re.compile(r"^[ \t]*>>>.*(?:\n[ \t]*\S.*)*", re.MULTILINE)
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[`]*[A-Z0-9_`:])")
_ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|cf|vs|etc|resp|approx|fig|eqs?)\.$", re.IGNORECASE)
_MARKUP = (
    (re.compile(r"^\.\. (?:versionadded|versionchanged|deprecated)::.*$", re.MULTILINE), ""),
    (re.compile(r"^(\s*)\.\. (\w[\w-]*)::", re.MULTILINE), r"\1\2:"),
    (re.compile(r"^\s*\.\. (?=\[)", re.MULTILINE), ""),
    (re.compile(r"::[ \t]*$", re.MULTILINE), ":"),
    (re.compile(r"\s?\[\w+\]_(?!\w)"), ""),
    (re.compile(r":[a-zA-Z][\w:+-]*:`"), "`"),
    (re.compile(r"`+~?([^`]*)`+_*"), r"\1"),
)
_WORD = re.compile(r"\w+")


class Parts(NamedTuple):
    """A docstring's summary sentence and the rest of it, each on one line."""

    summary: str
    body: str


def has_placeholder(docstring: str) -> bool:
    """Whether the docstring is a template that only importing its library would fill."""
    return _PLACEHOLDER.search(docstring) is not None


def split_docstring(docstring: str) -> Parts:
    """Part a docstring into its summary sentence and its body.

    A leading signature and the rules under headings are left out. The summary is the first sentence
    of the first paragraph, empty where the docstring starts with a section such as `Parameters`;
    the body is all that follows.
    """
    lines = _without_signature(
        [line for line in docstring.splitlines() if not line.strip() or not _RULE.fullmatch(line)]
    )
    end = _paragraph_end(lines)
    paragraph = plain_text("\n".join(lines[:end]))
    cut = _sentence_end(paragraph)
    rest = plain_text("\n".join(lines[end:]))
    return Parts(paragraph[:cut].strip(), f"{paragraph[cut:].strip()} {rest}".strip())


def without_examples(docstring: str) -> str:
    """The docstring without its interactive sessions (from `>>>` to the next blank line)."""
    return _EXAMPLES.sub("", docstring)


def plain_text(text: str) -> str:
    """The text on one line, without reStructuredText's markup and what UTF-8 cannot hold."""
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return clean(" ".join(text.encode("utf-8", "replace").decode().split()))


def count_words(text: str) -> int:
    """Number of words, punctuation not counted."""
    return len(_WORD.findall(text))


def sentences(text: str) -> list[str]:
    """The sentences of a text on one line."""
    found = []
    while text:
        cut = _sentence_end(text)
        found.append(text[:cut].strip())
        text = text[cut:]
    return found


def _without_signature(lines: list[str]) -> list[str]:
    # Compiled functions carry their signature up to a line `--`, older ones on their first line.
    head = [line.strip() for line in lines]
    if "--" in head[:40]:
        return _without_signature(lines[head.index("--") + 1 :])
    start = 0
    while start < len(lines) and (not head[start] or _SIGNATURE.fullmatch(head[start])):
        start += 1
    return lines[start:]


def _paragraph_end(lines: list[str]) -> int:
    if lines and _SECTION.fullmatch(lines[0].strip()):
        return 0
    for number, line in enumerate(lines):
        if not line.strip() or (number and _NEW_BLOCK.match(line.strip())):
            return number
    return len(lines)


def _sentence_end(paragraph: str) -> int:
    for match in _SENTENCE_END.finditer(paragraph):
        if not _ABBREVIATION.search(paragraph[: match.start()]):
            return match.end()
    return len(paragraph)
