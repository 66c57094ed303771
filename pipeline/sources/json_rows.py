"""JSON records: one object per line, or one large array of objects, read as a stream."""

from __future__ import annotations

import codecs
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.sources.lines import BadRow, lines, open_bytes
from pipeline.sources.records import DataError, Place, Problems

CHUNK_BYTES = 1 << 20
MAX_RECORD_CHARACTERS = 1 << 26
DECODER = json.JSONDecoder()
WHITESPACE = re.compile(r"[ \t\r\n]*")
JSON_ADVICE = "write one valid JSON object per record"
DAMAGE_ADVICE = "it is cut off, damaged or not UTF-8; fetch or convert it again"
# Python refuses to turn so many digits into a number, with a plain ValueError.
LONG_NUMBER = "a whole number with thousands of digits"
NUMBER_ADVICE = "write a text in place of the number"

JsonObject = Mapping[str, Any]


def jsonl(path: Path, problems: Problems) -> Iterator[tuple[Place, JsonObject]]:
    """Yield the objects of a JSON Lines file."""
    for where, line in lines(path, problems):
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            problems.found("not JSON", where, f"no valid JSON ({error})", JSON_ADVICE)
            continue
        except ValueError:
            problems.found("number too long", where, LONG_NUMBER, NUMBER_ADVICE)
            continue
        if not isinstance(row, dict):
            problems.found(
                "not a JSON object", where, f"a {type(row).__name__}, no object", JSON_ADVICE
            )
            continue
        yield where, row


