"""Training the query tower alone, against what it finds among frozen passages itself (ADORE)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.methods.lists import PassageLists
from pipeline.methods.losses import RETRIEVER_LOSSES, RetrieverLoss
from pipeline.models.device import Precision
from pipeline.models.dual_encoder import DualEncoder
from pipeline.models.encoder import to_device
from pipeline.search.ranking import Excluded, TopK
from pipeline.text.store import TokenStore
from pipeline.training.batches import Share
from pipeline.training.gradient_cache import backward
from pipeline.training.rows import Rows, TrainingRows
from pipeline.training.sides import Sides
from pipeline.training.world import World


class FrozenPassages(Protocol):
    """Vectors of all passages, which training does not move."""

    def __len__(self) -> int:
        """Number of passages."""

    def nearest(self, queries: NDArray[np.float32], depth: int, excluded: Excluded) -> TopK:
        """The `depth` best passages of each query, [B, d], exactly, without the excluded."""

    def vectors(self, passages: NDArray[np.integer]) -> NDArray[np.float32]:
        """The vectors of some passages, any shape [...]: [..., d]."""


@dataclass(frozen=True, eq=False)
class QueryTowerObjective:
    """The row's positive against the query's own nearest passages, searched anew in every step.

    Only queries are encoded. A row's candidates are its positive and the passages that its query,
    as it is encoded in this step, is nearest to; all vectors of passages are frozen. So no search
    is ever out of date, and rows do not depend on each other.

    Attributes:
        model: its query tower is trained in place; on the device of the `World` it is trained in.
        store: inputs of queries.
        rows: whose positives are trained on; their negatives play no part.
        passages: what is searched; made by the model's passage tower.
        known: what is never a negative, by query; each row's own positive must be among it.
        num_negatives: nearest passages that a positive is compared with; ADORE has 200.
        comparison: the loss of a row's positive and its candidates; ADORE has `lambda_rank`.
        token_budget: padded tokens of a micro-batch; a larger batch goes through the gradient
            cache.
        precision: of the encoder's matrix products; search, scores and loss are float32.
    """

    model: DualEncoder
    store: TokenStore
    rows: Rows
    passages: FrozenPassages
    known: PassageLists
    num_negatives: int
    comparison: RetrieverLoss = "lambda_rank"
    token_budget: int = 16384
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.model.config.shared:
            raise ValueError(
                "queries and passages share a tower, which would move both: train `untied()`"
            )
        self.model.passage_tower.requires_grad_(False)

    @property
    def models(self) -> Mapping[str, nn.Module]:
        """The one trained model, `retriever`, whose passage tower takes no gradient."""
        return {"retriever": self.model}

    @property
    def row_count(self) -> int:
        """Number of training rows."""
        return len(self.rows)

    @property
    def rows_per_group(self) -> int:
        """Rows are independent of each other."""
        return 1

    def describe(self, global_batch_size: int) -> str:
        """What a query is compared with."""
        return (
            f"{self.num_negatives} negatives per query (its nearest of {len(self.passages)} "
            f"frozen passages, searched in every step), {self.comparison} loss"
        )

    def step(self, share: Share, world: World) -> Mapping[str, Tensor]:
        """Forward and backward over this rank's rows; see `Objective.step`."""
        batch = self.rows.batch(share.rows, share.epoch)
        sides = Sides(self.store, world.device, self.precision, self.token_budget)
        queries = sides.queries(self.model, batch.query_indices)
        loss = backward([queries], lambda vectors: self.loss(vectors, batch), world.device)
        return {"loss": loss}

    def loss(self, query_vectors: Tensor, batch: TrainingRows) -> Tensor:
        """Mean loss of the rows, whose queries' vectors are [B, d]."""
        device = query_vectors.device
        found = self._nearest(query_vectors, batch)
        absent = found < 0
        # A place without a passage is left out of the loss; any vector may stand there.
        found = np.where(absent, batch.positives[:, None], found)
        candidates = np.concatenate([batch.positives[:, None], found], axis=1)
        vectors = to_device(self.passages.vectors(candidates), device)
        scores = torch.einsum("bd,bcd->bc", query_vectors, vectors)
        labels = torch.zeros(len(scores), dtype=torch.long, device=device)
        excluded = to_device(np.pad(absent, ((0, 0), (1, 0))), device)
        temperature = self.model.config.temperature
        return RETRIEVER_LOSSES[self.comparison](scores, labels, excluded, temperature)

    def _nearest(self, query_vectors: Tensor, batch: TrainingRows) -> NDArray[np.int64]:
        """Each query's nearest passages that may be negatives, -1 for none: [B, num_negatives]."""
        known = self.known.of(batch.query_indices)
        excluded = Excluded(known.rows, known.passage_indices.astype(np.int64))
        vectors = query_vectors.detach().float().cpu().numpy()
        found = self.passages.nearest(vectors, self.num_negatives, excluded)
        return found.passage_index.astype(np.int64)
