"""Stage `report`: what was measured, as figures and one page that needs nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import Field, field_validator

from pipeline.artifacts.kinds import (
    DRAW_STUDY,
    EVALUATION,
    GRADIENT_STUDY,
    JOINT_MODELS,
    RANKER,
    REPORT,
    RETRIEVER,
)
from pipeline.dag.contract import Context, Input, Inputs, Outcome, Params, Resources, stage
from pipeline.sources.records import LabelledSplit

if TYPE_CHECKING:
    from pipeline.artifacts.writer import ArtifactWriter
    from pipeline.reports.page import Section

SLOTS: Final = ("evaluations", "trainings", "gradients", "draws")


class NamesParams(Params):
    """What the wired artifacts are called, in the order of each input.

    Attributes:
        evaluations: of the evaluations.
        trainings: of the trainings.
        gradients: of the gradient studies.
        draws: of the draw studies.
    """

    evaluations: list[str] = []
    trainings: list[str] = []
    gradients: list[str] = []
    draws: list[str] = []

    @field_validator(*SLOTS)
    @classmethod
    def _different(cls, names: list[str]) -> list[str]:
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            raise ValueError(f"'{repeated[0]}' is given twice: each has its own name")
        return names


class CurveParams(Params):
    """A measure of evaluated systems against a number.

    Attributes:
        title: above the curve.
        measure: one that the evaluations have.
        split: whose queries.
        x_label: what the number is: steps, negatives of a query, a, b, …
        series: for each line, number -> the system's name in the evaluations.
    """

    title: str
    measure: str = "RR@10"
    split: LabelledSplit = "dev"
    x_label: str
    series: dict[str, Annotated[dict[float, str], Field(min_length=1)]] = Field(min_length=1)


class ReportParams(Params):
    """What the report is called, and what it draws beside what is wired.

    Attributes:
        title: of the report.
        names: of what is wired.
        shown: the measures of the tables, where they were measured; all are in `report.json`.
        curves: of evaluated systems.
    """

    title: str = "Report"
    names: NamesParams = NamesParams()
    shown: list[str] = Field(default=["RR@10", "Success@5", "Success@50"], min_length=1)
    curves: list[CurveParams] = []

    def mismatches(self, wired: Mapping[str, int], resources: Resources) -> Sequence[str]:
        """Something to report, and a name for each."""
        found = [
            f"{wired.get(slot, 0)} {slot} are wired and {len(names)} names given below `names`: "
            "one for each"
            for slot in SLOTS
            if len(names := getattr(self.names, slot)) != wired.get(slot, 0)
        ]
        if not any(wired.get(slot) for slot in SLOTS):
            found.append(f"there is nothing to report: wire {', '.join(SLOTS[:-1])} or {SLOTS[-1]}")
        elif self.curves and not wired.get("evaluations"):
            found.append("`curves` are of evaluated systems: wire `evaluations`")
        return found


@stage(
    params=ReportParams,
    inputs={
        "evaluations": Input((EVALUATION,), many=True, optional=True),
        "trainings": Input((RETRIEVER, RANKER, JOINT_MODELS), many=True, optional=True),
        "gradients": Input((GRADIENT_STUDY,), many=True, optional=True),
        "draws": Input((DRAW_STUDY,), many=True, optional=True),
    },
    output=REPORT,
    libraries=("matplotlib", "numpy"),
)
def report(
    inputs: Inputs, params: ReportParams, writer: ArtifactWriter, context: Context
) -> Outcome:
    """Draw what was measured, as a page that needs nothing else, figures and tables."""
    from pipeline.reports.page import html_page, markdown_page
    from pipeline.stages.report_data import ReportData

    wired = sum(len(inputs.many(slot)) for slot in SLOTS)
    context.progress.start("drawing", wired, "inputs")
    data = ReportData.read(inputs, params)
    sections = data.sections()
    writer.document("report.html", html_page(params.title, sections))
    writer.document("report.md", markdown_page(params.title, sections))
    writer.document("report.json", {"title": params.title, **data.document()})
    figures = _write_figures(writer, sections)
    context.progress.advance(wired)
    tables = sum(len(section.tables) for section in sections)
    return Outcome(
        rows_in=wired,
        rows_out=wired,
        unit="inputs",
        counts={"figures": figures, "tables": tables},
        report=(
            f"{params.title}: {figures} figures and {tables} tables in report-*.html below "
            f"{writer.directory} in the artifact root"
        ),
    )


def _write_figures(writer: ArtifactWriter, sections: Sequence[Section]) -> int:
    pictures = [picture for section in sections for picture in section.pictures]
    if pictures:
        with writer.folder("figures") as folder:
            for picture in pictures:
                (folder / f"{picture.name}.png").write_bytes(picture.png)
                (folder / f"{picture.name}.svg").write_bytes(picture.svg)
    return len(pictures)
