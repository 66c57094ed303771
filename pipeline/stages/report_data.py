"""What a report tells, read from the artifacts that are wired."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.artifacts.kinds import DRAW_STUDY, GRADIENT_STUDY
from pipeline.artifacts.manifest import Manifest
from pipeline.artifacts.reader import Artifact
from pipeline.dag.contract import Inputs, Mismatch
from pipeline.reports import sections
from pipeline.reports.journals import Journal
from pipeline.reports.page import Section
from pipeline.stages import lineage
from pipeline.stages.report import SLOTS, CurveParams, ReportParams

_JOURNAL = "training.jsonl"


@dataclass(frozen=True, eq=False)
class Study:
    """A study by rank: its document, and the columns of its table."""

    document: Mapping[str, Any]
    columns: Mapping[str, Any]

    @classmethod
    def read(cls, artifact: Artifact, document: str, table: str, kind: Any) -> Study:
        """From an artifact."""
        rows = artifact.read(table)
        columns = {name: rows[name].to_numpy(zero_copy_only=False) for name in kind.tables[table]}
        return cls(artifact.document(document), columns)


@dataclass(frozen=True, eq=False)
class ReportData:
    """Everything that was measured, by the names of what it was measured on.

    Attributes:
        artifacts: input -> name -> where the artifact lies below the root.
        evaluations: name -> split -> what `metrics.json` has of it.
        shown: the measures of their tables.
        curves: see `sections.curve`.
        journals: of the trainings.
        gradients, draws: the studies.
    """

    artifacts: Mapping[str, Mapping[str, str]]
    evaluations: Mapping[str, Mapping[str, Any]]
    shown: Sequence[str]
    curves: Sequence[Mapping[str, Any]]
    journals: Sequence[Journal]
    gradients: Mapping[str, Study]
    draws: Mapping[str, Study]

    @classmethod
    def read(cls, inputs: Inputs, params: ReportParams) -> ReportData:
        """From the stage's inputs.

        Raises:
            Mismatch: a curve names what was not evaluated, `shown` nothing that was measured, or a
                model was not trained.
        """
        wired = {
            slot: dict(zip(getattr(params.names, slot), inputs.many(slot), strict=True))
            for slot in SLOTS
        }
        evaluations = {
            name: artifact.document("metrics.json")["splits"]
            for name, artifact in wired["evaluations"].items()
        }
        _refuse_unmeasured(params.shown, evaluations)
        return cls(
            {
                slot: {name: artifact.directory for name, artifact in named.items()}
                for slot, named in wired.items()
            },
            evaluations,
            params.shown,
            [_curve(curve, evaluations) for curve in params.curves],
            [_journal(name, artifact) for name, artifact in wired["trainings"].items()],
            {
                name: Study.read(artifact, "gradients.json", "ranks", GRADIENT_STUDY)
                for name, artifact in wired["gradients"].items()
            },
            {
                name: Study.read(artifact, "draws.json", "probabilities", DRAW_STUDY)
                for name, artifact in wired["draws"].items()
            },
        )

    def sections(self) -> list[Section]:
        """The report's sections, in order."""
        return [
            *(
                sections.evaluation(name, splits, self.shown)
                for name, splits in self.evaluations.items()
            ),
            *(sections.curve(number, found) for number, found in enumerate(self.curves, 1)),
            *(
                sections.gradients(number, name, study.document, study.columns)
                for number, (name, study) in enumerate(self.gradients.items(), 1)
            ),
            *(
                sections.draws(number, name, study.document, study.columns)
                for number, (name, study) in enumerate(self.draws.items(), 1)
            ),
            *([sections.trainings(self.journals)] if self.journals else []),
        ]

    def document(self) -> dict[str, Any]:
        """The numbers of the report, as JSON."""
        return {
            "artifacts": self.artifacts,
            "evaluations": self.evaluations,
            "curves": self.curves,
            "trainings": {journal.name: journal.summary() for journal in self.journals},
            "gradients": {
                name: {
                    **study.document,
                    "ranks": {name: values.tolist() for name, values in study.columns.items()},
                }
                for name, study in self.gradients.items()
            },
            "draws": {name: study.document for name, study in self.draws.items()},
        }


def _curve(curve: CurveParams, evaluations: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The points of a curve, in the order of their numbers."""
    return {
        "title": curve.title,
        "measure": curve.measure,
        "split": curve.split,
        "x_label": curve.x_label,
        "series": {
            name: [
                {"x": x, "system": system, **_measured(curve, system, evaluations)}
                for x, system in sorted(systems.items())
            ]
            for name, systems in curve.series.items()
        },
    }


def _measured(
    curve: CurveParams, system: str, evaluations: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Any]:
    """Mean, deviation and seeds of a system."""
    of_split = [
        splits[curve.split]["systems"] for splits in evaluations.values() if curve.split in splits
    ]
    known = {name for systems in of_split for name in systems}
    where = f"curve '{curve.title}'"
    if system not in known:
        raise Mismatch(
            f"{where}: no system '{system}' was evaluated on {curve.split}: there are "
            f"{', '.join(sorted(known)) or 'none'}"
        )
    found = [systems[system] for systems in of_split if system in systems]
    values: list[Mapping[str, Any]] = [one[curve.measure] for one in found if curve.measure in one]
    if not values:
        raise Mismatch(
            f"{where}: '{system}' has no {curve.measure} on {curve.split}: there are "
            f"{', '.join(found[0])}"
        )
    if any(one != values[0] for one in values):
        raise Mismatch(
            f"{where}: '{system}' stands in several evaluations with unlike values: name systems "
            "differently"
        )
    return values[0]


def _refuse_unmeasured(shown: Sequence[str], evaluations: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise Mismatch where the tables of an evaluation would have no column."""
    for name, splits in evaluations.items():
        systems = [values for split in splits.values() for values in split["systems"].values()]
        measured = list(dict.fromkeys(measure for values in systems for measure in values))
        if measured and not set(shown) & set(measured):
            raise Mismatch(
                f"evaluation '{name}' has nothing of `shown`, {', '.join(shown)}: there are "
                f"{', '.join(measured)}"
            )


def _journal(name: str, artifact: Artifact) -> Journal:
    if not artifact.has(_JOURNAL):
        raise Mismatch(f"{artifact} has no {_JOURNAL}: wire to `trainings` what was trained")
    steps = [json.loads(line) for line in artifact.text(_JOURNAL).splitlines()]
    made = _training(artifact)
    batch = int(made.key_inputs["params"]["global_batch_size"])
    return Journal(name, steps, batch, made.run.get("device") or "-")


def _training(artifact: Artifact) -> Manifest:
    """The training that wrote the journal: joint models' journals go with each model."""
    for made in lineage.models_behind(artifact, "retriever"):
        if "global_batch_size" in made.key_inputs.get("params", {}):
            return made
    raise Mismatch(f"{artifact}: nothing is known of its training")
