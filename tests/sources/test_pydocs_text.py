from __future__ import annotations

import inspect

import pytest

from pipeline.sources.pydocs_text import (
    count_words,
    has_placeholder,
    plain_text,
    split_docstring,
    without_examples,
)


@pytest.mark.parametrize(
    ("docstring", "summary", "body"),
    [
        ("Do it now.\n\nRead on here.", "Do it now.", "Read on here."),
        ("Do it, e.g. now. Then rest.\n\nMore.", "Do it, e.g. now.", "Then rest. More."),
        ("Do it over\ntwo lines\n\nMore.", "Do it over two lines", "More."),
        ("Do it.\n:param x: a number", "Do it.", ":param x: a number"),
        ("one(x, y=()) -> int\n\nDo it.\n\nMore.", "Do it.", "More."),
        ("one(\n    x,\n)\n--\n\nDo it.\n\nMore.", "Do it.", "More."),
        ("=====\nTitle\n=====\n\nMore\n----\ntext", "Title", "More text"),
        ("Do it.\n\nParameters\n----------\nx : int", "Do it.", "Parameters x : int"),
        ("Parameters\n----------\nx : int", "", "Parameters x : int"),
        ("", "", ""),
    ],
)
def test_splits_into_summary_and_body(docstring: str, summary: str, body: str) -> None:
    assert split_docstring(docstring) == (summary, body)


def test_plain_text_keeps_the_words_of_marked_up_text() -> None:
    text = """
    See :meth:`~numpy.sum` and ``x`` or `a link`_ [1]_, as in::

    .. versionadded:: 1.2
    .. note:: Be careful.\x00Really \ud800.
    """
    assert plain_text(inspect.cleandoc(text)) == (
        "See numpy.sum and x or a link, as in: note: Be careful. Really ?."
    )


def test_examples_are_taken_out_to_the_next_blank_line() -> None:
    text = "Before.\n\n>>> one()\n2\n>>> two()\n\nAfter."
    assert without_examples(text).split() == ["Before.", "After."]


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Do it.\n\n%(parameters)s\n", True),
        ("Do %(what)s now.", True),
        ("Do it.\n\n    {klass}\n", True),
        ("A set {a, b} and \\frac{a}{b}, 5 % (or so).", False),
    ],
)
def test_sees_placeholders(docstring: str, expected: bool) -> None:
    assert has_placeholder(docstring) is expected


def test_counts_words_not_punctuation() -> None:
    assert count_words("a -- b, (c) ...") == 3
