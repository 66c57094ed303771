"""Gradients of single scores for the weights of the passage tower's last Transformer layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipeline.models.dual_encoder import DualEncoder
from pipeline.models.encoder import TensorBatch


class ScoreGradients:
    """d s(q, d) / d theta for each of many pairs; theta are the weights of the last layer.

    Only the passage's way through theta counts: the query's vector is a constant, also where both
    sides share one tower. Pooling and normalisation belong to s, the temperature does not.

    Attributes:
        parameters: P, the numbers in theta.
    """

    def __init__(self, model: DualEncoder) -> None:
        """From a model that is prepared for inference in float32 (`inference.prepare`)."""
        self._model = model
        tower = model.passage_tower
        own = {id(weights) for weights in tower.last_layer.parameters()}
        self._layer = {
            name: weights for name, weights in tower.named_parameters() if id(weights) in own
        }
        self.parameters = sum(weights.numel() for weights in self._layer.values())
        # Layers below the last hold no weights of theta, so that no graph is kept of them.
        self._of_pairs = vmap(grad(self._score), in_dims=(None, 0, 0, 0))

    def __call__(self, passages: TensorBatch, queries: Tensor) -> Tensor:
        """Gradients [pairs, P], float32.

        Args:
            passages: the pairs' passages, all of one length.
            queries: the vectors of the pairs' queries, [pairs, width] float32.

        Raises:
            ValueError: the passages are padded.
        """
        if passages.padded:
            raise ValueError("gradients of single pairs are taken of passages of equal length")
        # vmap has no rule for the fused attention kernels.
        with sdpa_kernel(SDPBackend.MATH):
            found = self._of_pairs(
                self._layer, passages.input_ids, passages.token_type_ids, queries
            )
        return torch.cat([part.flatten(1) for part in found.values()], dim=1)

    def _score(
        self, layer: Mapping[str, Tensor], input_ids: Tensor, token_type_ids: Tensor, query: Tensor
    ) -> Tensor:
        """The score of one pair: ids [length], the query's vector [width]."""
        # The same for all pairs, so that encoders may look into it under vmap.
        every = torch.ones((1, len(input_ids)), dtype=torch.int64, device=input_ids.device)
        batch = TensorBatch(input_ids[None], every, token_type_ids[None], padded=False)
        states: Tensor = functional_call(self._model.passage_tower, dict(layer), (batch,))
        return self._model.pooled(states, every)[0] @ query
