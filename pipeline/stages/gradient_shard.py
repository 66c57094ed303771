"""The work of the `gradients` stage at some ranks, over all queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from pipeline.artifacts.writer import ArtifactWriter
from pipeline.dag.contract import Inputs, Progress
from pipeline.methods.gradient_statistics import RankSums
from pipeline.models.device import choose_device, describe
from pipeline.models.dual_encoder import DualEncoder
from pipeline.models.encoder import TensorBatch
from pipeline.models.inference import prepare
from pipeline.models.score_gradients import ScoreGradients
from pipeline.stages import tables
from pipeline.stages.gradient_study import GradientStudy
from pipeline.stages.gradients import GradientsParams
from pipeline.text.batches import equal_length_batches

Rows = npt.NDArray[np.integer]


@dataclass(frozen=True)
class RankTask:
    """Neighbouring ranks, and the number of their output."""

    index: int
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class MakeGradientWork:
    """Everything that a worker needs, by name."""

    inputs: Inputs
    params: GradientsParams
    writer: ArtifactWriter
    seed: int

    def __call__(self) -> GradientShard:
        """Load the retriever, and read what is studied."""
        return GradientShard(self)


class GradientShard:
    """Statistics of the gradients at some ranks. Only sums over the queries are kept."""

    def __init__(self, made: MakeGradientWork) -> None:
        self._made = made
        self._device = choose_device()
        model = DualEncoder.load(made.inputs["retriever"].folder("model"))
        self._gradients = ScoreGradients(prepare(model, self._device, "float32"))
        self._store = tables.open_tokens(made.inputs["tokens"])
        self._study = GradientStudy.read(made.inputs, made.params, made.seed)

    def __call__(self, task: RankTask, progress: Progress) -> dict[str, Any]:
        """Write the rows of the task's ranks."""
        queries, at_once = len(self._study.queries), self._made.params.gradients_at_once
        sums = RankSums.none(len(task.ranks), self._gradients.parameters, self._device)
        for first in range(0, queries, at_once):
            self._add(sums, task, np.arange(first, min(first + at_once, queries)), progress)
        found = sums.finish()
        table = pa.table(
            {
                "rank": pa.array(task.ranks, pa.int32()),
                "queries": pa.array([queries] * len(task.ranks), pa.int32()),
                "mean_norm": found.mean_norm,
                "variance_norm": found.variance_norm,
                "trace_covariance": found.trace_covariance,
                "mean_cosine": found.mean_cosine,
            }
        )
        info = {"parameters": self._gradients.parameters, "device": describe(self._device)}
        self._made.writer.shards("ranks").write(task.index, table, info)
        return {}

    def _add(self, sums: RankSums, task: RankTask, queries: Rows, progress: Progress) -> None:
        """Add what the entries of some queries contribute; `queries` are rows of the study."""
        study = self._study
        columns = study.columns(task.ranks)
        positives = self._of(queries, study.positives[queries])
        places = np.tile(study.ranks[columns] - task.ranks[0], len(queries))
        own = np.repeat(np.arange(len(queries)), len(columns))
        passages, factors = (
            values[np.ix_(queries, columns)].ravel() for values in (study.passages, study.factors)
        )
        # Neighbours of equal length are computed together.
        order = np.argsort(self._store.passage_lengths(passages), kind="stable")
        for first in range(0, len(order), self._made.params.gradients_at_once):
            pairs = order[first : first + self._made.params.gradients_at_once]
            sums.add(
                RankSums.of(
                    len(task.ranks),
                    self._tensor(places[pairs]),
                    self._tensor(factors[pairs]),
                    self._of(queries[own[pairs]], passages[pairs]),
                    positives[self._tensor(own[pairs])],
                )
            )
            progress.advance(len(pairs))

    def _of(self, queries: Rows, passages: Rows) -> Tensor:
        """Gradients of the scores of pairs, [pairs, parameters]."""
        found = torch.empty((len(passages), self._gradients.parameters), device=self._device)
        for pairs in equal_length_batches(self._store.passage_lengths(passages)):
            batch = TensorBatch.from_tokens(
                self._store.passage_batch(passages[pairs]), self._device
            )
            vectors = self._study.vectors[queries[pairs]].astype(np.float32)
            found[self._tensor(pairs)] = self._gradients(batch, self._tensor(vectors))
        return found

    def _tensor(self, values: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(values).to(self._device)
