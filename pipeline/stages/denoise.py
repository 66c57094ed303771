"""Stage `denoise`: hard negatives that the ranker is sure about (RocketQA step 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline.artifacts.kinds import (
    CALIBRATION,
    DATASET,
    EMBEDDINGS,
    SCORED_CANDIDATES,
    TOKENS,
    TRAINING_LISTS,
)
from pipeline.dag.contract import Context, Input, Inputs, Outcome, Params, stage
from pipeline.sources.records import LabelledSplit

if TYPE_CHECKING:
    from pipeline.artifacts.writer import ArtifactWriter


class DenoiseParams(Params):
    """Which candidates become hard negatives.

    Attributes:
        split: whose labelled queries get lists.
        threshold: a candidate is a negative where the ranker's probability lies below it.
        depth: last rank that is walked (the paper: 50 on MS MARCO, 100 on NQ).
        fill_depth: last rank of the unchecked random fill for queries that came short; equal to
            `depth` there is none.
        num_negatives: how many (the paper: 4 on MS MARCO, 1 on NQ).
        per: whether that many for each `query` or for each `positive` of it.
        denoised: false takes the top candidates as they are (the paper's ablation).
    """

    split: LabelledSplit = "train"
    threshold: float = Field(default=0.1, ge=0, le=1)
    depth: int = Field(default=50, ge=1)
    fill_depth: int = Field(default=1000, ge=1)
    num_negatives: int = Field(default=4, ge=1)
    per: Literal["query", "positive"] = "positive"
    denoised: bool = True


@stage(
    params=DenoiseParams,
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
def denoise(
    inputs: Inputs, params: DenoiseParams, writer: ArtifactWriter, context: Context
) -> Outcome:
    """Keep as hard negatives, in rank order, the candidates that the ranker calls irrelevant."""
    from pipeline.methods import calibration, filters, negatives
    from pipeline.stages import cautions, chosen_report, tables

    judged = tables.Judged.read(inputs, params.split)
    positives, found, known = judged.positives, judged.found, judged.known
    wanted = positives.of(found.lists.query_indices).lengths
    if params.per == "query":
        wanted = wanted.clip(max=1)
    chosen = negatives.denoised_negatives(
        found.lists,
        judged.probability if params.denoised else None,
        known,
        wanted * params.num_negatives,
        threshold=params.threshold,
        depth=params.depth,
        fill_depth=params.fill_depth,
        seed=context.seed,
    )
    kept = positives.of(chosen.lists.query_indices)
    writer.write_table("lists", tables.training_lists(kept, chosen.lists))
    filling = params.fill_depth > params.depth
    warnings = cautions.on_short_lists(
        found.lists,
        params.fill_depth if filling else params.depth,
        "fill_depth" if filling else "depth",
    )
    metrics = chosen_report.measure(
        found, known, [chosen.lists], max(params.depth, params.fill_depth)
    )
    metrics |= chosen_report.against_positives(
        found, known, [chosen.lists], positives, inputs.get("embeddings")
    )
    if params.denoised:
        warnings += cautions.on_probabilities(inputs)
        advice = "the ranker refuses next to none of them; look at share_below_threshold_by_rank"
        warnings += cautions.on_overlap(metrics, advice)
    unknown = filters.window(found.lists, 1, params.depth) & ~known.among(found.lists)
    missing = judged.not_scored
    return Outcome(
        rows_in=len(judged.queries),
        rows_out=len(kept),
        unit="queries",
        dropped={**chosen.dropped, **({"not scored": missing} if missing else {})},
        counts={**chosen.counts, "negatives": len(chosen.lists.passage_indices)},
        metrics={
            "share_below_threshold_by_rank": dict(
                calibration.share_below_by_rank(
                    judged.probability[unknown], found.lists.ranks[unknown], params.threshold
                )
            ),
            **metrics,
        },
        warnings=warnings,
    )
