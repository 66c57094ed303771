"""The plots of a report: from arrays to pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.reports.figures import (
    GREY,
    PALE,
    Picture,
    label,
    legend_below,
    marker,
    picture,
    style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Numbers = npt.NDArray[np.floating] | npt.NDArray[np.integer]

_MOST_POINTS: Final = 200
_MEASURED: Final = {
    "mean_norm": "mean of the norm",
    "variance_norm": "variance of the norm",
    "trace_covariance": "trace of the covariance",
}


@dataclass(frozen=True, eq=False)
class Line:
    """One series.

    Attributes:
        name: in the legend.
        x, y: [n] each.
        deviation: above and below y, [n]; None where there is none. NaN where a point has none.
    """

    name: str
    x: Numbers
    y: Numbers
    deviation: Numbers | None = None


@dataclass(frozen=True, eq=False)
class Bar:
    """One bar with its interval."""

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Panel:
    """The lines of one sampled query.

    Attributes:
        title: what is asked.
        lines: one a system.
        positive_ranks: line name -> rank of the positive, where it lies among those of the line.
    """

    title: str
    lines: Sequence[Line]
    positive_ranks: Mapping[str, int] = field(default_factory=dict)


def gradients(
    name: str, caption: str, ranks: Mapping[str, Numbers], positive_rank: float
) -> Picture:
    """Mean and variance of the gradients that negatives give, by rank; their direction below.

    Args:
        name: of the files.
        caption: of the picture.
        ranks: the columns of a GradientStudy's table; rank 0 are random negatives.
        positive_rank: the mean rank of the positives.
    """
    ranked = ranks["rank"] > 0

    def curve(axes: Axes, number: int, values: Any, name: str) -> None:
        axes.plot(ranks["rank"][ranked], values[ranked], label=name, **style(number))
        for value in values[~ranked]:
            axes.axhline(value, color=style(number)["color"], linestyle=":", linewidth=1.2)

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        for number, (column, said) in enumerate(_MEASURED.items()):
            curve(upper, number, ranks[column] / np.max(ranks[column][ranked]), said)
        curve(lower, len(_MEASURED), ranks["mean_cosine"], "cosine with the positive's")
        for axes in (upper, lower):
            axes.axvline(positive_rank, color=GREY, linestyle="--", linewidth=1.2)
        upper.plot([], [], color=GREY, linestyle=":", label="random negatives")
        upper.plot([], [], color=GREY, linestyle="--", label="mean rank of the positives")
        upper.set_ylabel("share of its own maximum")
        upper.set_ylim(bottom=0)
        lower.set_ylabel("mean cosine with\nthe positive's gradient")
        lower.set_xlabel("rank of the negative")
        lower.set_xlim(left=0)
        lower.locator_params(axis="x", integer=True)
        legend_below(figure, upper, columns=3)

    return picture(name, caption, 6.5, draw)


def probabilities(name: str, caption: str, panels: Sequence[Panel]) -> Picture:
    """How likely each rank is drawn, one panel a query, with the rank of the positive."""
    rows = (len(panels) + 1) // 2

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, min(2, len(panels)), squeeze=False)
        for panel, axes in zip(panels, grid.flat, strict=False):
            _query(axes, panel)
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        for axes in grid[:, 0]:
            axes.set_ylabel("probability of a draw")
        for axes in grid.flat[max(0, len(panels) - 2) : len(panels)]:
            axes.set_xlabel("rank in the pool (by score)")
        grid[0, 0].plot([], [], color=GREY, linestyle="--", label="rank of the positive")
        legend_below(figure, grid[0, 0], columns=3)

    return picture(name, caption, 1.2 + 2.6 * rows, draw)


def _query(axes: Axes, panel: Panel) -> None:
    axes.set_title(label(panel.title))
    # The later the thinner, so that no line hides another.
    widths = np.linspace(3.2, 1.2, len(panel.lines)) if len(panel.lines) > 1 else [1.6]
    for number, (line, width) in enumerate(zip(panel.lines, widths, strict=True)):
        axes.plot(
            line.x,
            line.y,
            drawstyle="steps-mid",
            linewidth=width,
            label=label(line.name),
            **style(number),
        )
    for rank in sorted(set(panel.positive_ranks.values())):
        # A line of its own colour where a single system, filtered, ranks it differently.
        owners = [
            number
            for number, line in enumerate(panel.lines)
            if panel.positive_ranks.get(line.name) == rank
        ]
        colour = style(owners[0])["color"] if len(owners) == 1 < len(panel.lines) else GREY
        axes.axvline(rank, color=colour, linestyle="--", linewidth=1.2)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.locator_params(axis="x", integer=True)


def shares(name: str, caption: str, bars: Sequence[Bar]) -> Picture:
    """Shares of false negatives, in percent with their intervals."""

    def draw(figure: Figure) -> None:
        _bars(figure, bars, scale=100).set_xlabel("false negatives among the drawn (%)")

    return picture(name, caption, 1.1 + 0.4 * len(bars), draw)


def step_times(name: str, caption: str, bars: Sequence[Bar]) -> Picture:
    """Milliseconds per step."""

    def draw(figure: Figure) -> None:
        _bars(figure, bars).set_xlabel("milliseconds per step")

    return picture(name, caption, 1.1 + 0.4 * len(bars), draw)


def _bars(figure: Figure, bars: Sequence[Bar], scale: float = 1) -> Axes:
    axes: Axes = figure.subplots()
    values = scale * np.array([(bar.value, bar.low, bar.high) for bar in bars])
    reach = np.abs(values[:, 1:] - values[:, :1]).T
    places = np.arange(len(bars))
    axes.barh(places, values[:, 0], height=0.62, color=PALE)
    axes.errorbar(
        values[:, 0], places, xerr=reach, fmt="none", ecolor="black", elinewidth=1.2, capsize=3
    )
    axes.set_yticks(places, [label(bar.name) for bar in bars])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(left=0)
    return axes


def quality(name: str, caption: str, lines: Sequence[Line], x_label: str, measure: str) -> Picture:
    """A measure of evaluated systems against a number, with the deviation over seeds."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for number, line in enumerate(lines):
            axes.errorbar(
                line.x,
                line.y,
                yerr=line.deviation,
                marker=marker(number),
                capsize=3,
                label=label(line.name),
                **style(number),
            )
        axes.set_xlabel(x_label)
        axes.set_ylabel(measure)
        _whole_numbers(axes)
        if len(lines) > 1:
            legend_below(figure, axes, columns=3)

    return picture(name, caption, 4.2, draw)


