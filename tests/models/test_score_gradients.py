"""Gradients of single scores against a plain loop of autograd."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipeline.methods.gradient_statistics import coefficients
from pipeline.models.device import choose_device
from pipeline.models.dual_encoder import DualEncoder, DualEncoderConfig
from pipeline.models.encoder import TensorBatch, TextEncoder
from pipeline.models.inference import prepare
from pipeline.models.pooling import Pooling
from pipeline.models.score_gradients import ScoreGradients

Batch = Callable[..., TensorBatch]
TITLES = ["w1 w2", "w3 w9", "w4 w4", "w8 w7"]
TEXTS = ["w5 w6 w7", "w1 w1 w2", "w30 w31 w32", "w5 w6 w9"]


def built(folder: Path, pooling: Pooling, normalize: bool, shared: bool) -> DualEncoder:
    config = DualEncoderConfig(pooling=pooling, normalize=normalize, shared=shared)
    model = DualEncoder.from_base(folder, config)
    if not shared:
        with torch.no_grad():
            for weights in model.passage_tower.parameters():
                weights.mul_(1.2)
    return prepare(model, torch.device("cpu"), "float32")


def last_weights(model: DualEncoder) -> list[Tensor]:
    """By name, as the four classes have them."""
    named = model.passage_tower.model.named_parameters()
    found = [weights for name, weights in named if name.startswith("encoder.layer.1.")]
    assert len(found) == 16
    return found


def autograd(value: Tensor, model: DualEncoder) -> Tensor:
    return torch.cat([part.flatten() for part in torch.autograd.grad(value, last_weights(model))])


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("pooling", "normalize"), [("cls", False), ("mean", True)])
def test_gradients_are_those_of_a_loop_over_pairs(
    checkpoints: dict[str, Path],
    batch: Batch,
    kind: str,
    shared: bool,
    pooling: Pooling,
    normalize: bool,
) -> None:
    model = built(checkpoints[kind], pooling, normalize, shared)
    passages = batch(kind, 32, TITLES, TEXTS)
    queries = torch.randn(len(TEXTS), model.width, generator=torch.Generator().manual_seed(1))
    gradients = ScoreGradients(model)
    found = gradients(passages, queries)
    assert found.shape == (len(TEXTS), gradients.parameters)
    for weights in last_weights(model):
        weights.requires_grad_(True)
    for row, query in enumerate(queries):
        alone = batch(kind, 32, TITLES[row : row + 1], TEXTS[row : row + 1])
        wanted = autograd(model.encode_passages(alone)[0] @ query, model)
        assert wanted.norm() > 0
        torch.testing.assert_close(found[row], wanted, rtol=1e-4, atol=1e-5)


def test_contributions_add_up_to_the_gradient_of_the_loss(
    checkpoints: dict[str, Path], batch: Batch
) -> None:
    """On the passages' side of a shared tower: the query's vector is a constant."""
    temperature = 0.05
    model = built(checkpoints["bert"], "mean", True, shared=True)
    passages = batch("bert", 32, TITLES, TEXTS)
    query = model.encode_queries(batch("bert", 32, ["w1 w2 w3"]))[0].detach()
    found = ScoreGradients(model)(passages, query.expand(len(TEXTS), -1)).double()
    for weights in last_weights(model):
        weights.requires_grad_(True)
    scores = model.encode_passages(passages) @ query
    values = scores.detach().numpy()
    of_negatives, _ = coefficients(values[:1], values[None, 1:], values[None, :0], temperature)
    factors = torch.from_numpy(of_negatives[0])
    total = factors @ found[1:] - factors.sum() * found[0]
    wanted = autograd(-torch.log_softmax(scores / temperature, 0)[0], model)
    torch.testing.assert_close(total.float(), wanted, rtol=1e-3, atol=1e-4 * wanted.abs().max())


def test_padded_passages_are_refused(checkpoints: dict[str, Path], batch: Batch) -> None:
    model = built(checkpoints["bert"], "cls", False, shared=True)
    padded = batch("bert", 32, ["w1", "w2"], ["w3", "w4 w5"])
    with pytest.raises(ValueError, match="equal length"):
        ScoreGradients(model)(padded, torch.ones(2, model.width))


def test_an_encoder_without_a_list_of_its_layers_is_told(checkpoints: dict[str, Path]) -> None:
    encoder = TextEncoder.load(checkpoints["bert"])
    assert encoder.last_layer is encoder.model.encoder.layer[-1]
    encoder.model.config.num_hidden_layers = 5
    with pytest.raises(ValueError, match="'bert' keep no list of 5 layers"):
        _ = encoder.last_layer


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gradients_on_a_gpu_are_those_of_the_cpu(
    checkpoints: dict[str, Path], batch: Batch
) -> None:
    queries = torch.ones(len(TEXTS), 16)
    found = []
    for device in (torch.device("cpu"), choose_device()):
        model = built(checkpoints["bert"], "mean", True, shared=True).to(device)
        arrays = batch("bert", 32, TITLES, TEXTS)
        moved = TensorBatch(
            arrays.input_ids.to(device),
            arrays.attention_mask.to(device),
            arrays.token_type_ids.to(device),
            padded=False,
        )
        found.append(ScoreGradients(model)(moved, queries.to(device)).cpu())
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)
