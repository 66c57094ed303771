"""Stage `hybrid`: lists with undenoised and with denoised negatives (RocketQAv2)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from pydantic import Field

from pipeline.artifacts.kinds import (
    CALIBRATION,
    DATASET,
    SCORED_CANDIDATES,
    TOKENS,
    TRAINING_LISTS,
)
from pipeline.dag.contract import Context, Input, Inputs, Outcome, Params, stage

if TYPE_CHECKING:
    from pipeline.artifacts.writer import ArtifactWriter


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

    split: str = "train"
    num_negatives: int = Field(default=31, ge=1)
    depth: int = Field(default=100, ge=1)
    denoised_depth: int | None = Field(default=None, ge=1)
    undenoised: int = Field(default=1, ge=0)
    denoised: int = Field(default=1, ge=0)
    negative_below: float = Field(default=0.1, ge=0, le=1)
    positive_above: float = Field(default=0.9, ge=0, le=1)


@stage(
    params=HybridParams,
    inputs={
        "dataset": DATASET,
        "tokens": TOKENS,
        "candidates": SCORED_CANDIDATES,
        "calibration": Input((CALIBRATION,), optional=True),
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

    from pipeline.methods.hybrid import WholeLists, denoised_lists, undenoised_lists
    from pipeline.stages import tables

    dataset = inputs["dataset"]
    queries = tables.queries_of(dataset, [params.split])
    positives = tables.positives_of(dataset).lists().of(queries)
    found = tables.Candidates.read(inputs["candidates"]).of_queries(queries)
    probability = tables.probabilities(found, inputs.get("calibration"))
    known = tables.never_negative(dataset, inputs["tokens"])

    def lists(kind: str, number: int) -> WholeLists:
        # A draw takes two streams.
        seed = context.seed + 2 * number
        if kind == "undenoised":
            return undenoised_lists(
                found.lists,
                positives,
                known,
                num_negatives=params.num_negatives,
                depth=params.depth,
                seed=seed,
            )
        return denoised_lists(
            found.lists,
            probability,
            positives,
            known,
            num_negatives=params.num_negatives,
            depth=params.denoised_depth or params.depth,
            negative_below=params.negative_below,
            positive_above=params.positive_above,
            seed=seed,
        )

    kinds = ["undenoised"] * params.undenoised + ["denoised"] * params.denoised
    made = [(kind, lists(kind, number)) for number, kind in enumerate(kinds)]
    counts: Counter[str] = Counter({"undenoised": 0, "denoised": 0})
    dropped: Counter[str] = Counter()
    for kind, each in made:
        counts[kind] += len(each.negatives)
        counts.update(each.counts)
        dropped.update({f"{kind}: {reason}": count for reason, count in each.dropped.items()})
    missing = (len(queries) - len(found.lists)) * len(kinds)
    if missing:
        dropped["not scored"] = missing
    writer.write_table(
        "lists",
        pa.concat_tables(
            [tables.training_lists(each.positives, each.negatives) for _, each in made]
        ),
    )
    return Outcome(
        rows_in=len(queries) * len(kinds),
        rows_out=counts["undenoised"] + counts["denoised"],
        unit="lists",
        dropped=dict(dropped),
        counts=dict(counts),
    )
