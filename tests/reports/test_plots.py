"""What is drawn, read back from the axes; files of the right size, equal for equal data."""

from __future__ import annotations

import io
import re

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from pipeline.reports import plots
from pipeline.reports.journals import Journal
from pipeline.reports.plots import Bar, Line, Panel

# Would be an error in a formula, and tags in an SVG.
ODD = "$\\frac$ <b>&"


def ranks(depth: int = 30) -> dict[str, np.ndarray]:
    rank = np.arange(depth + 1)
    curve = np.where(rank == 0, 5.0, 4.0 / np.maximum(rank, 1))
    columns = ("mean_norm", "variance_norm", "trace_covariance", "mean_cosine")
    return {"rank": rank, **{name: curve * (at + 1) for at, name in enumerate(columns)}}


def query(number: int) -> Panel:
    x = np.arange(1, 6)
    lines = [Line(name, x, np.full(5, 0.2)) for name in ("one", "two", ODD)]
    return Panel(f"{ODD} {number}", lines, {"one": 2, "two": 2, ODD: 4})


BARS = [Bar(ODD, 0.2, 0.1, 0.35), Bar("b", 0.0, 0.0, 0.0)]
LINES = [
    Line(ODD, np.array([1.0, 2.0]), np.array([0.4, 0.5]), np.array([0.1, np.nan])),
    Line("one seed", np.array([1.0, 2.0]), np.array([0.4, 0.3])),
]
DRAWN = {
    "gradients": (lambda: plots.gradients("g", "c", ranks(), 7.5), 6.5),
    "probabilities": (lambda: plots.probabilities("p", "c", [query(n) for n in range(3)]), 6.4),
    "shares": (lambda: plots.shares("s", "c", BARS), 1.9),
    "step times": (lambda: plots.step_times("t", "c", BARS), 1.9),
    "quality": (lambda: plots.quality("q", "c", LINES, ODD, ODD), 4.2),
    "journals": (lambda: plots.journals("j", "c", LINES[:1], LINES), 5.5),
}


@pytest.mark.parametrize("name", DRAWN)
def test_files_have_their_size_and_are_equal_whatever_a_user_has_set(name: str) -> None:
    draw, height = DRAWN[name]
    once = draw()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "text.parse_math": True}):
        again = draw()
    assert (once.png, once.svg) == (again.png, again.svg)
    pixels = imread(io.BytesIO(once.png))[:, :, :3]
    assert pixels.shape == (pytest.approx(height * 150, abs=1), 1200, 3)
    assert 0.005 < (pixels < 0.98).any(axis=2).mean() < 0.5
    text = once.svg.decode()
    links = re.findall(r'href="([^"]*)"', text)
    assert links and all(link.startswith("#") for link in links)
    assert "<dc:date>" not in text and "<script" not in text


@pytest.fixture
def figures(monkeypatch) -> list[Figure]:
    """The figures that plots draw, instead of their files."""
    found: list[Figure] = []

    def picture(name, caption, height, draw):
        found.append(Figure())
        draw(found[-1])

    monkeypatch.setattr(plots, "picture", picture)
    return found


def of_style(axes, style: str) -> list[tuple[float, ...]]:
    """The heights, or places, of straight lines of a style."""
    lines = [line for line in axes.lines if line.get_linestyle() == style and len(line.get_xdata())]
    return [tuple({*line.get_ydata()} - {0, 1} or {*line.get_xdata()}) for line in lines]


def test_gradients_are_shares_of_their_own_maximum(figures) -> None:
    given = ranks()
    plots.gradients("g", "c", given, 7.5)
    upper, lower = figures[0].axes
    solid = [line for line in upper.lines if line.get_linestyle() == "-" and len(line.get_xdata())]
    assert len(solid) == 3
    for line in solid:
        # The random negatives are no rank, and no maximum.
        assert line.get_xdata().tolist() == list(range(1, 31))
        assert line.get_ydata() == pytest.approx(1 / np.arange(1, 31))
    assert of_style(upper, ":") == [(pytest.approx(1.25),)] * 3
    assert of_style(upper, "--") == [(7.5,)]
    assert lower.lines[0].get_ydata() == pytest.approx(given["mean_cosine"][1:])
    assert of_style(lower, ":") == [(pytest.approx(20.0),)]


