"""Writing a base model's folder: plain `AutoModel` weights and config, tokenizer, its facts."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    BertConfig,
    BertModel,
)

from pipeline.models.base import WEIGHTS, BaseModelError, BaseSource, find, needed_files
from pipeline.models.dual_encoder import DualEncoderConfig
from pipeline.models.encoder import quiet
from pipeline.models.layout import copy_tokenizer, read_json, write_json
from pipeline.models.pooling import Pooling

FACTS = "base.json"


class BaseFacts(BaseModel):
    """What `base.json` holds.

    Attributes:
        model: as the user named it.
        identity: see `BaseSource`.
        pooling: how the model as released pools, where it is a sentence-embedding model of a form
            this project can reproduce.
        normalize: whether it then scales vectors to length 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    model: str
    identity: str
    pooling: Pooling | None = None
    normalize: bool = False

    @classmethod
    def read(cls, folder: Path) -> BaseFacts:
        """Read the facts of a base model's folder."""
        return cls.model_validate_json((folder / FACTS).read_text(encoding="utf-8"))

    def released_retriever(self) -> DualEncoderConfig | None:
        """How to encode with the model as released, or None if it is no such model."""
        if self.pooling is None:
            return None
        return DualEncoderConfig(pooling=self.pooling, normalize=self.normalize, shared=True)


class ScratchSizes(BaseModel):
    """Sizes of a BERT that starts from random weights."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    vocab_size: int
    hidden_size: int = 256
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    intermediate_size: int = 1024
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    pad_token_id: int = 0


def write_base(
    target: Path, model: str, revision: str | None = None, *, online: bool | None = None
) -> BaseSource:
    """Copy a base model into `target`: safetensors weights, config, tokenizer, `base.json`.

    Truncation and padding kept in the tokenizer file from its own export are taken out, since they
    would apply to whoever opens the file without stating his own.

    Raises:
        BaseModelError: the model cannot be had, or no native encoder class reads it.
    """
    source = find(model, revision, online=online)
    config = read_json(source.folder / "config.json")
    check_native(config, model)
    target.mkdir(parents=True, exist_ok=True)
    for name in needed_files(path.name for path in source.folder.iterdir()):
        if WEIGHTS.fullmatch(name):
            shutil.copyfile(source.folder / name, target / name)
    config.pop("auto_map", None)
    write_json(target / "config.json", config)
    copy_tokenizer(source.folder, target)
    _free_tokenizer(target / "tokenizer.json")
    pooling, normalize = _released_pooling(source.folder)
    facts = BaseFacts(model=model, identity=source.identity, pooling=pooling, normalize=normalize)
    write_json(target / FACTS, facts.model_dump())
    return source


def write_scratch(target: Path, sizes: ScratchSizes, seed: int) -> None:
    """Write a BERT with random weights; its tokenizer is trained and supplied later.

    Equal sizes and seed give equal weights; torch's global generator is left as it was.
    """
    if sizes.hidden_size % sizes.num_attention_heads:
        raise BaseModelError(
            f"scratch: hidden_size {sizes.hidden_size} is not a multiple of num_attention_heads "
            f"{sizes.num_attention_heads}"
        )
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        BertModel(BertConfig(**sizes.model_dump())).save_pretrained(target)
    facts = BaseFacts(model="scratch", identity="scratch")
    write_json(target / FACTS, facts.model_dump())


def check_native(config: dict[str, Any], where: str) -> None:
    """Check that a class of transformers itself reads this checkpoint as an encoder.

    Raises:
        BaseModelError: the checkpoint needs its own code, is of an unknown type, or no encoder.
    """
    kind = config.get("model_type")
    if kind not in CONFIG_MAPPING or CONFIG_MAPPING[kind] not in MODEL_MAPPING:
        if "auto_map" in config:
            raise BaseModelError(
                f"{where}: model_type {kind!r} runs only with code from its own repository "
                "(auto_map in config.json), which is never executed here; choose a model with a "
                "class in transformers"
            )
        raise BaseModelError(
            f"{where}: model_type {kind!r} in config.json is not known to the installed "
            "transformers; choose another model or a newer transformers"
        )
    known = CONFIG_MAPPING[kind].from_dict(config)
    # What is trained by masking sees a text from both sides; in a decoder the first token sees
    # itself alone, so that all texts would have one vector.
    if (
        known.is_encoder_decoder
        or getattr(known, "is_decoder", False)
        or CONFIG_MAPPING[kind] not in MODEL_FOR_MASKED_LM_MAPPING
    ):
        raise BaseModelError(
            f"{where}: {kind!r} is no encoder of text; give one such as BERT, RoBERTa, ERNIE, XLM-R"
        )


@dataclass(frozen=True)
class Capacity:
    """What a checkpoint's tables can look up.

    Attributes:
        vocabulary: token ids are smaller than this.
        length: the longest input in tokens; None where positions are not looked up in a table.
    """

    vocabulary: int
    length: int | None


def capacity(folder: Path) -> Capacity:
    """The capacity of the encoder that a checkpoint's config.json describes."""
    # On the meta device the tables have their sizes and no memory.
    with torch.device("meta"), quiet():
        model = AutoModel.from_config(AutoConfig.from_pretrained(folder))
    length = None
    for name, module in model.named_modules():
        owner, _, own = name.rpartition(".")
        if own == "position_embeddings" and isinstance(module, nn.Embedding):
            # RoBERTa-like classes number positions from the padding token's id + 1.
            padding = getattr(model.get_submodule(owner), "padding_idx", None)
            length = module.num_embeddings - (0 if padding is None else padding + 1)
    return Capacity(model.get_input_embeddings().num_embeddings, length)


