"""Stage `sample`: training lists with drawn negatives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pipeline.artifacts.kinds import CANDIDATES, DATASET, EMBEDDINGS, TOKENS, TRAINING_LISTS
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
from pipeline.stages.split_params import FoldParams

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pipeline.artifacts.reader import Artifact
    from pipeline.artifacts.writer import ArtifactWriter
    from pipeline.methods.filters import KnownPairs
    from pipeline.methods.lists import PassageLists
    from pipeline.methods.negatives import Negatives
    from pipeline.stages.tables import Candidates


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
        fold: only these queries of the split.
    """

    split: LabelledSplit = "train"
    source: Literal["candidates", "top", "corpus", "given", "none"] = "candidates"
    depth: int = Field(default=1000, ge=1)
    num_negatives: int = Field(default=4, ge=0)
    per: Literal["query", "positive"] = "query"
    replicate: int = Field(default=0, ge=0)
    # Left out where it is not given, so that it is in no key of lists of all queries.
    fold: FoldParams | None = Field(default=None, exclude_if=lambda value: value is None)

    @property
    def draws(self) -> bool:
        """Whether there will be negatives at all."""
        return self.source != "none" and self.num_negatives > 0

    @property
    def reads_candidates(self) -> bool:
        """Whether negatives are drawn from a search's candidates."""
        return self.source in ("candidates", "top") and self.draws

    def mismatches(self, wired: Mapping[str, int], resources: Resources) -> Sequence[str]:
        """Candidates where they are drawn from, and nowhere else; a fold that there is."""
        if self.fold is not None and self.fold.mistakes():
            return self.fold.mistakes()
        if self.reads_candidates and not wired.get("candidates"):
            return (_needs_candidates(self.source),)
        if self.reads_candidates:
            return ()
        why = f"with `source: {self.source}`" if self.num_negatives else "with no negatives"
        return [
            unused_input(name, f"{why} nothing is drawn from {whose}")
            for name, whose in (("candidates", "them"), ("embeddings", "what they find"))
            if wired.get(name)
        ]


@stage(
    params=SampleParams,
    inputs={
        "dataset": DATASET,
        "tokens": TOKENS,
        "candidates": Input((CANDIDATES,), optional=True),
        "embeddings": Input((EMBEDDINGS,), optional=True),
    },
    output=TRAINING_LISTS,
    draws=True,
    libraries=("numpy",),
    code_version=2,
)
def sample(
    inputs: Inputs, params: SampleParams, writer: ArtifactWriter, context: Context
) -> Outcome:
    """Give each labelled query its positives and drawn negatives."""
    from pipeline.methods.filters import KnownPairs
    from pipeline.stages import cautions, chosen_report, folds, tables

    dataset = inputs["dataset"]
    everyone = len(tables.queries_of(dataset, [params.split]))
    queries = folds.kept(dataset, inputs["tokens"], params.split, params.fold)
    positives = tables.positives_of(dataset).lists().of(queries)
    labelled = positives.lengths > 0
    positives = positives.take(labelled)
    candidates = _candidates(inputs, params, positives.query_indices)
    given = _given(dataset, params, candidates, positives)
    known = tables.never_negative(dataset, inputs["tokens"]) if params.draws else KnownPairs.of()
    passages = dataset.rows("passages")
    found = _draw(params, positives, given, known, passages, context.seed + params.replicate)
    drawn = found.lists
    positives = positives.of(drawn.query_indices)
    writer.write_table("lists", tables.training_lists(positives, drawn))
    dropped = {
        "other folds": everyone - len(queries),
        "no positive": int((~labelled).sum()),
        **found.dropped,
    }
    warnings: list[str] = []
    metrics: dict[str, Any] = {}
    if candidates is not None:
        warnings = cautions.on_short_lists(candidates.lists, params.depth, "depth")
        metrics = chosen_report.measure(candidates, known, [drawn], params.depth)
        metrics |= chosen_report.against_positives(
            candidates, known, [drawn], positives, inputs.get("embeddings")
        )
        if params.source == "candidates":
            warnings += cautions.on_overlap(metrics, "raise `depth` to draw from more of them")
    return Outcome(
        rows_in=everyone,
        rows_out=len(positives),
        unit="queries",
        dropped={reason: count for reason, count in dropped.items() if count},
        counts={
            **found.counts,
            "positives": len(positives.passage_indices),
            "negatives": len(drawn.passage_indices),
        },
        metrics=metrics,
        warnings=warnings,
    )


def _given(
    dataset: Artifact, params: SampleParams, candidates: Candidates | None, positives: PassageLists
) -> PassageLists | None:
    """The lists to draw from, of the queries of `positives`; None without or from all passages."""
    from pipeline.stages import tables

    if candidates is not None:
        return candidates.lists.of(positives.query_indices)
    if params.source == "given" and params.draws:
        return tables.given_negatives(dataset).of(positives.query_indices)
    return None


def _draw(
    params: SampleParams,
    positives: PassageLists,
    given: PassageLists | None,
    known: KnownPairs,
    passages: int,
    seed: int,
) -> Negatives:
    """Negatives of each query of `positives`; from all `passages` where no lists are given."""
    import numpy as np

    from pipeline.methods import negatives
    from pipeline.methods.lists import PassageLists

    queries = positives.query_indices
    wanted = (
        positives.lengths * params.num_negatives
        if params.per == "positive"
        else np.full(len(positives), params.num_negatives)
    )
    if not params.draws:
        return _unfilled(PassageLists.from_rows(queries, [[]] * len(queries)))
    if given is None:
        return _unfilled(_from_corpus(queries, wanted, passages, known, seed))
    depth = params.depth
    if params.source == "top":
        return negatives.denoised_negatives(
            given, None, known, wanted, depth=depth, fill_depth=depth, seed=seed
        )
    return negatives.ranker_negatives(given, known, wanted, depth=depth, seed=seed)


def _from_corpus(
    queries: npt.NDArray[np.int32],
    wanted: npt.NDArray[np.int64],
    passages: int,
    known: KnownPairs,
    seed: int,
) -> PassageLists:
    """As many passages of the corpus for each query as are `wanted`, int [Q]."""
    import numpy as np

    from pipeline.methods import samplers
    from pipeline.methods.lists import PassageLists

    # All that want one number at a time: drawing the largest number for everyone would make all pay
    # for the one query with the most positives. A query's draws depend on nothing but itself.
    drawn = [
        samplers.corpus(queries[wanted == number], number, passages, known, seed)
        for number in np.unique(wanted).tolist()
    ]
    pairs = [np.empty(0, np.int32), *(lists.queries for lists in drawn)]
    found = [np.empty(0, np.int32), *(lists.passage_indices for lists in drawn)]
    return PassageLists.from_pairs(np.concatenate(pairs), np.concatenate(found)).of(queries)


def _unfilled(drawn: PassageLists) -> Negatives:
    """Draws that nothing was left out of, and that nothing had to fill up."""
    import numpy as np

    from pipeline.methods.negatives import Negatives

    return Negatives(drawn, filled=np.zeros(len(drawn), np.int64), dropped={}, counts={})


def _needs_candidates(source: str) -> str:
    return f"source '{source}' draws from candidates: wire `candidates`"


def _candidates(
    inputs: Inputs, params: SampleParams, queries: npt.NDArray[np.int32]
) -> Candidates | None:
    """What is drawn from for these queries, if it is candidates."""
    from pipeline.stages import tables

    if not params.reads_candidates:
        return None
    found = inputs.get("candidates")
    if found is None:
        raise ValueError(_needs_candidates(params.source))
    return tables.Candidates.read(found).of_queries(queries)
