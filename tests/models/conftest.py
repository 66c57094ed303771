from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    ErnieConfig,
    ErnieModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from pipeline.models.encoder import TensorBatch

KINDS = ("bert", "roberta", "ernie", "xlm-roberta")
WORDS = [f"w{number}" for number in range(40)]
_CLASSES: dict[str, tuple[Any, Any]] = {
    "bert": (BertConfig, BertModel),
    "roberta": (RobertaConfig, RobertaModel),
    "ernie": (ErnieConfig, ErnieModel),
    "xlm-roberta": (XLMRobertaConfig, XLMRobertaModel),
}


def build_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    robust = "roberta" in kind
    cls, sep, pad = ("<s>", "</s>", "<pad>") if robust else ("[CLS]", "[SEP]", "[PAD]")
    # RoBERTa-like position tables rest on pad id 1.
    special = [cls, pad, sep, "[UNK]"] if robust else [pad, cls, sep, "[UNK]"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    pair = f"{cls} $A {sep} {sep} $B {sep}" if robust else f"{cls} $A {sep} $B:1 {sep}:1"
    backend.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=pair,
        special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, cls_token=cls, sep_token=sep, pad_token=pad, unk_token="[UNK]"
    )


def write_checkpoint(folder: Path, kind: str) -> Path:
    config_class, model_class = _CLASSES[kind]
    robust = "roberta" in kind
    config = config_class(
        vocab_size=len(WORDS) + 4,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=64,
        type_vocab_size={"bert": 2, "ernie": 4}.get(kind, 1),
        pad_token_id=1 if robust else 0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = model_class(config)
        # Large weights, so that an input or a layer left out shows in the result.
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    build_tokenizer(kind).save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Arrays:
    input_ids: Any
    attention_mask: Any
    token_type_ids: Any
    query_lengths: Any = None


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("checkpoints")
    return {kind: write_checkpoint(root / kind, kind) for kind in KINDS}


def tokenize(kind: str, max_length: int, *texts: list[str]) -> Arrays:
    found = build_tokenizer(kind)(
        *texts,
        padding=True,
        truncation="longest_first",
        max_length=max_length,
        return_tensors="np",
        return_token_type_ids=True,
    )
    names = ("input_ids", "attention_mask", "token_type_ids")
    return Arrays(*(np.asarray(found[name]) for name in names))


@pytest.fixture
def arrays() -> Callable[..., Arrays]:
    """(kind, max length, texts[, second texts]) -> token arrays by the tokenizer itself."""
    return tokenize


@pytest.fixture
def batch() -> Callable[..., TensorBatch]:
    """As `arrays`, giving tensors."""

    def make(kind: str, max_length: int, *texts: list[str]) -> TensorBatch:
        return TensorBatch.from_tokens(tokenize(kind, max_length, *texts), torch.device("cpu"))

    return make
