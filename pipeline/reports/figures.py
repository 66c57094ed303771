"""How figures look and how they become files: legible, without network, equal for equal data."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DOTS_PER_INCH: Final = 150
WIDTH: Final = 8.0
GREY: Final = "#595959"
# Of bars: light enough for the interval to be seen on it.
PALE: Final = "#56B4E9"
# Okabe and Ito's colours, which colour-blind readers can tell apart, without yellow and black;
# beyond six the same come again with another line and marker.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", PALE)
_LINES: Final = ("-", "--", ":", "-.")
_MARKERS: Final = ("o", "s", "^", "D")
_LONGEST_LABEL: Final = 40

_STYLE: Final[dict[str, Any]] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "figure.dpi": DOTS_PER_INCH,
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "grid.color": "#E0E0E0",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "savefig.dpi": DOTS_PER_INCH,
    # Without a salt the ids inside an SVG are random.
    "svg.hashsalt": "rocketqa-ray",
    # Names are the users': a dollar sign in them is no formula.
    "text.parse_math": False,
}


@dataclass(frozen=True)
class Picture:
    """A figure as files.

    Attributes:
        name: of the files, without suffix.
        caption: what it shows, for those who see it and those who do not.
        png, svg: the files' bytes.
    """

    name: str
    caption: str
    png: bytes
    svg: bytes


def picture(name: str, caption: str, height: float, draw: Callable[[Figure], None]) -> Picture:
    """Draw a figure of the usual width and so many inches of height."""
    from matplotlib.figure import Figure

    with _styled():
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure)
        # No dates and versions: equal data give equal files.
        png = _file(figure, "png", {"Software": None})
        svg = _file(figure, "svg", {"Date": None, "Creator": None})
    return Picture(name, caption, png, svg)


def _file(figure: Figure, suffix: str, metadata: dict[str, None]) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format=suffix, metadata=metadata)
    return file.getvalue()


@contextmanager
def _styled() -> Iterator[None]:
    """The style alone, whatever a user's own settings are."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def style(number: int) -> dict[str, Any]:
    """Colour and line of the `number`-th series."""
    again = number // len(_COLOURS) % len(_LINES)
    return {"color": _COLOURS[number % len(_COLOURS)], "linestyle": _LINES[again]}


def marker(number: int) -> str:
    """The marker of the `number`-th series."""
    return _MARKERS[number % len(_MARKERS)]


def label(name: str) -> str:
    """A name that fits; tables have the whole one."""
    text = " ".join(name.split())
    if len(text) > _LONGEST_LABEL:
        text = f"{text[: _LONGEST_LABEL - 1].rstrip()}…"
    # Legends leave out what begins with an underscore.
    return f" {text}" if text.startswith("_") else text


def legend_below(figure: Figure, axes: Axes, columns: int = 2) -> None:
    """The legend of some axes, below all of them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels) or 1))
