"""Stage `pseudo_label`: queries labelled by the ranker (RocketQA step 4, PAIR)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline.artifacts.kinds import CALIBRATION, DATASET, SCORED_CANDIDATES, TRAINING_LISTS
from pipeline.dag.contract import (
    Context,
    Input,
    Inputs,
    Mismatch,
    Outcome,
    Params,
    Resources,
    stage,
)

if TYPE_CHECKING:
    from pipeline.artifacts.writer import ArtifactWriter


Labelled = Literal["unlabelled", "train"]


class PseudoLabelParams(Params):
    """When the ranker is sure.

    Attributes:
        splits: whose queries are labelled: the unlabelled ones, or the training queries too, whose
            own labels then play no part.
        positive_above: the most probable candidate is the positive where it lies above this.
        negative_below: candidates below this are negatives, in rank order.
        depth: last rank that is looked at.
        num_negatives: negatives per query at most (the paper: 4 on MS MARCO, 1 on NQ).
        share: part of the queries to look at, always the same ones, and among those of a larger
            part: to see what more of them would do.
    """

    splits: tuple[Labelled, ...] = Field(default=("unlabelled",), min_length=1)
    positive_above: float = Field(default=0.9, ge=0, le=1)
    negative_below: float = Field(default=0.1, ge=0, le=1)
    depth: int = Field(default=50, ge=1)
    num_negatives: int = Field(default=4, ge=1)
    # Left out where it is all, so that it is in no key of such labels.
    share: float = Field(default=1.0, gt=0, le=1, exclude_if=lambda value: value == 1)

    def mismatches(self, wired: Mapping[str, int], resources: Resources) -> Sequence[str]:
        """Thresholds in order."""
        if self.negative_below > self.positive_above:
            return (
                f"negative_below {self.negative_below} lies above "
                f"positive_above {self.positive_above}",
            )
        return ()


@stage(
    params=PseudoLabelParams,
    inputs={
        "dataset": DATASET,
        "candidates": Input((SCORED_CANDIDATES,), many=True),
        "calibration": Input((CALIBRATION,), optional=True),
    },
    output=TRAINING_LISTS,
    libraries=("numpy",),
)
def pseudo_label(
    inputs: Inputs, params: PseudoLabelParams, writer: ArtifactWriter, context: Context
) -> Outcome:
    """Label the queries for which the ranker is sure of a positive and a negative."""
    import numpy as np

    from pipeline.methods.lists import PassageLists
    from pipeline.methods.pseudo_labels import pseudo_labels
    from pipeline.methods.samplers import random_units
    from pipeline.stages import cautions, tables

    dataset = inputs["dataset"]
    everyone = tables.queries_of(dataset, params.splits)
    queries = everyone[random_units(0, everyone) < params.share]
    if "train" in params.splits:
        _refuse_without_positives(inputs)
    found = tables.Candidates.read(*inputs.many("candidates")).of_queries(queries)
    labels = pseudo_labels(
        found.lists,
        tables.probabilities(found, inputs.get("calibration")),
        num_negatives=params.num_negatives,
        negative_below=params.negative_below,
        positive_above=params.positive_above,
        depth=params.depth,
    )
    labelled = labels.negatives.query_indices
    positives = PassageLists.from_lengths(labelled, np.ones(len(labelled)), labels.positives)
    writer.write_table("lists", tables.training_lists(positives, labels.negatives))
    hidden = tables.pairs_of(dataset, "hidden_qrels")
    with_hidden = np.isin(labelled, hidden.lists().query_indices)
    # A training query may have shown some of its labels and kept others back.
    relevant = hidden | tables.positives_of(dataset)
    right = relevant.contains(labelled[with_hidden], labels.positives[with_hidden])
    metrics = (
        {"precision_on_hidden_labels": float(right.mean()), "hidden_labels": len(right)}
        if len(right)
        else {}
    )
    left_out = {
        "not scored": len(queries) - len(found.lists),
        "beyond the share": len(everyone) - len(queries),
    }
    return Outcome(
        rows_in=len(everyone),
        rows_out=len(labelled),
        unit="queries",
        dropped={**labels.dropped, **{why: count for why, count in left_out.items() if count}},
        counts=dict(labels.counts),
        metrics=metrics,
        warnings=[
            *cautions.on_short_lists(found.lists, params.depth, "depth"),
            *cautions.on_probabilities(inputs),
        ],
    )


def _refuse_without_positives(inputs: Inputs) -> None:
    """Candidates whose search took the known positives out leave only others to be the positive."""
    from pipeline.stages import lineage

    for scored in inputs.many("candidates"):
        if "train" in lineage.positives_removed(scored):
            raise Mismatch(
                f"{scored}: `mine` took the training queries' positives out of these candidates, "
                "so that the ranker could only choose others: give it `remove_positives: []` in a "
                "search of its own, or leave `train` out of `splits`"
            )
