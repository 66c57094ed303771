"""Stage `calibrate`: what the ranker's scores mean, found on validation queries."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pipeline.artifacts.kinds import CALIBRATION, CANDIDATES, DATASET, RANKER, TOKENS
from pipeline.dag.contract import Context, Inputs, Outcome, stage
from pipeline.stages.scoring import MakePairWork, Pairs, ScoringParams

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pipeline.artifacts.writer import ArtifactWriter
    from pipeline.methods.calibration import Calibration, Reliability
    from pipeline.methods.lists import PassageLists

MOST_LOST_POSITIVES = 0.05
PAIRS_PER_TASK = 512


class CalibrateParams(ScoringParams):
    """On which pairs the calibration is fitted.

    Attributes:
        split: queries that neither the retriever nor the ranker was trained on.
        depth: negatives are drawn uniformly from that many ranks, as for the ranker's training.
        num_negatives: for each positive; this prior is what the thresholds 0.1 and 0.9 refer to.
        negative_below: threshold whose share of lost positives is reported.
        positive_above: threshold whose share of kept positives is reported.
    """

    split: Literal["validation", "dev", "test"] = "validation"
    depth: int = Field(default=1000, ge=1)
    num_negatives: int = Field(default=4, ge=1)
    negative_below: float = Field(default=0.1, ge=0, le=1)
    positive_above: float = Field(default=0.9, ge=0, le=1)


@stage(
    params=CalibrateParams,
    inputs={"ranker": RANKER, "candidates": CANDIDATES, "tokens": TOKENS, "dataset": DATASET},
    output=CALIBRATION,
    draws=True,
    libraries=("torch", "transformers", "scipy"),
)
def calibrate(
    inputs: Inputs, params: CalibrateParams, writer: ArtifactWriter, context: Context
) -> Outcome:
    """Fit Platt's two parameters, and report how far the probabilities can be trusted."""
    import numpy as np

    from pipeline.methods import calibration
    from pipeline.stages import cautions, exports

    exports.check_ranker(inputs["ranker"], inputs["tokens"])
    found = _candidates(inputs, params)
    pairs, labels, dropped = _draw(found, inputs, params, context.seed)
    calibration.check_labels(labels)
    logits, device = _score(pairs, inputs, params, writer, context)
    fitted = calibration.fit_platt(logits, labels)
    table = calibration.reliability(fitted.probabilities(logits), labels)
    metrics: dict[str, Any] = {
        "slope": fitted.slope,
        "intercept": fitted.intercept,
        "expected_calibration_error": table.expected_calibration_error,
        **_gold_shares(fitted, logits[labels], params),
        "pairwise_accuracy": _pairwise_accuracy(logits, labels),
    }
    context.progress.note(f"reliability on {params.split}\n{reliability_table(table)}")
    writer.document(
        "calibration.json",
        {**metrics, "pairs": len(labels), "reliability": [asdict(row) for row in table.bins]},
    )
    warnings = cautions.on_short_lists(found, params.depth, "depth")
    lost = metrics["gold_below_threshold"]
    if lost > MOST_LOST_POSITIVES:
        warnings.append(
            f"{lost:.1%} of the gold positives lie below {params.negative_below}: as many false "
            "negatives would be kept as hard negatives; train the ranker longer, or lower the "
            "threshold"
        )
    return Outcome(
        rows_in=len(found),
        rows_out=len(np.unique(pairs.queries)),
        unit="queries",
        dropped=dropped,
        counts={"pairs": len(labels), "positives": int(labels.sum())},
        metrics=metrics,
        warnings=warnings,
        device=device,
    )


def _gold_shares(
    fitted: Calibration, gold: npt.NDArray[np.float32], params: CalibrateParams
) -> dict[str, float]:
    """How many positives pass the thresholds, calibrated and as the ranker says it."""
    from pipeline.methods import calibration

    shares = {}
    for prefix, one in (("", fitted), ("raw_", calibration.Calibration())):
        found = one.probabilities(gold)
        below = calibration.share_below(found, params.negative_below)
        shares[f"{prefix}gold_below_threshold"] = below
        above = calibration.share_above(found, params.positive_above)
        shares[f"{prefix}gold_above_threshold"] = above
    return shares


def _candidates(inputs: Inputs, params: CalibrateParams) -> PassageLists:
    """One list for each query of the split."""
    from pipeline.stages import tables

    queries = tables.queries_of(inputs["dataset"], [params.split])
    return tables.Candidates.read(inputs["candidates"]).lists.of(queries)


def _draw(
    found: PassageLists, inputs: Inputs, params: CalibrateParams, seed: int
) -> tuple[Pairs, npt.NDArray[np.bool_], dict[str, int]]:
    """Every positive of the split, and negatives drawn as for the ranker's training."""
    import numpy as np

    from pipeline.methods import negatives
    from pipeline.stages import tables

    dataset = inputs["dataset"]
    positives = tables.positives_of(dataset).lists().of(found.query_indices)
    drawn = negatives.ranker_negatives(
        found,
        tables.never_negative(dataset, inputs["tokens"]),
        positives.lengths * params.num_negatives,
        depth=params.depth,
        seed=seed,
    )
    positives = positives.of(drawn.lists.query_indices)
    pairs = Pairs(
        np.concatenate([positives.queries, drawn.lists.queries]),
        np.concatenate([positives.passage_indices, drawn.lists.passage_indices]),
    )
    labels = np.arange(len(pairs.queries)) < len(positives.passage_indices)
    return pairs, labels, dict(drawn.dropped)


def _score(
    pairs: Pairs,
    inputs: Inputs,
    params: CalibrateParams,
    writer: ArtifactWriter,
    context: Context,
) -> tuple[npt.NDArray[np.float32], str]:
    import numpy as np

    from pipeline.distributed.shards import run_shards

    starts = range(0, len(pairs.queries), PAIRS_PER_TASK)
    tasks = [
        Pairs(pairs.queries[at : at + PAIRS_PER_TASK], pairs.passages[at : at + PAIRS_PER_TASK])
        for at in starts
    ]
    context.progress.start("scoring", len(pairs.queries), "pairs")
    reports = run_shards(
        MakePairWork(inputs["ranker"], inputs["tokens"], params, writer),
        tasks,
        context.resources,
        context.progress,
        writer.store,
    )
    return np.concatenate([report["logits"] for report in reports]), reports[0]["device"]


def _pairwise_accuracy(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.bool_]) -> float:
    """How often a positive scores above a negative (the area under the ROC curve)."""
    from scipy.stats import mannwhitneyu

    statistic = mannwhitneyu(logits[labels], logits[~labels]).statistic
    return float(statistic / (labels.sum() * (~labels).sum()))


def reliability_table(table: Reliability) -> str:
    """Predicted against observed, one line a bin."""
    from pipeline.reports.ladder import table as text_table

    rows = [
        [
            f"{row.low:.1f} - {row.high:.1f}",
            str(row.count),
            f"{row.mean_predicted:.3f}",
            f"{row.observed_rate:.3f}",
        ]
        for row in table.bins
        if row.mean_predicted is not None and row.observed_rate is not None
    ]
    return text_table(["predicted", "pairs", "mean predicted", "observed"], rows)
