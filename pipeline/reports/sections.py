"""The sections of a report: what is said, drawn and tabled of each thing that was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from pipeline.reports import plots
from pipeline.reports.journals import Journal
from pipeline.reports.ladder import mean_and_deviation
from pipeline.reports.page import Section, Table
from pipeline.reports.plots import Bar, Line, Numbers, Panel

_SHOWN_RANKS: Final = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def evaluation(name: str, splits: Mapping[str, Any], shown: Sequence[str]) -> Section:
    """The ladders of an Evaluation, and what may be claimed.

    Args:
        name: of the evaluation.
        splits: what `metrics.json` has under this key.
        shown: measures of the ladders, as far as something was measured by them.
    """
    tables: list[Table] = []
    for split, result in splits.items():
        title = f"{split}, {result['judged_queries']} judged queries"
        tables.append(_ladder(title, result, shown))
        tables += [
            _ladder(f"{split}, {group}, {one['queries']} queries", one, shown)
            for group, one in result["groups"].items()
        ]
        if rows := list(_claims(result)):
            header = ["compared", "difference [95 %]", "adjusted p", "verdict"]
            tables.append(Table(f"{split}: comparisons", header, rows))
    return Section(f"Evaluation: {name}", tables=tables)


def _ladder(title: str, result: Mapping[str, Any], shown: Sequence[str]) -> Table:
    systems = result["systems"]
    measures = [each for each in shown if any(each in values for values in systems.values())]
    rows = [
        [system, *(mean_and_deviation(values.get(measure)) for measure in measures)]
        for system, values in systems.items()
    ]
    return Table(title, ["system", *measures], rows)


def _claims(result: Mapping[str, Any]) -> Iterator[list[str]]:
    for one in result["comparisons"]:
        verdict = one["verdict"] + (f": {one['reason']}" if one["reason"] else "")
        yield [
            f"{one['first']} against {one['second']}",
            f"{one['difference']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]",
            f"{one['adjusted_p_value']:.4f}",
            verdict,
        ]
    for one in result["not_compared"]:
        yield [f"{one['first']} against {one['second']}", "-", "-", f"not: {one['reason']}"]


def curve(number: int, found: Mapping[str, Any]) -> Section:
    """A measure against a number.

    Args:
        number: of the curve.
        found: `title`, `measure`, `split`, `x_label`, and `series`: name -> points with `x`,
            `system`, `mean`, `deviation` (None for one seed) and `seeds`.
    """
    lines, rows = [], []
    for name, points in found["series"].items():
        x, means = (np.array([point[key] for point in points], float) for key in ("x", "mean"))
        spread = np.array([point["deviation"] for point in points], float)
        lines.append(Line(name, x, means, None if np.isnan(spread).all() else spread))
        rows += [
            [
                name,
                f"{point['x']:g}",
                point["system"],
                mean_and_deviation(point),
                str(point["seeds"]),
            ]
            for point in points
        ]
    measured = f"{found['measure']} on {found['split']}"
    caption = f"{measured} against {found['x_label']}"
    spread_shown = any(line.deviation is not None for line in lines)
    caption += "; bars are the deviation over seeds." if spread_shown else "."
    picture = plots.quality(f"curve-{number}", caption, lines, found["x_label"], measured)
    header = ["series", found["x_label"], "system", found["measure"], "seeds"]
    return Section(found["title"], (), [picture], [Table("The points", header, rows)])


def trainings(journals: Sequence[Journal]) -> Section:
    """How trainings went, and how long a step took."""
    losses = [line for journal in journals for line in journal.losses]
    norms = [line for journal in journals for line in journal.norms]
    times = [journal.step_time for journal in journals]
    pictures = [
        plots.journals("training", "Loss and gradient norm by step.", losses, norms),
        plots.step_times("step-times", "The median step, and the middle half of all steps.", times),
    ]
    rows = [
        [
            journal.name,
            f"{len(journal.steps):,}",
            f"{journal.batch:,}",
            f"{time.value:,.0f} [{time.low:,.0f}, {time.high:,.0f}]",
            f"{journal.steps[-1]['loss']:.4g}",
            journal.device,
        ]
        for journal, time in zip(journals, times, strict=True)
    ]
    header = ["training", "steps", "rows a step", "ms a step [middle half]", "last loss", "device"]
    return Section("Training", (), pictures, [Table("Trainings", header, rows)])


def gradients(
    number: int, name: str, document: Mapping[str, Any], ranks: Mapping[str, Numbers]
) -> Section:
    """What negatives contribute to the gradient, by their rank.

    Args:
        number: of the study.
        name: of the study.
        document: `gradients.json`.
        ranks: the columns of the study's table.
    """
    positive = document["positive_rank"]
    sentence = (
        f"{document['queries']} queries, negatives to rank {document['depth']}, temperature "
        f"{document['temperature']:g}. The positive's rank: {positive['mean']:.1f} in the mean, "
        f"{positive['median']:g} in the median."
    )
    caption = (
        "Norm of a negative's gradient over the queries by its rank, each curve over its own "
        "maximum, and its direction. Dotted: random negatives."
    )
    picture = plots.gradients(f"gradients-{number}", caption, ranks, positive["mean"])
    columns = [column for column in ranks if column not in ("rank", "queries")]
    rows = [
        ["random" if rank == 0 else str(rank), *(f"{ranks[column][at]:.4g}" for column in columns)]
        for at, rank in enumerate(ranks["rank"].tolist())
        if rank in _SHOWN_RANKS
    ]
    table = Table("At some ranks", ["rank", *(c.replace("_", " ") for c in columns)], rows)
    return Section(f"Gradients: {name}", [sentence], [picture], [table])


def draws(number: int, name: str, document: Mapping[str, Any], found: Mapping[str, Any]) -> Section:
    """What samplers draw.

    Args:
        number: of the study.
        name: of the study.
        document: `draws.json`.
        found: the columns of the study's table `probabilities`.
    """
    systems = document["systems"]
    bars = [Bar(system, one["share"], one["low"], one["high"]) for system, one in systems.items()]
    caption = "Share of false negatives among what is drawn, with its 95 % interval over queries."
    pictures = [plots.shares(f"draws-{number}-shares", caption, bars)]
    tables = [drawn(systems)]
    if document["sampled"] and len(found["system"]):
        caption = (
            "How likely a draw of one takes each rank, for some queries. Dashed: the positive's "
            "rank, where it lies within the pool; in a system's colour where others differ."
        )
        panels = _panels(document["sampled"], found)
        pictures.append(plots.probabilities(f"draws-{number}-probabilities", caption, panels))
        asked = [[one["query_id"], one["text"]] for one in document["sampled"]]
        tables.append(Table("The queries shown", ["query", "text"], asked))
    return Section(f"Draws: {name}", [how_drawn(document)], pictures, tables)


def how_drawn(document: Mapping[str, Any]) -> str:
    """What the numbers of `drawn` are of."""
    return (
        f"{document['num_negatives']} negatives drawn in each of {document['epochs']} epochs for "
        f"{document['queries']} queries; false negatives by {document['judge']}. In reach: queries "
        "with one in a pool. Effective: how many candidates share the weight."
    )


def drawn(systems: Mapping[str, Mapping[str, Any]]) -> Table:
    """What each system draws.

    Args:
        systems: what `draws.json` has under this key.
    """
    rows = [
        [
            system,
            f"{one['share']:.2%} [{one['low']:.2%}, {one['high']:.2%}]",
            f"{one['false_negatives']:,} of {one['drawn']:,}",
            f"{one['queries_with_false_negatives']:.1%}",
            f"{one['pool_size']:.1f}",
            f"{one['effective_size']:.1f}",
            "-" if one["mean_rank"] is None else f"{one['mean_rank']:.1f}",
        ]
        for system, one in systems.items()
    ]
    header = ["system", "false negatives [95 %]", "drawn", "in reach", "pool", "effective"]
    return Table("What is drawn", [*header, "mean rank"], rows)


def _panels(sampled: Sequence[Mapping[str, Any]], found: Mapping[str, Any]) -> list[Panel]:
    panels = []
    for one in sampled:
        own = found["query_index"] == one["query_index"]
        lines, positives = [], {}
        for system in dict.fromkeys(found["system"][own].tolist()):
            rows = own & (found["system"] == system)
            lines.append(Line(system, found["rank"][rows], found["probability"][rows]))
            rank = int(found["positive_rank"][rows][0])
            if 0 < rank <= rows.sum():
                positives[system] = rank
        panels.append(Panel(one["text"], lines, positives))
    return panels
