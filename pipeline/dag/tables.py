"""Lines and tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.dag.progress import duration


def aligned(rows: Sequence[Sequence[str]], header: Sequence[str]) -> list[str]:
    """Columns padded to one width; columns whose every cell is a number go to the right."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]
    right = [all(_is_number(cell) for cell in column[1:]) for column in columns]
    return [
        "  ".join(
            cell.rjust(width) if numeric else cell.ljust(width)
            for cell, width, numeric in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in [header, *rows]
    ]


def _is_number(cell: str) -> bool:
    return not cell or cell.split(" ")[0].replace(",", "").replace(".", "").isdigit()


def outcome_lines(name: str, outcome: Mapping[str, Any], seconds: float) -> list[str]:
    """What a stage did to its rows, what it measured, and one line for each warning."""
    unit = outcome["unit"]
    parts = [f"{outcome['rows_in']:,} {unit} in", f"{outcome['rows_out']:,} out"]
    dropped = outcome["dropped"]
    if dropped:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in dropped.items())
        parts.append(f"{sum(dropped.values()):,} dropped ({reasons})")
    parts += [f"{what} {number(value)}" for what, value in outcome["counts"].items() if value]
    lines = [f"{name}: done in {duration(seconds)}: {', '.join(parts)}"]
    lines += [f"{name}: {line}" for line in _measured(outcome["metrics"])]
    return lines + [f"{name}: warning: {text}" for text in outcome["warnings"]]


def _measured(metrics: Mapping[str, Any], title: str = "") -> Iterator[str]:
    """Numbers in a line, then those below a name in a line of their own that begins with it."""
    numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    if numbers:
        between = ": " if title else " "
        told = [f"{name}{between}{number(value)}" for name, value in numbers.items()]
        yield f"{title} {', '.join(told)}".strip()
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _measured(value, f"{title} {name}".strip())


def number(value: float) -> str:
    """Whole numbers with thousands marks, others with four digits."""
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:.4g}"


def size(count: float) -> str:
    """Bytes as `12 kB`, `3.4 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