def journals(name: str, caption: str, losses: Sequence[Line], norms: Sequence[Line]) -> Picture:
    """Loss and gradient norm of trainings by step; long ones as means of equal blocks."""

    def draw(figure: Figure) -> None:
        both = figure.subplots(2, 1, sharex=True)
        for axes, lines, said in zip(
            both, (losses, norms), ("loss", "gradient norm\n(before clipping)"), strict=True
        ):
            for number, line in enumerate(map(blocks, lines)):
                # A line of one point would not be seen.
                axes.plot(line.x, line.y, marker=".", label=label(line.name), **style(number))
            axes.set_ylabel(said)
            axes.set_ylim(bottom=0)
            axes.set_xlim(left=0)
        both[1].set_xlabel("step")
        _whole_numbers(both[1])
        legend_below(figure, max(both, key=_series), columns=3)

    return picture(name, caption, 5.5 + 0.2 * (max(len(losses), len(norms)) // 3), draw)


def _whole_numbers(axes: Axes) -> None:
    """No ticks between whole numbers where only these are drawn: there is no step 1.25."""
    drawn = [np.asarray(line.get_xdata(), float) for line in axes.get_lines()]
    if all((x == np.round(x)).all() for x in drawn):
        axes.locator_params(axis="x", integer=True)


def _series(axes: Axes) -> int:
    return len(axes.get_legend_handles_labels()[1])


def blocks(line: Line, most: int = _MOST_POINTS) -> Line:
    """A line of at most `most` points, each the mean of equally many neighbours."""
    size = -(-len(line.x) // most)
    if size <= 1:
        return line
    starts = np.arange(0, len(line.x), size)
    counts = np.diff(np.append(starts, len(line.x)))

    def means(values: Numbers) -> Numbers:
        found: Numbers = np.add.reduceat(values, starts) / counts
        return found

    return Line(line.name, means(line.x), means(line.y))
