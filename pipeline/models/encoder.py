"""A Transformer encoder of any BERT-like class, and the tensors it reads."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import MODEL_MAPPING, AutoConfig, AutoModel
from transformers.utils import logging as transformers_logging

# Classes whose attention takes a ready [batch, 1, 1, length] mask. Handing one over spares a
# check for padding inside the model, which on a GPU would wait for all work queued so far.
_TAKES_SHAPED_MASK = frozenset({"bert", "roberta", "xlm-roberta", "ernie"})


class Tokens(Protocol):
    """Token ids of a batch, padded on the right: three int64 arrays [batch, length]."""

    @property
    def input_ids(self) -> NDArray[np.int64]:
        """Vocabulary ids."""

    @property
    def attention_mask(self) -> NDArray[np.int64]:
        """1 for tokens, 0 for padding."""

    @property
    def token_type_ids(self) -> NDArray[np.int64]:
        """Segment ids."""

    @property
    def query_lengths(self) -> NDArray[np.int64] | None:
        """Tokens of the first input of each row, where two are joined."""


@dataclass(frozen=True)
class TensorBatch:
    """The tensors of a batch on one device.

    Attributes:
        input_ids: [batch, length] int64.
        attention_mask: [batch, length] int64, 1 for tokens, 0 for padding on the right.
        token_type_ids: [batch, length] int64.
        padded: whether any row is padded; known without asking the device.
        query_lengths: [batch] int64, tokens of the first input of each row, where two are joined.
    """

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor
    padded: bool
    query_lengths: Tensor | None = None

    @classmethod
    def from_tokens(cls, tokens: Tokens, device: torch.device) -> TensorBatch:
        """Copy the arrays of `tokens` to `device`; on a GPU without waiting for the copy."""
        return cls(
            to_device(tokens.input_ids, device),
            to_device(tokens.attention_mask, device),
            to_device(tokens.token_type_ids, device),
            padded=not bool(tokens.attention_mask.all()),
            query_lengths=(
                None if tokens.query_lengths is None else to_device(tokens.query_lengths, device)
            ),
        )


def to_device(
    array: NDArray[np.int64] | NDArray[np.bool_] | NDArray[np.float32], device: torch.device
) -> Tensor:
    """Copy an array to `device`; through pinned memory, hence without waiting, to a GPU."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class TextEncoder(nn.Module):
    """A Hugging Face encoder without pooler: token batch to last hidden states."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        parameters = inspect.signature(model.forward).parameters
        self._takes_segments = (
            "token_type_ids" in parameters and getattr(model.config, "type_vocab_size", 0) > 1
        )
        self._fused = model.config.model_type in _TAKES_SHAPED_MASK

    @classmethod
    def load(cls, folder: Path) -> TextEncoder:
        """Load the encoder of a checkpoint folder in float32, without pooler or task head.

        Raises:
            ValueError: the folder does not hold all weights of the class its config names.
        """
        config = AutoConfig.from_pretrained(folder)
        options: dict[str, Any] = {"dtype": torch.float32, "output_loading_info": True}
        if "add_pooling_layer" in inspect.signature(MODEL_MAPPING[type(config)]).parameters:
            options["add_pooling_layer"] = False
        if config.model_type in _TAKES_SHAPED_MASK:
            options["attn_implementation"] = "sdpa"
        with quiet():
            model, report = AutoModel.from_pretrained(
                folder, config=config, use_safetensors=True, **options
            )
        missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
        if missing:
            raise ValueError(
                f"{folder}: the checkpoint lacks {len(missing)} weights of {type(model).__name__} "
                f"({', '.join(missing[:3])}, ...); its config.json and its weights do not belong "
                "together"
            )
        return cls(model)

    def forward(self, batch: TensorBatch) -> Tensor:
        """Last hidden states [batch, length, width]; only inputs the class knows are passed."""
        inputs: dict[str, Tensor | None] = {"input_ids": batch.input_ids}
        inputs["attention_mask"] = batch.attention_mask
        if self._fused:
            # Without a mask attention may take its fastest kernel.
            shaped = batch.attention_mask.bool()[:, None, None, :] if batch.padded else None
            inputs["attention_mask"] = shaped
        if self._takes_segments:
            inputs["token_type_ids"] = batch.token_type_ids
        return cast(Tensor, self.model(**inputs).last_hidden_state)

    def states_under(
        self, batch: TensorBatch, position_ids: Tensor, masks: Sequence[Tensor]
    ) -> Tensor:
        """Last hidden states [batch, length, width] with an attention mask for each layer.

        Args:
            batch: its attention mask is not used.
            position_ids: [batch, length], from 0.
            masks: added to the layers' attention logits; [batch, 1, length, length].

        Raises:
            ValueError: how this class of encoder is built inside is not known.
        """
        kind = self.model.config.model_type
        if kind not in _TAKES_SHAPED_MASK:
            raise ValueError(
                f"encoders of type '{kind}' cannot be given a mask for each layer; those of type "
                f"{', '.join(sorted(_TAKES_SHAPED_MASK))} can"
            )
        # RoBERTa's positions start after the padding token's number.
        first = getattr(self.model.embeddings, "padding_idx", None)
        states = self.model.embeddings(
            input_ids=batch.input_ids,
            position_ids=position_ids + (0 if first is None else first + 1),
            token_type_ids=batch.token_type_ids if self._takes_segments else None,
        )
        for layer, mask in zip(self.model.encoder.layer, masks, strict=True):
            states = layer(states, mask)
        return cast(Tensor, states)

    @property
    def attention_dtype(self) -> torch.dtype:
        """The format that attention computes in: autocast's inside autocast, else the weights'."""
        weights = self.word_embeddings.weight
        device = weights.device.type
        if torch.is_autocast_enabled(device):
            return torch.get_autocast_dtype(device)
        return weights.dtype

    @property
    def layers(self) -> int:
        """Number of Transformer layers."""
        return int(self.model.config.num_hidden_layers)

    @property
    def last_layer(self) -> nn.Module:
        """The last Transformer layer.

        Raises:
            ValueError: this class of encoder does not keep a list of its layers.
        """
        for module in self.model.modules():
            if isinstance(module, nn.ModuleList) and len(module) == self.layers:
                return module[-1]
        raise ValueError(
            f"encoders of type '{self.model.config.model_type}' keep no list of {self.layers} "
            "layers, so that the last one cannot be told from the others"
        )

    def use_fused_attention(self, fused: bool) -> None:
        """Compute attention by torch's fused kernels, or by plain matrix products.

        Encoder classes that are not known to take both keep what they have.
        """
        if self.model.config.model_type in _TAKES_SHAPED_MASK:
            self.model.set_attn_implementation("sdpa" if fused else "eager")
            self._fused = fused

    def set_dropout(self, probability: float) -> None:
        """Set the dropout of all layers and of attention, for training."""
        for module in self.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = probability
            elif isinstance(getattr(module, "attention_dropout", None), float):
                # Some classes hand a number to the attention's kernel.
                module.attention_dropout = probability

    @property
    def input_names(self) -> list[str]:
        """The inputs this encoder reads, as tokenizers name them."""
        segments = ["token_type_ids"] if self._takes_segments else []
        return ["input_ids", *segments, "attention_mask"]

    @property
    def width(self) -> int:
        """Size of a token state."""
        return int(self.model.config.hidden_size)

    @property
    def initializer_range(self) -> float:
        """Standard deviation for fresh weights on top of this encoder."""
        return float(getattr(self.model.config, "initializer_range", 0.02))

    @property
    def word_embeddings(self) -> nn.Embedding:
        """The word-embedding table (adversarial training perturbs it)."""
        return cast(nn.Embedding, self.model.get_input_embeddings())


@contextmanager
def quiet() -> Iterator[None]:
    """Keep progress bars of files and notes about unused task heads off the user's terminal."""
    level, bars = (
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
    )
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
