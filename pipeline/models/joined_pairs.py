r"""The interaction ranker as a module of sentence-transformers' CrossEncoder.

    from sentence_transformers import CrossEncoder
    from pipeline.models.joined_pairs import JoinedPairs

    ranker = CrossEncoder(modules=[JoinedPairs.load(folder)])
    ranker.predict([(question, f"{title}\t{text}")])

Importing it takes sentence-transformers, which nothing else in this package needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.base.modules import InputModule
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from pipeline.models.card import Card, Titles
from pipeline.models.cross_encoder import CrossEncoder, JoinedInputs, Ranker
from pipeline.models.encoder import TensorBatch


class JoinedPairs(InputModule):  # type: ignore[misc]
    """Reads (query, passage) texts, a tab between a passage's title and its text."""

    def __init__(
        self,
        model: CrossEncoder,
        tokenizer: PreTrainedTokenizerBase,
        joined: JoinedInputs,
        folder: Path,
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.joined = joined
        self._folder = folder

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, **options: Any
    ) -> dict[str, Tensor]:
        """The query's input and the passage's, end to end, padded on the right."""
        queries = self.tokenizer(
            [(prompt or "") + query for query, _ in inputs],
            truncation=True,
            max_length=self.joined.query_max_len,
        )
        passages = self._passages([passage for _, passage in inputs])
        segments = "token_type_ids" if "token_type_ids" in queries else None

        def joined(name: str) -> list[Tensor]:
            pairs = zip(queries[name], passages[name], strict=True)
            return [torch.tensor(list(chain(*pair))) for pair in pairs]

        ids = joined("input_ids")
        features = {
            "input_ids": pad_sequence(ids, True, float(self.tokenizer.pad_token_id or 0)),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], True),
            "query_lengths": torch.tensor([len(row) for row in queries["input_ids"]]),
        }
        types = joined(segments) if segments else [torch.zeros_like(row) for row in ids]
        features["token_type_ids"] = pad_sequence(types, True)
        return features

    def _passages(self, passages: Sequence[str]) -> Any:
        options: dict[str, Any] = {"truncation": True, "max_length": self.joined.passage_max_len}
        parts = [passage.split("\t", 1) for passage in passages]
        texts = [part[-1] for part in parts]
        if not self.joined.title:
            return self.tokenizer(texts, **options)
        titles = [part[0] if len(part) == 2 else "" for part in parts]
        shown = [title or self.joined.missing_title for title in titles]
        return self.tokenizer(shown, texts, **options)

    def forward(self, features: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Adds `scores`, the logits [batch, 1]."""
        batch = TensorBatch(
            features["input_ids"],
            features["attention_mask"],
            features["token_type_ids"],
            padded=True,
            query_lengths=features["query_lengths"],
        )
        features["scores"] = self.model(batch)[:, None]
        return features

    def save(self, output_path: str, *args: Any, **options: Any) -> None:
        """Write the folder that `load` reads."""
        settings = Ranker.read(self._folder)
        self.model.save(
            Path(output_path),
            tokenizer=self._folder,
            pair_max_len=settings.pair_max_len,
            joined=self.joined,
            card=Card("Re-ranker", titles=Titles(self.joined.title, self.joined.missing_title)),
        )

    @classmethod
    def load(cls, model_name_or_path: str | Path, *args: Any, **options: Any) -> JoinedPairs:
        """Load a ranker's folder.

        Raises:
            ValueError: its head reads other inputs.
        """
        folder = Path(model_name_or_path)
        joined = Ranker.read(folder).joined
        if joined is None:
            raise ValueError(f"{folder}: not a ranker over joined inputs; CrossEncoder loads it")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return cls(CrossEncoder.load(folder), tokenizer, joined, folder)
