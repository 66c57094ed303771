"""What an exported ranker reads of title and text, for tokenizers of each kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder as TheirCrossEncoder
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    ErnieConfig,
    ErnieModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from pipeline.models.card import Card, Titles
from pipeline.models.cross_encoder import CrossEncoder, CrossEncoderConfig, Head
from pipeline.models.dual_encoder import DualEncoder, DualEncoderConfig
from pipeline.models.encoder import TensorBatch
from pipeline.text.sentencepiece_model import save_as_fast_tokenizer, train_sentencepiece
from pipeline.text.store import TokenStore
from pipeline.text.template import Tokenization
from pipeline.text.tokenizer import (
    input_template,
    load_tokenizer,
    tokenize_passages,
    tokenize_queries,
    tokenizer_digest,
)
from tests.text.conftest import SENTENCES, save_bert, save_ernie, save_roberta, save_xlm_roberta

TITLES = ["the fox", "", "a query (the lazy one)", "fox", "Titles come first " * 9]
TEXTS = ["the fox jumps", "the ranker reads", "passages, for a query", "(1) a dash", "dog " * 30]
QUERY = "a query"
LENGTHS = Tokenization(query_max_len=12, passage_max_len=24, pair_max_len=40)


def save_sentencepiece(folder: Path) -> None:
    folder.mkdir()
    save_as_fast_tokenizer(train_sentencepiece(SENTENCES * 9, 90), folder)


def save_roberta_by_name(folder: Path) -> None:
    """As published checkpoints have it: a class that builds its own rules from the vocabulary."""
    save_roberta(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "tokenizer_class": "RobertaTokenizer"})
    )


BERT, ROBERTA = (BertConfig, BertModel), (RobertaConfig, RobertaModel)
TOKENIZERS: dict[str, tuple[Callable[[Path], None], Any, str]] = {
    "wordpiece": (save_bert, BERT, " "),
    "vocabulary": (save_ernie, (ErnieConfig, ErnieModel), " "),
    "byte-level": (save_roberta, ROBERTA, "\t"),
    "byte-level by name": (save_roberta_by_name, ROBERTA, "\t"),
    "unigram": (save_xlm_roberta, (XLMRobertaConfig, XLMRobertaModel), " "),
    "sentencepiece": (save_sentencepiece, BERT, " "),
}


@pytest.fixture(params=TOKENIZERS)
def base(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """A checkpoint with a tokenizer of each kind, and what separates title and text there."""
    save, (config_class, model_class), separator = TOKENIZERS[request.param]
    folder = tmp_path / "base"
    save(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 24, "vocab_size": 300, "max_position_embeddings": 50}
    sizes["type_vocab_size"] = 1 if "Roberta" in config_class.__name__ else 2
    torch.manual_seed(3)
    model = model_class(config_class(**sizes))
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return folder, separator


def store_of(base: Path, folder: Path, tokenization: Tokenization = LENGTHS) -> TokenStore:
    tokenizer = load_tokenizer(base)
    template = input_template(tokenizer, tokenization)
    queries = tokenize_queries(tokenizer, template, [QUERY]).table
    passages = tokenize_passages(tokenizer, template, TITLES, TEXTS).table
    return TokenStore.build(folder, [queries], [passages], template)


def pairs_of(separator: str) -> list[tuple[str, str]]:
    return [
        (QUERY, f"{title}{separator}{text}" if title else text)
        for title, text in zip(TITLES, TEXTS, strict=True)
    ]


@pytest.mark.parametrize("head", ["pooled_two_class", "cls_logit"])
def test_the_exported_ranker_reads_the_ids_it_was_trained_on(
    base: tuple[Path, str], tmp_path: Path, head: Head
) -> None:
    folder, separator = base
    store = store_of(folder, tmp_path / "store")
    batch = store.pair_batch(np.zeros(len(TEXTS), np.int64), np.arange(len(TEXTS)))
    torch.manual_seed(5)
    model = CrossEncoder.from_base(folder, CrossEncoderConfig(head=head)).eval()
    with torch.no_grad():
        model.head.classifier.weight.normal_()
    exported = tmp_path / "exported"
    model.save(exported, tokenizer=folder, pair_max_len=LENGTHS.pair_max_len)
    pairs = pairs_of(separator)
    theirs = AutoTokenizer.from_pretrained(exported)
    for row, mask, pair in zip(batch.input_ids, batch.attention_mask, pairs, strict=True):
        ids = theirs(*pair, truncation=True, max_length=LENGTHS.pair_max_len)["input_ids"]
        assert ids == row[mask.astype(bool)].tolist()
    with torch.inference_mode():
        logits = model(TensorBatch.from_tokens(batch, torch.device("cpu")))
    ranker = TheirCrossEncoder(str(exported), device="cpu")
    np.testing.assert_allclose(ranker.predict(pairs), logits.sigmoid().numpy(), atol=1e-5)
    card = (exported / "README.md").read_text()
    assert json.dumps(f"a title{separator}the text of a passage") in card
    exec(card.split("```python\n")[1].split("```")[0].replace("path/to/this/folder", str(exported)))
    # A break at tabs makes no other tokenizer of it: it can be trained further on the same tokens.
    assert tokenizer_digest(load_tokenizer(exported)) == store.template.tokenizer_digest


@pytest.mark.parametrize(
    "titles", [Titles(), Titles(missing=""), Titles(used=False)], ids=["dash", "nothing", "off"]
)
def test_the_retrievers_card_shows_the_passages_it_was_trained_on(
    base: tuple[Path, str], tmp_path: Path, titles: Titles
) -> None:
    folder, _ = base
    tokenization = LENGTHS.model_copy(
        update={"title": titles.used, "missing_title": titles.missing}
    )
    store = store_of(folder, tmp_path / "store", tokenization)
    model = DualEncoder.from_base(folder, DualEncoderConfig(shared=True)).eval()
    exported = tmp_path / "exported"
    model.save(
        exported,
        tokenizer=folder,
        query_max_len=12,
        passage_max_len=24,
        card=Card("", titles=titles),
    )
    card = (exported / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    # The two passages of the card's own lines, one of them without a title.
    for said, meant in (("a title", TITLES[0]), ("the text of a passage", TEXTS[0])):
        code = code.replace(said, meant)
    code = code.replace("a text without title", TEXTS[1])
    found: dict[str, np.ndarray] = {}
    exec(code.replace("path/to/this/folder", str(exported)), found)
    batch = store.passage_batch(np.arange(len(found["passages"])))
    with torch.inference_mode():
        vectors = model.encode_passages(TensorBatch.from_tokens(batch, torch.device("cpu")))
    np.testing.assert_allclose(found["passages"], vectors.numpy(), atol=1e-5)
    assert len(vectors) == (2 if titles.used else 1)
    assert f"| titles | {titles.told('retriever')} |" in card


def test_a_rankers_card_leaves_titles_out_where_training_did(
    base: tuple[Path, str], tmp_path: Path
) -> None:
    folder, _ = base
    model = CrossEncoder.from_base(folder, CrossEncoderConfig(head="cls_logit"))
    card = Card("Re-ranker", titles=Titles(used=False))
    model.save(tmp_path / "exported", tokenizer=folder, pair_max_len=40, card=card)
    text = (tmp_path / "exported" / "README.md").read_text()
    assert 'passages = ["the text of a passage"]' in text
    assert "a title" not in text
