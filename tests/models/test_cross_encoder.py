from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder as TheirCrossEncoder
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification

from pipeline.models.cross_encoder import CrossEncoder, CrossEncoderConfig, Head
from pipeline.models.device import autocast
from pipeline.models.encoder import TensorBatch

Batch = Callable[..., TensorBatch]
HEADS: tuple[Head, ...] = ("pooled_two_class", "cls_logit", "mean_logit")
QUERIES = ["w1 w2", "w3", "w4 w5"]
PASSAGES = ["w1 w9", "w8 w7 w6 w5", "w10 " * 40]


def built(folder: Path, head: Head, tokens: TensorBatch) -> CrossEncoder:
    """A ranker whose logits over `tokens` have mean 0 and standard deviation 2."""
    torch.manual_seed(5)
    model = CrossEncoder.from_base(folder, CrossEncoderConfig(head=head)).eval()
    classifier = model.head.classifier
    with torch.no_grad():
        classifier.bias.normal_()
        scale = 2 / model(tokens).std()
        classifier.weight.mul_(scale)
        classifier.bias.mul_(scale)
        classifier.bias[-1] -= model(tokens).mean()
    return model


@pytest.mark.parametrize("head", HEADS)
def test_predict_gives_the_probability_and_load_the_exact_head(
    checkpoints: dict[str, Path], tmp_path: Path, batch: Batch, kind: str, head: Head
) -> None:
    tokens = batch(kind, 20, QUERIES, PASSAGES)
    model = built(checkpoints[kind], head, tokens)
    generator = torch.get_rng_state()
    model.save(tmp_path, tokenizer=checkpoints[kind], pair_max_len=20)
    assert torch.equal(generator, torch.get_rng_state())
    with torch.inference_mode():
        logits = model(tokens)
    theirs = TheirCrossEncoder(str(tmp_path), device="cpu")
    pairs = list(zip(QUERIES, PASSAGES, strict=True))
    wanted = torch.sigmoid(logits).numpy()
    assert np.ptp(wanted) > 0.2
    np.testing.assert_allclose(theirs.predict(pairs), wanted, rtol=1e-4, atol=1e-6)
    assert theirs.max_seq_length == 20
    best = theirs.rank(QUERIES[0], PASSAGES)
    assert [row["score"] for row in best] == sorted((row["score"] for row in best), reverse=True)
    restored = CrossEncoder.load(tmp_path).eval()
    assert restored.config == model.config
    state = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in restored.state_dict().items())
    with torch.inference_mode():
        assert torch.equal(restored(tokens), logits)


def test_the_folded_head_is_a_native_sequence_classifier(
    checkpoints: dict[str, Path], tmp_path: Path, batch: Batch, kind: str
) -> None:
    tokens = batch(kind, 20, QUERIES, PASSAGES)
    model = built(checkpoints[kind], "pooled_two_class", tokens)
    model.save(tmp_path, tokenizer=checkpoints[kind], pair_max_len=20)
    native, report = AutoModelForSequenceClassification.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert native.config.num_labels == 1
    with torch.inference_mode():
        found = native.eval()(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            token_type_ids=tokens.token_type_ids,
        ).logits.squeeze(-1)
        torch.testing.assert_close(found, model(tokens), rtol=1e-4, atol=1e-5)


def test_two_class_cross_entropy_is_binary_cross_entropy_of_the_logit(
    checkpoints: dict[str, Path], batch: Batch
) -> None:
    tokens = batch("bert", 20, QUERIES, PASSAGES)
    model = built(checkpoints["bert"], "pooled_two_class", tokens)
    labels = torch.tensor([1, 0, 1])
    with torch.inference_mode():
        two = F.cross_entropy(model.class_logits(tokens), labels)
        one = F.binary_cross_entropy_with_logits(model(tokens), labels.float())
    torch.testing.assert_close(two, one)
    with pytest.raises(TypeError, match="one logit"):
        built(checkpoints["bert"], "cls_logit", tokens).class_logits(tokens)


def test_the_tanh_layer_starts_from_the_bases_pooler(checkpoints: dict[str, Path]) -> None:
    model = CrossEncoder.from_base(checkpoints["bert"], CrossEncoderConfig())
    weights = load_file(checkpoints["bert"] / "model.safetensors")
    assert model.head.pooler is not None
    assert torch.equal(model.head.pooler.weight, weights["pooler.dense.weight"])


@pytest.mark.parametrize("head", HEADS)
def test_every_parameter_learns_and_logits_stay_float32_under_autocast(
    checkpoints: dict[str, Path], batch: Batch, head: Head
) -> None:
    tokens = batch("bert", 20, QUERIES, PASSAGES)
    model = built(checkpoints["bert"], head, tokens).train()
    with autocast(torch.device("cpu"), "bfloat16"):
        logits = model(tokens)
    assert logits.shape == (3,)
    assert logits.dtype == torch.float32
    logits.sum().backward()
    assert [name for name, value in model.named_parameters() if value.grad is None] == []


def test_a_foreign_folder_is_refused(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(FileNotFoundError, match=r"ranker\.json"):
        CrossEncoder.load(checkpoints["bert"])
