"""The ladder: one line a system, step by step, and what may be claimed of the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text; the first is left-aligned, the others right-aligned."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join([first, *others]).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def ladder(systems: Mapping[str, Mapping[str, Any]], measures: Sequence[str]) -> str:
    """Systems against measures.

    Args:
        systems: name -> measure -> {`mean`, `deviation` (None for one seed)}; a measure that a run
            is too short for is missing, and shown as a dash.
        measures: the columns.
    """
    rows = [
        [name, *(mean_and_deviation(values.get(measure)) for measure in measures)]
        for name, values in systems.items()
    ]
    return table(["system", *measures], rows)


def mean_and_deviation(value: Mapping[str, Any] | None) -> str:
    """`mean` ± `deviation` (None for one seed); a dash where nothing was measured."""
    if value is None:
        return "-"
    spread = value["deviation"]
    return f"{value['mean']:.3f}" + (f" ± {spread:.3f}" if spread is not None else "")


def reachable(shares: Mapping[str, Mapping[str, Any]]) -> str:
    """How much a re-ranker could reach, one line a re-ranked system.

    Args:
        shares: name -> {`depth`, the passages that were scored for a query at most, and `share`,
            that of the queries with a relevant one among them}.
    """
    return "\n".join(
        f"{name}: a relevant passage among the {one['depth']} re-ranked for {one['share']:.1%} of "
        "the judged queries"
        for name, one in shares.items()
    )


def claims(
    comparisons: Sequence[Mapping[str, Any]], not_compared: Sequence[Mapping[str, Any]] = ()
) -> str:
    """What may be said of each pair of systems, one line a pair; then why others were left out."""
    lines = []
    for one in comparisons:
        interval = f"{one['difference']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]"
        tail = f", {one['reason']}" if one["reason"] else ""
        lines.append(
            f"{one['first']} against {one['second']}: {interval}, p = "
            f"{one['adjusted_p_value']:.4f} (Holm): {one['verdict']}{tail}"
        )
    lines += [
        f"{one['first']} against {one['second']}: not compared, {one['reason']}"
        for one in not_compared
    ]
    return "\n".join(lines)
