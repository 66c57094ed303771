"""Small tokenisers with the layouts of the encoder families, trained on a few sentences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SENTENCES = [
    "the quick brown fox jumps over the lazy dog",
    "a retriever finds passages for a query",
    "the ranker reads query and passage together",
    "Titles come first, then the text of a passage.",
    "- a dash stands for a missing title",
]
BERT_SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def wordpiece() -> Tokenizer:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=200, special_tokens=BERT_SPECIALS, show_progress=False
    )
    backend.train_from_iterator(SENTENCES, trainer)
    return backend


def save_bert(folder: Path) -> None:
    backend = wordpiece()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    # As in published checkpoints, the file carries truncation and padding of its last use.
    backend.enable_truncation(8)
    backend.enable_padding(length=8)
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(str(folder))


def save_ernie(folder: Path) -> None:
    """Like the published ERNIE checkpoints: a vocabulary and a model type, nothing else."""
    folder.mkdir(exist_ok=True)
    vocabulary = wordpiece().get_vocab()
    words = sorted(vocabulary, key=lambda word: vocabulary[word])
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "ernie"}), encoding="utf-8")


def save_roberta(folder: Path) -> None:
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=ROBERTA_SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    backend.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), add_prefix_space=False
    )
    _save_angle_brackets(backend, folder)


def save_xlm_roberta(folder: Path) -> None:
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=150,
        special_tokens=ROBERTA_SPECIALS,
        unk_token="<unk>",
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B:1 </s>:1",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    _save_angle_brackets(backend, folder)


def _save_angle_brackets(backend: Tokenizer, folder: Path) -> None:
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        cls_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(str(folder))


FAMILIES = {
    "bert": save_bert,
    "ernie": save_ernie,
    "roberta": save_roberta,
    "xlm-roberta": save_xlm_roberta,
}


@pytest.fixture(params=sorted(FAMILIES))
def tokenizer_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A checkpoint folder with the tokeniser of each family in turn."""
    folder = tmp_path / str(request.param)
    FAMILIES[request.param](folder)
    return folder


@pytest.fixture
def bert_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "bert"
    save_bert(folder)
    return folder
