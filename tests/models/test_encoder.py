from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, ModernBertConfig, ModernBertModel

from pipeline.models.encoder import TensorBatch, TextEncoder

Batch = Callable[..., TensorBatch]


def test_states_equal_transformers_own_with_and_without_padding(
    checkpoints: dict[str, Path], batch: Batch, kind: str
) -> None:
    ours = TextEncoder.load(checkpoints[kind]).eval()
    reference = AutoModel.from_pretrained(checkpoints[kind], attn_implementation="eager").eval()
    tokens = batch(kind, 32, ["w1 w2", "w3"], ["w4 w5 w6 w7", "w8"])
    assert tokens.padded
    segments = {"token_type_ids": tokens.token_type_ids} if kind in ("bert", "ernie") else {}
    with torch.inference_mode():
        wanted = reference(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, **segments
        ).last_hidden_state
        found = ours(tokens)
        alone = ours(batch(kind, 32, ["w3"], ["w8"]))
    real = tokens.attention_mask.bool()
    torch.testing.assert_close(found[real], wanted[real], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(alone[0], found[1, : alone.shape[1]], rtol=1e-4, atol=1e-4)


def test_dropout_reaches_attention_that_has_it_as_a_number() -> None:
    sizes = {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "pad_token_id": 0,
    }
    config = ModernBertConfig(
        vocab_size=30, num_hidden_layers=1, attention_dropout=0.5, embedding_dropout=0.5, **sizes
    )
    encoder = TextEncoder(ModernBertModel(config)).train()
    ids = torch.randint(1, 30, (2, 9))
    tokens = TensorBatch(ids, torch.ones_like(ids), torch.zeros_like(ids), padded=False)
    assert not torch.equal(encoder(tokens), encoder(tokens))
    encoder.set_dropout(0.0)
    assert torch.equal(encoder(tokens), encoder(tokens))


def test_segments_reach_models_that_have_them(checkpoints: dict[str, Path], batch: Batch) -> None:
    model = TextEncoder.load(checkpoints["bert"]).eval()
    with torch.inference_mode():
        pair = model(batch("bert", 32, ["w1"], ["w2"]))
        tokens = batch("bert", 32, ["w1"], ["w2"])
        tokens.token_type_ids.zero_()
        assert not torch.allclose(pair, model(tokens))


def test_a_checkpoint_without_all_weights_is_refused(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(checkpoints["bert"], tmp_path / "cut")
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 weights of BertModel"):
        TextEncoder.load(folder)


def test_loading_is_silent(checkpoints: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    TextEncoder.load(checkpoints["bert"])
    assert capfd.readouterr() == ("", "")