class _Text:
    """A sliding window of decoded text over a byte stream, with line numbers."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path = path
        self.stream = stream
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.window = ""
        self.position = 0
        self.line = 1
        self.ended = False

    def place(self) -> Place:
        return Place(str(self.path), self.line)

    def grow(self, size: int) -> None:
        """Drop what was consumed and read up to `size` bytes more."""
        self.window = self.window[self.position :]
        self.position = 0
        try:
            data = self.stream.read(size)
            self.window += self.decoder.decode(data, final=not data)
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            line = self.line + self.window.count("\n") + _lines_before(error)
            raise DataError(
                Place(str(self.path), line),
                f"the file cannot be read any further ({error})",
                DAMAGE_ADVICE,
            ) from error
        self.ended = not data

    def advance(self, end: int) -> None:
        self.line += self.window.count("\n", self.position, end)
        self.position = end

    def peek(self) -> str:
        """The next character that is not white space, or an empty string at the end."""
        while True:
            match = WHITESPACE.match(self.window, self.position)
            self.advance(match.end() if match else self.position)
            if self.position < len(self.window) or self.ended:
                return self.window[self.position : self.position + 1]
            self.grow(CHUNK_BYTES)

    def expect(self, character: str, wanted: str, advice: str) -> None:
        """Pass over the next character, which must be this one."""
        if self.peek() != character:
            raise DataError(self.place(), wanted, advice)
        self.advance(self.position + 1)

    def items(self, closing: str) -> Iterator[Place]:
        """Stop before each of the items that commas separate, up to the end of the file."""
        separator = ""
        while (next_character := self.peek()) != closing:
            if separator and next_character != separator:
                raise DataError(self.place(), f"no `,` or `{closing}` after a record", JSON_ADVICE)
            self.advance(self.position + len(separator))
            separator = ","
            self.peek()
            yield self.place()
        self.advance(self.position + 1)
        if self.peek():
            raise DataError(
                self.place(),
                f"the file goes on behind the closing `{closing}`",
                "give one JSON value per file, and several files as a list",
            )


def _lines_before(error: Exception) -> int:
    """Line ends between the beginning of what could not be decoded and the bad byte."""
    if not isinstance(error, UnicodeDecodeError):
        return 0
    return error.object.count(b"\n", 0, error.start)


def json_array(path: Path, problems: Problems) -> Iterator[tuple[Place, JsonObject]]:
    """Yield the objects of a file that holds one JSON array, never holding more than one of them.

    Own code and not a streaming JSON library because those do not tell the line of a record.
    Broken syntax ends reading whatever the policy, since the next record cannot be found.

    Raises:
        DataError: no array, broken syntax, bad UTF-8, a damaged file.
    """
    with open_bytes(path) as stream:
        text = _Text(path, stream)
        text.expect("[", "no JSON array", "give a file of the form [{...}, {...}]")
        for where in text.items("]"):
            value = _decode_next(text)
            if isinstance(value, dict):
                yield where, value
            else:
                problems.found(
                    "not a JSON object", where, f"a {type(value).__name__}, no object", JSON_ADVICE
                )


def json_entries(path: Path) -> Iterator[tuple[Place, str, Any]]:
    """Yield the entries of a file that holds one JSON object, never holding more than one of them.

    Raises:
        DataError: no object, broken syntax, bad UTF-8, a damaged file.
    """
    with open_bytes(path) as stream:
        text = _Text(path, stream)
        text.expect("{", "no JSON object", 'give a file of the form {"...": ..., "...": ...}')
        for where in text.items("}"):
            name = _decode_next(text)
            if not isinstance(name, str):
                raise DataError(where, f"{name!r:.40} is no name", "write names as JSON strings")
            text.expect(":", "no `:` after a name", JSON_ADVICE)
            text.peek()
            yield where, name, _decode_next(text)


def _decode_next(text: _Text) -> Any:
    size = CHUNK_BYTES
    while True:
        try:
            value, end = DECODER.raw_decode(text.window, text.position)
            # A number that touches the window's end might go on behind it.
            if end < len(text.window) or text.ended:
                text.advance(end)
                return value
        except (json.JSONDecodeError, RecursionError) as error:
            if text.ended or len(text.window) - text.position > MAX_RECORD_CHARACTERS:
                raise DataError(text.place(), f"no valid JSON ({error})", JSON_ADVICE) from None
        except ValueError:
            raise DataError(text.place(), LONG_NUMBER, NUMBER_ADVICE) from None
        text.grow(size)
        # Doubling keeps the work of decoding a long record again linear in its length.
        size *= 2


def json_document(path: Path) -> Any:
    """Parse a whole JSON file in memory; for files of at most some hundred megabytes.

    Raises:
        DataError: it is not valid UTF-8 JSON.
    """
    with open_bytes(path) as stream:
        try:
            return json.loads(stream.read().decode("utf-8-sig"))
        except json.JSONDecodeError as error:
            raise DataError(
                Place(str(path), error.lineno), f"no valid JSON ({error.msg})", "mend the file"
            ) from None
        except (OSError, EOFError, zlib.error, UnicodeDecodeError, RecursionError) as error:
            line = 1 + _lines_before(error) if isinstance(error, UnicodeDecodeError) else 0
            raise DataError(
                Place(str(path), line), f"the file cannot be read ({error})", DAMAGE_ADVICE
            ) from error
        except ValueError:
            raise DataError(Place(str(path), 0), LONG_NUMBER, NUMBER_ADVICE) from None


def text_of(row: JsonObject, *names: str, default: str | None = None) -> str:
    """The text (or whole-number id, as text) under the first of `names` that the row has.

    Raises:
        BadRow: none is there and there is no default, or the value is of another type.
    """
    for name in names:
        value = row.get(name)
        if value is None:
            continue
        if isinstance(value, str):
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        raise BadRow(
            f"{name} is no text", f"{name!r} is a {type(value).__name__}", "write a JSON string"
        )
    if default is not None:
        return default
    wanted = " or ".join(repr(name) for name in names)
    raise BadRow(f"no {names[0]}", f"no {wanted} (found: {_keys(row)})", "add it")


def list_of(row: JsonObject, *names: str, required: bool = False) -> list[Any]:
    """The list under the first of `names` that the row has; empty where none is there.

    Raises:
        BadRow: the value is no list, or a required one is missing.
    """
    for name in names:
        value = row.get(name)
        if value is None:
            continue
        if not isinstance(value, list):
            raise BadRow(
                f"{name} is no list", f"{name!r} is a {type(value).__name__}", "write a JSON list"
            )
        return value
    if required:
        raise BadRow(f"no {names[0]}", f"no {names[0]!r} (found: {_keys(row)})", "add it")
    return []


def texts_of(row: JsonObject, *names: str, required: bool = False) -> tuple[str, ...]:
    """A list of texts, see `list_of`."""
    values = list_of(row, *names, required=required)
    if not all(isinstance(value, str) for value in values):
        raise BadRow(
            f"{names[0]} holds other than texts",
            f"{names[0]!r} holds {values!r:.80}",
            "use strings",
        )
    return tuple(values)


def ids_of(row: JsonObject, name: str) -> tuple[str, ...]:
    """A list of texts or whole-number ids, as texts, see `list_of`."""
    return tuple(text_of({name: value}, name) for value in list_of(row, name))


def objects_of(row: JsonObject, *names: str, required: bool = False) -> list[JsonObject]:
    """A list of objects, see `list_of`."""
    values = list_of(row, *names, required=required)
    if not all(isinstance(value, dict) for value in values):
        raise BadRow(
            f"{names[0]} holds other than objects",
            f"{names[0]!r} holds {values!r:.80}",
            "use JSON objects",
        )
    return values


def _keys(row: JsonObject) -> str:
    return ", ".join(map(repr, sorted(row)[:12])) or "nothing"
