"""A ranker that starts as good as its retriever: joined inputs whose attention opens in training.

A cross-encoder that starts from a sentence encoder has to learn to compare texts from its labels
alone, since the encoder has never read two texts at once. Here the pair is the retriever's query
input and its passage input laid end to end, each with its own positions. Attention between the two
is damped by a learned bias, so that the states start close to the retriever's own, and the head
starts from similarities that those states are good for: the cosine of the two means, which is the
retriever's score, and the mean over query tokens of the best cosine with a passage token (MaxSim of
ColBERT, Khattab and Zaharia 2020, equation 3). Training opens the attention as far as it helps.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.encoder import TensorBatch, TextEncoder

# Retrievers of cosines are trained at temperatures about 0.05.
SIMILARITY_SCALE = 20.0
# Added to attention logits between the two inputs at the start: a twentieth of the weight.
CLOSED = -3.0
# Adam moves each parameter by about the learning rate, too little for these few, which are stored
# divided by this.
SPEED = 100.0
# Between the similarities of relevant and of other pairs, so that no sigmoid starts saturated.
USUAL_SIMILARITY = 0.6


class InteractionHead(nn.Module):
    """From joined inputs to one logit a pair.

    Attributes:
        gates: bias of attention between the two inputs divided by `SPEED`, [layers].
        scales: weights of the two similarities divided by `SPEED`, [2].
        classifier: on the mean of all tokens' states.
    """

    def __init__(self, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.gates = nn.Parameter(torch.full((layers,), CLOSED / SPEED))
        self.scales = nn.Parameter(torch.full((2,), SIMILARITY_SCALE / SPEED))
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, 1)
        # Nothing but the similarities at the start.
        nn.init.zeros_(self.classifier.weight)
        nn.init.constant_(self.classifier.bias, -2 * SIMILARITY_SCALE * USUAL_SIMILARITY)

    def forward(self, encoder: TextEncoder, batch: TensorBatch) -> Tensor:
        """Logits [batch], float32.

        Raises:
            ValueError: the inputs are not joined ones.
        """
        if batch.query_lengths is None:
            raise ValueError("the interaction head reads joined inputs: query_lengths is missing")
        length = batch.input_ids.shape[1]
        place = torch.arange(length, device=batch.input_ids.device)[None]
        query_lengths = batch.query_lengths[:, None]
        in_query = place < query_lengths
        in_passage = (batch.attention_mask > 0) & ~in_query
        positions = torch.where(in_query, place, place - query_lengths)
        # Padding has no passage to be placed in, and may lie beyond the last position there is.
        positions = positions.masked_fill(batch.attention_mask == 0, 0)
        masks = self._masks(in_query, in_passage, encoder.attention_dtype)
        states = encoder.states_under(batch, positions, masks)
        # float32 also inside autocast: bfloat16 logits would tie.
        with torch.autocast(states.device.type, enabled=False):
            return self._logits(states.float(), in_query, in_passage)

    def _masks(self, in_query: Tensor, in_passage: Tensor, dtype: torch.dtype) -> list[Tensor]:
        """What is added to each layer's attention logits: [batch, 1, length, length]."""
        across = in_query[:, None, :, None] != in_query[:, None, None, :]
        padding = ~(in_query | in_passage)[:, None, None, :]
        closed = torch.finfo(dtype).min
        return [
            (across * gate).to(dtype).masked_fill(padding, closed) for gate in SPEED * self.gates
        ]

    def _logits(self, states: Tensor, in_query: Tensor, in_passage: Tensor) -> Tensor:
        query, passage = _mean(states, in_query), _mean(states, in_passage)
        cosine = F.cosine_similarity(query, passage)
        unit = F.normalize(states, dim=-1)
        similarity = unit @ unit.transpose(1, 2)
        best = similarity.masked_fill(~in_passage[:, None, :], -1.0).amax(dim=-1)
        matched = (best * in_query).sum(dim=1) / in_query.sum(dim=1)
        pooled = self.dropout(_mean(states, in_query | in_passage))
        learned = cast(Tensor, self.classifier(pooled)).squeeze(-1)
        weights = SPEED * self.scales
        return learned + weights[0] * cosine + weights[1] * matched


def _mean(states: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the chosen tokens' states, [batch, width]; each row has one at least."""
    total = states.masked_fill(~chosen[..., None], 0).sum(dim=1)
    return total / chosen.sum(dim=1, keepdim=True)