def test_the_positive_is_marked_in_the_colour_of_who_ranks_it_otherwise(figures) -> None:
    plots.probabilities("p", "c", [query(1), query(2), query(3)])
    assert len(figures[0].axes) == 3
    for axes in figures[0].axes:
        curves = {line.get_label(): line for line in axes.lines if len(line.get_xdata()) == 5}
        marks = {line.get_xdata()[0]: line for line in axes.lines if len(line.get_xdata()) == 2}
        assert sorted(marks) == [2, 4] and len(curves) == 3
        assert marks[4].get_color() == curves[ODD].get_color()
        assert marks[2].get_color() not in {line.get_color() for line in curves.values()}


def test_bars_and_their_intervals(figures) -> None:
    plots.shares("s", "c", BARS)
    (axes,) = figures[0].axes
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([20, 0])
    (segments,) = [np.array(one.get_segments()) for one in axes.collections]
    assert segments[:, :, 0] == pytest.approx(np.array([[10, 35], [0, 0]]))


def test_every_line_is_in_the_legend_whatever_its_name(figures) -> None:
    names = ["_private", "a" * 60, "two\nlines of\twords", "x " * 40, "问题"]
    x = np.array([1.0, 2.0])
    plots.quality("q", "c", [Line(name, x, x) for name in names], "x", "y")
    (legend,) = figures[0].legends
    told = [text.get_text() for text in legend.get_texts()]
    assert told == [" _private", "a" * 39 + "…", "two lines of words", "x " * 19 + "x…", "问题"]


@pytest.mark.parametrize(("numbers", "whole"), [([0, 1, 2], True), ([0, 0.5, 2], False)])
def test_whole_numbers_have_no_ticks_between_them(figures, numbers, whole) -> None:
    x = np.array(numbers, float)
    plots.quality("q", "c", [Line("a", x, x)], "round", "y")
    (axes,) = figures[0].axes
    ticks = axes.get_xticks()
    assert bool((ticks == np.round(ticks)).all()) is whole


def test_ranks_are_whole(figures) -> None:
    plots.gradients("g", "c", ranks(20), 1.2)
    x = np.array([1, 2, 3])
    plots.probabilities("p", "c", [Panel("few", [Line("one", x, x / 6)], {"one": 2})])
    for figure in figures:
        for axes in figure.axes:
            ticks = axes.get_xticks()
            assert (ticks == np.round(ticks)).all()


def test_long_lines_are_means_of_blocks() -> None:
    line = Line("a", np.arange(1, 8), np.array([1.0, 3.0, 5.0, 7.0, 2.0, 4.0, 9.0]))
    short = plots.blocks(line, most=4)
    assert short.x.tolist() == [1.5, 3.5, 5.5, 7.0] and short.y.tolist() == [2, 6, 3, 9]
    assert plots.blocks(line, most=7) is line


def test_journals_of_one_model_of_two_and_of_turns() -> None:
    def rows(*norms: str) -> list[dict[str, float]]:
        return [
            {"step": step, "loss": 1.0 / step, "rows_per_second": 10.0 * step, norm: 2.0 * step}
            for step, norm in enumerate(norms, 1)
        ]

    one = Journal("one", rows("gradient_norm", "gradient_norm"), 5, "cpu")
    assert one.milliseconds.tolist() == [500, 250]
    time = one.step_time
    assert (time.name, time.value, time.low, time.high) == ("one", 375, 312.5, 437.5)
    assert [(line.name, line.y.tolist()) for line in one.losses] == [("one", [1, 0.5])]
    assert [(line.name, line.y.tolist()) for line in one.norms] == [("one", [2, 4])]

    turns = rows("ranker_gradient_norm", "retriever_gradient_norm", "ranker_gradient_norm")
    both = Journal("both", turns, 5, "cpu")
    assert [(line.name, line.x.tolist()) for line in both.losses] == [
        ("both, ranker", [1, 3]),
        ("both, retriever", [2]),
    ]
    assert [(line.name, line.y.tolist()) for line in both.norms] == [
        ("both, ranker", [2, 6]),
        ("both, retriever", [4]),
    ]

    together = [{**row, "ranker_gradient_norm": 1.0} for row in rows("retriever_gradient_norm")]
    joint = Journal("joint", together, 5, "cpu")
    assert [line.name for line in joint.losses] == ["joint"]
    assert [line.name for line in joint.norms] == ["joint, ranker", "joint, retriever"]
