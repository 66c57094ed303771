"""The retriever: queries and passages become vectors, relevance is their inner product."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from pipeline.models import layout
from pipeline.models.card import Card
from pipeline.models.encoder import TensorBatch, TextEncoder
from pipeline.models.pooling import Pooling, pool, unit_length

SETTINGS = "retriever.json"
_TOWERS = {"query": "query", "document": "passage"}


class DualEncoderConfig(BaseModel):
    """How vectors are made and compared.

    RocketQA: cls, not normalised, temperature 1, separate towers.

    Attributes:
        pooling: first token's state, or mean over the tokens.
        normalize: scale vectors to length 1, so that the score is the cosine.
        temperature: training divides scores by it; vectors do not depend on it.
        shared: one tower for queries and passages instead of two.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    pooling: Pooling = "cls"
    normalize: bool = False
    temperature: float = Field(default=1.0, gt=0)
    shared: bool = False


class Retriever(BaseModel):
    """What `retriever.json` holds: the configuration and the longest inputs in tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: Literal[1] = 1
    config: DualEncoderConfig
    query_max_len: int
    passage_max_len: int

    @classmethod
    def read(cls, folder: Path) -> Retriever:
        """Read a retriever's settings from its folder.

        Raises:
            FileNotFoundError: the folder holds no retriever of this project.
            ValueError: the settings are not of a known format.
        """
        path = folder / SETTINGS
        if not path.exists():
            raise FileNotFoundError(f"{path}: not found; {folder} is no retriever of this project")
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except ValidationError as error:
            raise ValueError(f"{path}: {error}") from error


class DualEncoder(nn.Module):
    """Two towers (or one) over a Hugging Face encoder.

    Attributes:
        config: how vectors are made and compared.
        towers: `tower` alone when shared, else `query` and `passage`.
    """

    SHARED: ClassVar[str] = "tower"

    def __init__(
        self, query: TextEncoder, passage: TextEncoder | None, config: DualEncoderConfig
    ) -> None:
        """Build from towers.

        Args:
            query: tower of queries, or the shared one.
            passage: tower of passages; None exactly when `config.shared`.
            config: how vectors are made and compared.
        """
        super().__init__()
        if (passage is None) != config.shared:
            raise ValueError("give a passage tower exactly when the towers are not shared")
        self.config = config
        # Shared weights under one name: a state has each tensor once, as safetensors demands.
        self.towers = nn.ModuleDict(
            {self.SHARED: query} if passage is None else {"query": query, "passage": passage}
        )

    @classmethod
    def from_base(cls, folder: Path, config: DualEncoderConfig) -> DualEncoder:
        """Start from a base model's folder; separate towers start as equal copies."""
        query = TextEncoder.load(folder)
        return cls(query, None if config.shared else copy.deepcopy(query), config)

    @classmethod
    def load(cls, folder: Path) -> DualEncoder:
        """Load what `save` wrote, in float32."""
        config = Retriever.read(folder).config
        if config.shared:
            return cls(TextEncoder.load(folder), None, config)
        return cls(
            TextEncoder.load(tower_folder(folder, "query")),
            TextEncoder.load(tower_folder(folder, "passage")),
            config,
        )

    def untied(self) -> DualEncoder:
        """This model with a tower for each side: a shared one, and a copy of it for queries."""
        if not self.config.shared:
            return self
        config = self.config.model_copy(update={"shared": False})
        return DualEncoder(copy.deepcopy(self.query_tower), self.passage_tower, config)

    @property
    def query_tower(self) -> TextEncoder:
        """The encoder of queries."""
        return self._tower("query")

    @property
    def passage_tower(self) -> TextEncoder:
        """The encoder of passages."""
        return self._tower("passage")

    def _tower(self, name: str) -> TextEncoder:
        tower = self.towers[self.SHARED if self.config.shared else name]
        assert isinstance(tower, TextEncoder)
        return tower

    @property
    def width(self) -> int:
        """Size of a vector."""
        return self.query_tower.width

    def encode_queries(self, batch: TensorBatch) -> Tensor:
        """Vectors of queries: [batch, width], float32, length 1 if `normalize`."""
        return self._encode(self.query_tower, batch)

    def encode_passages(self, batch: TensorBatch) -> Tensor:
        """Vectors of passages: [batch, width], float32, length 1 if `normalize`."""
        return self._encode(self.passage_tower, batch)

    def _encode(self, tower: TextEncoder, batch: TensorBatch) -> Tensor:
        return self.pooled(tower(batch), batch.attention_mask)

    def pooled(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """Vectors [batch, width] of a tower's token states [batch, length, width]."""
        vectors = pool(states, attention_mask, self.config.pooling)
        return unit_length(vectors) if self.config.normalize else vectors

    def save(
        self,
        folder: Path,
        *,
        tokenizer: Path,
        query_max_len: int,
        passage_max_len: int,
        card: Card | None = None,
    ) -> None:
        """Write a folder that `load`, sentence-transformers and transformers read.

        Shared: the folder itself is a Transformer, followed by Pooling and perhaps Normalize.
        Separate: a Router over the subfolders `query` and `passage`, each of which `AutoModel`
        reads. Passages with titles go in as pairs: `encode_document([(title, text), ...])`.

        Args:
            folder: where; created.
            tokenizer: folder of the tokenizer the model was trained with.
            query_max_len: longest query in tokens, special tokens included.
            passage_max_len: longest passage in tokens, special tokens included.
            card: for README.md.
        """
        folder.mkdir(parents=True, exist_ok=True)
        lengths = {"query": query_max_len, "passage": passage_max_len}
        if self.config.shared:
            tower = self.query_tower
            layout.write_tower(folder, tower, tokenizer, passage_max_len, query_max_len)
        else:
            for name, length in lengths.items():
                layout.write_tower(folder / name, self._tower(name), tokenizer, length)
            layout.write_router(folder, _TOWERS)
        layout.write_retriever_modules(
            folder,
            self.width,
            self.config.pooling,
            shared=self.config.shared,
            normalize=self.config.normalize,
        )
        settings = Retriever(
            config=self.config, query_max_len=query_max_len, passage_max_len=passage_max_len
        )
        layout.write_json(folder / SETTINGS, settings.model_dump())
        (card or Card("Dense retriever")).write(folder, "retriever")


def tower_folder(folder: Path, tower: Literal["query", "passage"]) -> Path:
    """The folder of one tower's checkpoint inside a saved retriever (the folder itself if shared).

    A ranker may start from it: `CrossEncoder.from_base(tower_folder(retriever, "passage"), ...)`.
    """
    return folder if Retriever.read(folder).config.shared else folder / tower
