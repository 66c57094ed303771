"""A report as one HTML file that needs nothing else, and its tables as Markdown."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.reports.figures import Picture

_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
       max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.9rem; } h2 { margin-top: 3rem; border-bottom: 1px solid #ccc; }
h3 { margin-top: 2rem; } figure { margin: 1.5rem 0; }
img { width: 100%; max-width: 50rem; height: auto; }
figcaption { color: #444; font-size: 0.9rem; max-width: 50rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 0.9rem; margin: 1rem 0; }
caption { text-align: left; font-weight: 600; padding-bottom: 0.4rem; }
th, td { padding: 0.25rem 0.7rem; text-align: left; border-bottom: 1px solid #ddd; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
"""
_NUMBERS_BEGIN: Final = "0123456789+-"


@dataclass(frozen=True)
class Table:
    """Columns of text; the first names the row."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers."""
        columns = zip(*self.rows, strict=True)
        return [all(cell[:1] in _NUMBERS_BEGIN for cell in column) for column in columns]


@dataclass(frozen=True)
class Section:
    """A heading with sentences, pictures and tables, in this order."""

    heading: str
    sentences: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()


def html_page(title: str, sections: Sequence[Section]) -> str:
    """The whole report: pictures inside the file, no scripts, nothing from elsewhere."""
    body = "\n".join(line for section in sections for line in _section(section))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def _section(section: Section) -> Iterable[str]:
    yield f"<h2>{html.escape(section.heading)}</h2>"
    for sentence in section.sentences:
        yield f"<p>{html.escape(sentence)}</p>"
    for picture in section.pictures:
        data = base64.b64encode(picture.svg).decode()
        yield (
            f'<figure><img src="data:image/svg+xml;base64,{data}" '
            f'alt="{html.escape(picture.caption)}">'
            f"<figcaption>{html.escape(picture.caption)}</figcaption></figure>"
        )
    for table in section.tables:
        yield '<div class="wide"><table>'
        yield f"<caption>{html.escape(table.title)}</caption>"
        yield f"<thead>{_row(table, table.header, 'th')}</thead><tbody>"
        yield from (_row(table, row, "td") for row in table.rows)
        yield "</tbody></table></div>"


def _row(table: Table, cells: Sequence[str], tag: str) -> str:
    marks = [' class="number"' if numeric else "" for numeric in table.numeric]
    inside = (
        f"<{tag}{mark}>{html.escape(cell)}</{tag}>" for cell, mark in zip(cells, marks, strict=True)
    )
    return f"<tr>{''.join(inside)}</tr>"


def markdown_page(title: str, sections: Sequence[Section]) -> str:
    """Headings, sentences and tables; pictures by name."""
    parts = [f"# {_plain(title)}"]
    for section in sections:
        parts.append(f"## {_plain(section.heading)}")
        parts += map(_plain, section.sentences)
        parts += [f"Figure `{one.name}`: {_plain(one.caption)}" for one in section.pictures]
        parts += map(_markdown_table, section.tables)
    return "\n\n".join(parts) + "\n"


def _markdown_table(table: Table) -> str:
    rule = ["---:" if numeric else "---" for numeric in table.numeric]
    lines = [[*map(_plain, table.header)], rule, *([*map(_plain, row)] for row in table.rows)]
    rows = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"**{_plain(table.title)}**\n\n{rows}"


def _plain(text: str) -> str:
    """Text of users on one line, of which Markdown takes nothing for its own."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    for sign in "\\`*_[]|#$":
        escaped = escaped.replace(sign, f"\\{sign}")
    return escaped