def check_capacity(folder: Path, where: str, vocab_size: int, lengths: Mapping[str, int]) -> None:
    """Check that a checkpoint can look up all that it will be given.

    Args:
        folder: of the checkpoint.
        where: what the messages call it.
        vocab_size: token ids are smaller than this.
        lengths: inputs in tokens, by the names of the parameters that set them.

    Raises:
        BaseModelError: an id may lie outside the embedding table, or an input be too long.
    """
    found = capacity(folder)
    if vocab_size > found.vocabulary:
        raise BaseModelError(
            f"{where}: the tokenizer has ids up to {vocab_size - 1}, but the model's embedding "
            f"table has {found.vocabulary} rows: these weights and this tokenizer do not belong "
            "together; take a checkpoint with the tokenizer it was trained with"
        )
    longer = [
        f"{name} {length}"
        for name, length in lengths.items()
        if found.length is not None and length > found.length
    ]
    if longer:
        raise BaseModelError(
            f"{where}: the model reads at most {found.length} tokens, fewer than "
            f"{' and '.join(longer)}: lower that in the tokenize stage to {found.length} or less, "
            "or take a model with more positions"
        )


def _free_tokenizer(path: Path) -> None:
    if path.exists():
        content = read_json(path)
        if content.get("truncation") is not None or content.get("padding") is not None:
            write_json(path, {**content, "truncation": None, "padding": None})


def _released_pooling(folder: Path) -> tuple[Pooling | None, bool]:
    """Pooling and normalisation of a sentence-embedding model, from its list of modules."""
    modules, pooling = folder / "modules.json", folder / "1_Pooling" / "config.json"
    if not modules.exists() or not pooling.exists():
        return None, False
    kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in read_json(modules)]
    settings = read_json(pooling)
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        return None, False
    # Releases before 6 wrote one flag a mode, later ones the mode's name.
    on = [name for name, value in settings.items() if name.startswith("pooling_mode_") and value]
    normalize = "Normalize" in kinds
    if on == ["pooling_mode_cls_token"] or settings.get("pooling_mode") == "cls":
        return "cls", normalize
    if on == ["pooling_mode_mean_tokens"] or settings.get("pooling_mode") == "mean":
        return "mean", normalize
    return None, False
