from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from pipeline.models.card import Card
from pipeline.models.dual_encoder import DualEncoder, DualEncoderConfig, tower_folder
from pipeline.models.encoder import TensorBatch
from pipeline.models.pooling import Pooling

Batch = Callable[..., TensorBatch]
QUERIES = ["w1 w2 w3", "w4", " ".join(f"w{number}" for number in range(20))]
PASSAGES = [("w5 w6", "w7 w8 w9"), ("w1", "w2"), ("w3 " * 30, "w4 " * 5)]


def built(folder: Path, config: DualEncoderConfig) -> DualEncoder:
    """A dual encoder whose towers differ."""
    model = DualEncoder.from_base(folder, config).eval()
    if not config.shared:
        with torch.no_grad():
            model.passage_tower.word_embeddings.weight.mul_(1.3)
    return model


def save(model: DualEncoder, folder: Path, tokenizer: Path) -> None:
    model.save(folder, tokenizer=tokenizer, query_max_len=8, passage_max_len=16)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("pooling", "normalize"), [("cls", False), ("mean", True)])
def test_sentence_transformers_gives_equal_vectors(
    checkpoints: dict[str, Path],
    tmp_path: Path,
    batch: Batch,
    kind: str,
    shared: bool,
    pooling: Pooling,
    normalize: bool,
) -> None:
    config = DualEncoderConfig(
        pooling=pooling, normalize=normalize, shared=shared, temperature=0.05
    )
    model = built(checkpoints[kind], config)
    save(model, tmp_path / "model", checkpoints[kind])
    titles, texts = [title for title, _ in PASSAGES], [text for _, text in PASSAGES]
    with torch.inference_mode():
        queries = model.encode_queries(batch(kind, 8, QUERIES)).numpy()
        passages = model.encode_passages(batch(kind, 16, titles, texts)).numpy()
    theirs = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    np.testing.assert_allclose(theirs.encode_query(QUERIES), queries, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(theirs.encode_document(PASSAGES), passages, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        theirs.similarity(queries, passages).numpy(), queries @ passages.T, rtol=1e-4, atol=1e-4
    )
    assert theirs.similarity_fn_name == ("cosine" if normalize else "dot")
    if normalize:
        np.testing.assert_allclose(np.linalg.norm(passages, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("shared", [True, False])
def test_load_restores_every_weight_and_the_configuration(
    checkpoints: dict[str, Path], tmp_path: Path, shared: bool
) -> None:
    config = DualEncoderConfig(pooling="mean", normalize=True, temperature=0.02, shared=shared)
    model = built(checkpoints["bert"], config)
    save(model, tmp_path, checkpoints["bert"])
    restored = DualEncoder.load(tmp_path)
    assert restored.config == config
    state = model.state_dict()
    assert state.keys() == restored.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in restored.state_dict().items())
    # No tensor is named twice, so the state can be written as safetensors as it is.
    assert len({value.data_ptr() for value in state.values()}) == len(state)


def test_each_tower_loads_in_transformers_with_its_own_length(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    model = built(checkpoints["bert"], DualEncoderConfig())
    save(model, tmp_path, checkpoints["bert"])
    for name, tower, length in (
        ("query", model.query_tower, 8),
        ("passage", model.passage_tower, 16),
    ):
        folder = tower_folder(tmp_path, name)  # type: ignore[arg-type]
        loaded = AutoModel.from_pretrained(folder)
        weight = loaded.get_input_embeddings().weight
        assert torch.equal(weight, tower.word_embeddings.weight)
        assert AutoTokenizer.from_pretrained(folder).model_max_length == length


def test_separate_towers_start_equal_and_train_apart(
    checkpoints: dict[str, Path], batch: Batch
) -> None:
    model = DualEncoder.from_base(checkpoints["bert"], DualEncoderConfig()).eval()
    tokens = batch("bert", 8, QUERIES)
    queries, passages = model.encode_queries(tokens), model.encode_passages(tokens)
    assert torch.equal(queries, passages)
    queries.sum().backward()
    assert model.query_tower.word_embeddings.weight.grad is not None
    assert model.passage_tower.word_embeddings.weight.grad is None
    unused = [name for name, value in model.query_tower.named_parameters() if value.grad is None]
    assert unused == []


def test_an_untied_tower_gives_the_same_vectors_and_trains_apart(
    checkpoints: dict[str, Path], batch: Batch, tmp_path: Path
) -> None:
    config = DualEncoderConfig(pooling="mean", normalize=True, shared=True)
    shared = DualEncoder.from_base(checkpoints["bert"], config).eval()
    model = shared.untied()
    assert model.config == config.model_copy(update={"shared": False})
    tokens = batch("bert", 8, QUERIES)
    vectors = model.encode_queries(tokens)
    assert torch.equal(vectors, shared.encode_queries(tokens))
    with torch.no_grad():
        model.query_tower.word_embeddings.weight.mul_(1.3)
    assert not torch.equal(model.encode_queries(tokens), vectors)
    assert torch.equal(model.encode_passages(tokens), vectors)
    save(model, tmp_path, checkpoints["bert"])
    assert torch.equal(DualEncoder.load(tmp_path).eval().encode_passages(tokens), vectors)
    assert model.untied() is model


def test_a_foreign_folder_is_refused(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(FileNotFoundError, match=r"retriever\.json"):
        DualEncoder.load(checkpoints["bert"])


def test_the_card_says_what_it_was_told(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    card = Card("Tiny | test", facts={"seed": 7}, metrics={"RR@10 (dev)": 0.5}, license="mit")
    DualEncoder.from_base(checkpoints["bert"], DualEncoderConfig(shared=True)).save(
        tmp_path, tokenizer=checkpoints["bert"], query_max_len=8, passage_max_len=16, card=card
    )
    text = (tmp_path / "README.md").read_text()
    assert "license: mit" in text
    assert "| seed | 7 |" in text
    assert "| RR@10 (dev) | 0.5000 |" in text
