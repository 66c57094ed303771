"""The page: complete, alone, and not fooled by names."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from pipeline.reports.figures import Picture
from pipeline.reports.page import Section, Table, html_page, markdown_page

ODD = """<b onclick="x">&amp; | `$\\frac$` 'quoted' * _"""
VOID = {"meta", "img"}


class Page(HTMLParser):
    """Reads a page, insisting that every tag is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def page_of(text: str) -> Page:
    """The page, read: it runs nothing and asks nobody for anything."""
    page = Page(text)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    for name, value in page.attributes:
        assert not name.startswith("on")
        assert name not in ("src", "href") or str(value).startswith("data:image/svg+xml;base64,")
    assert "url(" not in text and "@import" not in text
    return page


@pytest.fixture
def sections() -> list[Section]:
    picture = Picture("plot-1", ODD, b"png", b"<svg/>")
    table = Table(ODD, ["name", "mean", ODD], [[ODD, "0.5 ± 0.1", "a"], ["b", "-", "1"]])
    return [Section(ODD, [ODD, "One sentence."], [picture], [table])]


def test_every_word_is_on_the_page_and_none_of_it_is_code(sections) -> None:
    page = page_of(html_page(ODD, sections))
    words = [word.strip() for word in page.words]
    # Title and heading of the page; heading, sentence, caption, and three times in the table.
    assert words.count(ODD) == 8
    assert "One sentence." in words and "0.5 ± 0.1" in words
    assert page.tags.count("b") == 0
    assert ("alt", ODD) in page.attributes


def test_columns_of_numbers_are_told_from_text(sections) -> None:
    assert sections[0].tables[0].numeric == [False, True, False]
    assert html_page("t", sections).count('class="number"') == 3


def test_markdown_tables_have_as_many_cells_in_every_row(sections) -> None:
    text = markdown_page(ODD, sections)
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(lines) == 4
    assert {line.replace("\\|", "").count("|") for line in lines} == {4}
    assert lines[1] == "| --- | ---: | --- |"
    assert "<b" not in text and "plot-1" in text
