"""Attention and dropout while training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.models.encoder import TensorBatch, TextEncoder
from pipeline.models.training_mode import prepare_for_training

CPU = torch.device("cpu")


def batch() -> TensorBatch:
    ids = torch.randint(5, 40, (3, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    return TensorBatch(ids, mask, torch.zeros_like(ids), padded=True)


@pytest.mark.parametrize("kind", ["bert", "roberta", "ernie", "xlm-roberta"])
def test_plain_and_fused_attention_agree(checkpoints: dict[str, Path], kind: str) -> None:
    encoder = TextEncoder.load(checkpoints[kind]).eval()
    tokens = batch()
    fused = encoder(tokens)
    encoder.use_fused_attention(False)
    plain = encoder(tokens)
    kept = tokens.attention_mask.bool()
    torch.testing.assert_close(plain[kept], fused[kept], atol=1e-5, rtol=1e-4)


def test_dropout_is_set_in_the_encoder_alone(checkpoints: dict[str, Path]) -> None:
    model = nn.Sequential(TextEncoder.load(checkpoints["bert"]), nn.Dropout(0.3))
    prepare_for_training(model, CPU, dropout=0.0)
    tokens = batch()
    assert model.training
    assert model[1].p == 0.3
    assert torch.equal(model[0](tokens), model[0](tokens))
    prepare_for_training(model, CPU, dropout=0.5)
    assert not torch.equal(model[0](tokens), model[0](tokens))
