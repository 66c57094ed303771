"""A ranker over pairs of a token store, as work for a shard pool: for `score` and `calibrate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from pipeline.dag.contract import Params, Progress

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pipeline.artifacts.reader import Artifact
    from pipeline.artifacts.writer import ArtifactWriter


class ScoringParams(Params):
    """How the ranker computes.

    Attributes:
        precision: of the model; `auto` is bfloat16 where the device computes in it.
        token_budget: padded tokens of a batch.
    """

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    token_budget: int = Field(default=16384, ge=1)


class PairScorer:
    """Loads a ranker and scores pairs, length-sorted."""

    def __init__(
        self, ranker: Artifact, tokens: Artifact, params: ScoringParams, writer: ArtifactWriter
    ) -> None:
        from pipeline.models.cross_encoder import CrossEncoder
        from pipeline.models.device import choose_device, resolve_precision
        from pipeline.models.inference import prepare
        from pipeline.stages.tables import open_tokens

        self.device = choose_device()
        self._budget = params.token_budget
        precision = writer.settle("precision", resolve_precision(params.precision, self.device))
        model = CrossEncoder.load(ranker.folder("model"))
        self._model = prepare(model, self.device, precision)
        self._store = open_tokens(tokens)
        self._layout = model.pair_layout

    def logits(
        self,
        queries: npt.NDArray[np.integer],
        passages: npt.NDArray[np.integer],
        progress: Progress,
    ) -> npt.NDArray[np.float32]:
        """One logit per pair, in the order of the pairs."""
        from pipeline.models.inference import score
        from pipeline.text.batches import token_budget_batches

        lengths = self._store.pair_lengths(queries, passages, self._layout)
        return score(
            self._model,
            lambda at: self._store.pair_batch(queries[at], passages[at], self._layout),
            token_budget_batches(lengths, self._budget),
            device=self.device,
            on_rows=progress.advance,
        )


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs to be scored by one call."""

    queries: npt.NDArray[np.integer]
    passages: npt.NDArray[np.integer]


@dataclass(frozen=True)
class MakePairWork:
    """Work that answers `Pairs` with their logits."""

    ranker: Artifact
    tokens: Artifact
    params: ScoringParams
    writer: ArtifactWriter

    def __call__(self) -> _ScorePairs:
        """Load the ranker."""
        return _ScorePairs(PairScorer(self.ranker, self.tokens, self.params, self.writer))


class _ScorePairs:
    def __init__(self, scorer: PairScorer) -> None:
        self._scorer = scorer

    def __call__(self, task: Pairs, progress: Progress) -> dict[str, Any]:
        from pipeline.models.device import describe

        logits = self._scorer.logits(task.queries, task.passages, progress)
        return {"logits": logits, "device": describe(self._scorer.device)}
