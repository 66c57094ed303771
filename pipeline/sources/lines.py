r"""Lines and tab-separated rows of plain, gzip or zstd files, read as a stream.

What is decided here once for all formats:

* Compression is recognised by the first bytes, not by the name; several concatenated members are
  read on.
* Text is UTF-8, strictly; a byte order mark is taken off; `\n` and `\r\n` end a line, a lone
  `\r` does not (it is a control character, see `content.clean`).
* Empty lines are passed over, but counted in line numbers.
* A line may be long (`MAX_LINE_BYTES`), but a longer one is a problem and never held in memory
  whole.
* A tab ends a column, always. A row with more columns than the format has is a problem, since a tab
  inside a text cannot be told from a file of another layout.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from pipeline.sources.records import DataError, Place, Problems

MAX_LINE_BYTES = 1 << 26
GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
UTF8_MARK = b"\xef\xbb\xbf"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")

# Python would also read `1_0`, and refuses thousands of digits with an error of its own.
WHOLE_NUMBER = re.compile(r"-?[0-9]{1,100}")

Row = TypeVar("Row")
Record = TypeVar("Record")


class BadRow(Exception):
    """Raised by a row parser; `parsed` turns it into a reported problem.

    Attributes:
        reason: short text under which such rows are counted.
        what: the problem in this row.
        advice: what the user can do.
    """

    def __init__(self, reason: str, what: str, advice: str) -> None:
        super().__init__(what)
        self.reason = reason
        self.what = what
        self.advice = advice


def parsed(
    rows: Iterable[tuple[Place, Row]],
    parse: Callable[[Place, Row], Record],
    problems: Problems,
) -> Iterator[Record]:
    """Parse rows, reporting those that `parse` refuses with `BadRow`."""
    for where, row in rows:
        try:
            record = parse(where, row)
        except BadRow as bad:
            problems.found(bad.reason, where, bad.what, bad.advice)
            continue
        yield record


def open_bytes(path: Path) -> BinaryIO:
    """Open a plain, gzip or zstd file for reading its uncompressed bytes.

    Raises:
        DataError: there is no such file.
    """
    if not path.is_file():
        raise DataError(Place(str(path), 0), "no such file", "check `path` and the file names")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic.startswith(GZIP_MAGIC):
        return cast(BinaryIO, gzip.open(path, "rb"))
    if magic == ZSTD_MAGIC:
        import pyarrow as pa

        return cast(BinaryIO, io.BufferedReader(pa.input_stream(str(path), compression="zstd")))
    return path.open("rb")


class _Lines:
    """Reads raw lines of bounded length and says where reading failed."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path = path
        self.stream = stream
        self.number = 0

    def next(self, limit: int) -> bytes:
        try:
            return self.stream.readline(limit)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                Place(str(self.path), self.number + 1),
                f"the file cannot be read any further ({error})",
                "it is cut off or damaged; fetch it again",
            ) from error

    def pass_over_rest(self, limit: int) -> None:
        while (rest := self.next(limit)) and not rest.endswith(b"\n"):
            pass


def all_lines(
    path: Path, problems: Problems, max_line_bytes: int = MAX_LINE_BYTES
) -> Iterator[tuple[Place, str | None]]:
    """Yield every line of a text file with its place and without its line end; None for a bad one.

    For formats in which a record is known by its line number; others take `lines`.

    Raises:
        DataError: no such file, a damaged or UTF-16 file; bad lines where the policy is `fail`.
    """
    with open_bytes(path) as stream:
        reader = _Lines(path, stream)
        name = str(path)
        while raw := reader.next(max_line_bytes + 2):
            reader.number += 1
            where = Place(name, reader.number)
            if reader.number == 1:
                raw = _without_mark(raw, where)
            if len(raw.rstrip(b"\r\n")) > max_line_bytes:
                if not raw.endswith(b"\n"):
                    reader.pass_over_rest(max_line_bytes)
                problems.found(
                    "line too long",
                    where,
                    f"the line is longer than {max_line_bytes} bytes",
                    "end each record with a line feed, or cut the text",
                )
                yield where, None
                continue
            yield where, _decoded(raw, where, problems)


def _decoded(raw: bytes, where: Place, problems: Problems) -> str | None:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        problems.found(
            "not UTF-8",
            where,
            f"byte {error.start + 1} of the line (0x{raw[error.start]:02x}) is not UTF-8",
            "convert the file with `iconv -t UTF-8`",
        )
        return None
    return text.removesuffix("\n").removesuffix("\r")


def lines(
    path: Path, problems: Problems, max_line_bytes: int = MAX_LINE_BYTES
) -> Iterator[tuple[Place, str]]:
    """Yield the usable lines of a text file, see `all_lines`; empty ones are passed over."""
    for where, text in all_lines(path, problems, max_line_bytes):
        if text:
            yield where, text


def _without_mark(raw: bytes, where: Place) -> bytes:
    if raw.startswith(UTF16_MARKS):
        raise DataError(where, "the file is UTF-16", "convert it with `iconv -f UTF-16 -t UTF-8`")
    return raw.removeprefix(UTF8_MARK)


def tsv(
    path: Path, columns: Sequence[str], problems: Problems
) -> Iterator[tuple[Place, list[str]]]:
    """Yield the rows of a headless table with exactly `columns` (named for messages)."""
    for where, line in lines(path, problems):
        row = line.split("\t")
        if len(row) != len(columns):
            report_columns(len(row), columns, where, problems)
            continue
        yield where, row


def report_columns(found: int, columns: Sequence[str], where: Place, problems: Problems) -> None:
    """Report a row that has too few or too many columns."""
    wanted = f"{len(columns)} columns ({', '.join(columns)})"
    if found < len(columns):
        problems.found(
            "too few columns",
            where,
            f"{found} of {wanted}",
            "separate columns by tabs and check the file's layout",
        )
    else:
        problems.found(
            "too many columns",
            where,
            f"{found} columns instead of {wanted}",
            "replace tabs inside texts by spaces and check the file's layout",
        )


def integer(text: str, what: str) -> int:
    """Parse a whole number of a row.

    Raises:
        BadRow: it is none, or needs more than 32 bits.
    """
    if not WHOLE_NUMBER.fullmatch(text.strip()):
        raise BadRow(f"{what} is no number", f"{what} is {text[:40]!r}", "write a whole number")
    return bounded(int(text), what)


def bounded(value: int, what: str) -> int:
    """The whole number of a row, if it fits into the 32 bits that tables have for it.

    Raises:
        BadRow: it does not.
    """
    if not -(2**31) <= value < 2**31:
        raise BadRow(
            f"{what} is out of range", f"{what} is {value}", "write a number of at most 32 bits"
        )
    return value
