"""Stage `hybrid`: lists with undenoised and with denoised negatives (RocketQAv2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from pipeline.artifacts.kinds import (
    CALIBRATION,
    DATASET,
    EMBEDDINGS,
    SCORED_CANDIDATES,
    TOKENS,
    TRAINING_LISTS,
)
from pipeline.dag.contract import (
    Context,
    Input,
    Inputs,
    Outcome,
    Params,
    Resources,
    stage,
    unused_input,
)
from pipeline.sources.records import LabelledSplit

if TYPE_CHECKING:
    from pipeline.artifacts.writer import ArtifactWriter
    from pipeline.methods.hybrid import WholeLists
    from pipeline.stages.tables import Judged


class HybridParams(Params):
    """Which lists a query gets.

    Attributes:
        split: whose labelled queries get lists.
        num_negatives: negatives of every list, m - 1 (the paper: 127 on MS MARCO, 31 on NQ). A
            query with fewer gets no list of that kind.
        depth: n, the ranks that negatives are drawn from; the paper does not state its own.
        denoised_depth: n of the denoised lists, where the ranker has not scored as deep as `depth`.
        undenoised: lists per query with negatives that nobody has checked.
        denoised: lists per query with negatives that the ranker is sure of.
        negative_below: the ranker is sure of a negative below this probability.
        positive_above: above this, a candidate may stand for the labelled positive of a denoised
            list.
    """

    split: LabelledSplit = "train"
    num_negatives: int = Field(default=31, ge=1)
    depth: int = Field(default=100, ge=1)
    denoised_depth: int | None = Field(default=None, ge=1)
    undenoised: int = Field(default=1, ge=0)
    denoised: int = Field(default=1, ge=0)
    negative_below: float = Field(default=0.1, ge=0, le=1)
    positive_above: float = Field(default=0.9, ge=0, le=1)

    @property
    def deepest_denoised(self) -> int:
        """The last rank that denoised lists take negatives from."""
        return self.denoised_depth or self.depth

    def mismatches(self, wired: Mapping[str, int], resources: Resources) -> Sequence[str]:
        """Lists to draw, thresholds in order, and a calibration only where the ranker is asked."""
        found = []
        if self.undenoised + self.denoised == 0:
            found.append("`undenoised` and `denoised` are both 0: there would be no lists")
        shallow = [("depth", self.depth)] if self.undenoised else []
        if self.denoised:
            shallow.append(("denoised_depth", self.deepest_denoised))
        found += [
            f"{name} {depth} has fewer ranks than a list has negatives, {self.num_negatives}: no "
            "query would get one"
            for name, depth in shallow
            if depth < self.num_negatives
        ]
        if self.denoised and self.negative_below > self.positive_above:
            found.append(
                f"negative_below {self.negative_below} lies above "
                f"positive_above {self.positive_above}"
            )
        if not self.denoised and wired.get("calibration"):
            found.append(unused_input("calibration", "with `denoised: 0` no ranker is asked"))
        return found


@stage(
    params=HybridParams,
    inputs={
        "dataset": DATASET,
        "tokens": TOKENS,
        "candidates": SCORED_CANDIDATES,
        "calibration": Input((CALIBRATION,), optional=True),
        "embeddings": Input((EMBEDDINGS,), optional=True),
    },
    output=TRAINING_LISTS,
    draws=True,
    libraries=("numpy",),
)
def hybrid(
    inputs: Inputs, params: HybridParams, writer: ArtifactWriter, context: Context
) -> Outcome:
    """Draw lists of one positive and many negatives, undenoised and denoised."""
    import pyarrow as pa

    from pipeline.stages import cautions, chosen_report, tables

    judged = tables.Judged.read(inputs, params.split)
    kinds = ["undenoised"] * params.undenoised + ["denoised"] * params.denoised
    # A draw takes two streams.
    made = [
        (kind, _lists(kind, judged, params, context.seed + 2 * number))
        for number, kind in enumerate(kinds)
    ]
    counts: Counter[str] = Counter({"undenoised": 0, "denoised": 0})
    dropped: Counter[str] = Counter()
    metrics: dict[str, Any] = {}
    for kind, each in made:
        counts[kind] += len(each.negatives)
        counts.update(each.counts)
        dropped.update({f"{kind}: {reason}": count for reason, count in each.dropped.items()})
    if judged.not_scored:
        dropped["not scored"] = judged.not_scored * len(kinds)
    warnings = cautions.on_short_lists(judged.found.lists, params.depth, "depth")
    depths = {"undenoised": params.depth, "denoised": params.deepest_denoised}
    for kind, depth in depths.items():
        draws = [each.negatives for name, each in made if name == kind]
        told = chosen_report.measure(judged.found, judged.known, draws, depth)
        told |= chosen_report.against_positives(
            judged.found, judged.known, draws, judged.positives, inputs.get("embeddings")
        )
        warnings += cautions.on_overlap(told, f"give the {kind} lists more depth, or fewer")
        metrics |= {f"{kind}_{name}": value for name, value in told.items()}
    if params.denoised:
        warnings += cautions.on_probabilities(inputs)
    rows = [tables.training_lists(each.positives, each.negatives) for _, each in made]
    writer.write_table("lists", pa.concat_tables(rows))
    return Outcome(
        rows_in=len(judged.queries) * len(kinds),
        rows_out=counts["undenoised"] + counts["denoised"],
        unit="lists",
        dropped=dict(dropped),
        counts=dict(counts),
        metrics=metrics,
        warnings=warnings,
    )


def _lists(kind: str, judged: Judged, params: HybridParams, seed: int) -> WholeLists:
    """One list of a kind for each query that has enough candidates for it."""
    from pipeline.methods.hybrid import denoised_lists, undenoised_lists

    candidates, positives, known = judged.found.lists, judged.positives, judged.known
    size = params.num_negatives
    if kind == "undenoised":
        return undenoised_lists(
            candidates, positives, known, num_negatives=size, depth=params.depth, seed=seed
        )
    return denoised_lists(
        candidates,
        judged.probability,
        positives,
        known,
        num_negatives=size,
        depth=params.deepest_denoised,
        negative_below=params.negative_below,
        positive_above=params.positive_above,
        seed=seed,
    )
