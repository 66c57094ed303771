"""Stage `score`: the ranker's opinion of candidates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from pipeline.artifacts.kinds import CANDIDATES, DATASET, RANKER, SCORED_CANDIDATES, TOKENS
from pipeline.dag.contract import Context, Inputs, Outcome, Progress, stage
from pipeline.sources.records import Split
from pipeline.stages.scoring import PairScorer, ScoringParams

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pipeline.artifacts.reader import Artifact, Shard
    from pipeline.artifacts.writer import ArtifactWriter


class ScoreParams(ScoringParams):
    """Which candidates are scored.

    Attributes:
        splits: queries of these splits; empty means all that have candidates.
        depth: ranks that are scored; deeper candidates stay, without a score.
    """

    splits: list[Split] = []
    depth: int = Field(default=50, ge=1)


@dataclass(frozen=True)
class _MakeWork:
    ranker: Artifact
    tokens: Artifact
    params: ScoreParams
    writer: ArtifactWriter
    queries: npt.NDArray[np.integer]

    def __call__(self) -> _ScoreShard:
        return _ScoreShard(self)


class _ScoreShard:
    def __init__(self, made: _MakeWork) -> None:
        self._made = made
        self._scorer = PairScorer(made.ranker, made.tokens, made.params, made.writer)

    def __call__(self, shard: Shard, progress: Progress) -> dict[str, Any]:
        import numpy as np

        from pipeline.methods.filters import window
        from pipeline.models.device import describe
        from pipeline.stages.tables import Candidates

        found = Candidates.of_table(shard.read()).of_queries(self._made.queries)
        inside = window(found.lists, 1, self._made.params.depth)
        scores = np.full(len(inside), np.nan, np.float32)
        scores[inside] = self._scorer.logits(
            found.lists.queries[inside], found.lists.passage_indices[inside], progress
        )
        scored = Candidates(found.lists, found.scores, scores)
        info = {"pairs": int(inside.sum()), "device": describe(self._scorer.device)}
        self._made.writer.shards("candidates").write(shard.index, scored.table(), info)
        return {}


@stage(
    params=ScoreParams,
    inputs={"ranker": RANKER, "candidates": CANDIDATES, "tokens": TOKENS, "dataset": DATASET},
    output=SCORED_CANDIDATES,
    libraries=("torch", "transformers"),
)
def score(inputs: Inputs, params: ScoreParams, writer: ArtifactWriter, context: Context) -> Outcome:
    """Score each query's best candidates with the ranker."""
    import numpy as np

    from pipeline.distributed.shards import run_shards
    from pipeline.stages import exports, tables

    exports.check_ranker(inputs["ranker"], inputs["tokens"])
    dataset, candidates = inputs["dataset"], inputs["candidates"]
    queries = (
        tables.queries_of(dataset, params.splits)
        if params.splits
        else np.arange(dataset.rows("queries"))
    )
    written = writer.shards("candidates")
    done = written.done()
    shards = candidates.shards("candidates")
    rows = candidates.rows("candidates")
    lengths = tables.list_lengths(candidates, queries)
    context.progress.start("scoring", int(lengths.clip(max=params.depth).sum()), "pairs")
    context.progress.advance(sum(record.info["pairs"] for record in done.values()))
    run_shards(
        _MakeWork(inputs["ranker"], inputs["tokens"], params, writer, queries),
        [shard for shard in shards if shard.index not in done],
        context.resources,
        context.progress,
        writer.store,
    )
    other, infos = rows - len(lengths), written.infos()
    return Outcome(
        rows_in=rows,
        rows_out=len(lengths),
        unit="queries",
        dropped={"of another split": other} if other else {},
        counts={"pairs": sum(info["pairs"] for info in infos)},
        device=tables.devices(infos),
    )
