"""Stage `sample`: training lists with drawn negatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from pipeline.artifacts.kinds import CANDIDATES, DATASET, TOKENS, TRAINING_LISTS
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
    from pipeline.artifacts.reader import Artifact
    from pipeline.artifacts.writer import ArtifactWriter


class SampleParams(Params):
    """How negatives are drawn.

    Attributes:
        split: whose labelled queries get lists.
        source: `candidates` draws uniformly from the first `depth` ranks (RocketQA's ranker data),
            `top` takes the best-ranked ones (DPR's BM25 negative), `corpus` draws uniformly from
            all passages (RocketQA's step 1), `given` takes the negatives that came with the data,
            `none` leaves the lists without negatives.
        depth: ranks to draw from (the paper: 1000 on MS MARCO, 100 on NQ).
        num_negatives: how many.
        per: whether that many for each `query` or for each `positive` of it.
        replicate: another number draws other negatives.
    """

    split: LabelledSplit = "train"
    source: Literal["candidates", "top", "corpus", "given", "none"] = "candidates"
    depth: int = Field(default=1000, ge=1)
    num_negatives: int = Field(default=4, ge=0)
    per: Literal["query", "positive"] = "query"
    replicate: int = Field(default=0, ge=0)

    def mismatches(self, wired: Mapping[str, int], resources: Resources) -> Sequence[str]:
        """Candidates where they are drawn from, and nowhere else."""
        reads = self.source in ("candidates", "top") and self.num_negatives > 0
        if reads and not wired.get("candidates"):
            return (_needs_candidates(self.source),)
        if wired.get("candidates") and not reads:
            why = f"with `source: {self.source}`" if self.num_negatives else "with no negatives"
            return (unused_input("candidates", f"{why} nothing is drawn from them"),)
        return ()


@stage(
    params=SampleParams,
    inputs={
        "dataset": DATASET,
        "tokens": TOKENS,
        "candidates": Input((CANDIDATES,), optional=True),
    },
    output=TRAINING_LISTS,
    draws=True,
    libraries=("numpy",),
)
def sample(
    inputs: Inputs, params: SampleParams, writer: ArtifactWriter, context: Context
) -> Outcome:
    """Give each labelled query its positives and drawn negatives."""
    import numpy as np

    from pipeline.methods import negatives, samplers
    from pipeline.methods.lists import PassageLists
    from pipeline.stages import cautions, tables

    dataset = inputs["dataset"]
    queries = tables.queries_of(dataset, [params.split])
    positives = tables.positives_of(dataset).lists().of(queries)
    labelled = positives.lengths > 0
    positives = positives.take(labelled)
    wanted = (
        positives.lengths * params.num_negatives
        if params.per == "positive"
        else np.full(len(positives), params.num_negatives)
    )
    seed = context.seed + params.replicate
    known = tables.never_negative(dataset, inputs["tokens"])
    dropped = {"no positive": int((~labelled).sum())}
    counts: dict[str, int] = {}
    warnings: list[str] = []
    if params.source == "none" or params.num_negatives == 0:
        drawn = PassageLists.from_rows(positives.query_indices, [[]] * len(positives))
    elif params.source == "corpus":
        most = samplers.corpus(
            positives.query_indices, int(wanted.max()), dataset.rows("passages"), known, seed
        )
        drawn = most.keep(samplers.top(most, np.ones(len(most.passage_indices), bool), wanted))
    else:
        if params.source == "given":
            given = tables.given_negatives(dataset).of(positives.query_indices)
        else:
            given = tables.Candidates.read(_candidates(inputs, params)).lists
            given = given.of(positives.query_indices)
            warnings = cautions.on_short_lists(given, params.depth, "depth")
        found = (
            negatives.denoised_negatives(
                given, None, known, wanted, depth=params.depth, fill_depth=params.depth, seed=seed
            )
            if params.source == "top"
            else negatives.ranker_negatives(given, known, wanted, depth=params.depth, seed=seed)
        )
        drawn, counts = found.lists, dict(found.counts)
        dropped |= dict(found.dropped)
    positives = positives.of(drawn.query_indices)
    writer.write_table("lists", tables.training_lists(positives, drawn))
    return Outcome(
        rows_in=len(queries),
        rows_out=len(positives),
        unit="queries",
        dropped={reason: count for reason, count in dropped.items() if count},
        counts={
            **counts,
            "positives": len(positives.passage_indices),
            "negatives": len(drawn.passage_indices),
        },
        warnings=warnings,
    )


def _needs_candidates(source: str) -> str:
    return f"source '{source}' draws from candidates: wire `candidates`"


def _candidates(inputs: Inputs, params: SampleParams) -> Artifact:
    candidates = inputs.get("candidates")
    if candidates is None:
        raise ValueError(_needs_candidates(params.source))
    return candidates
