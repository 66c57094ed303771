from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.models import inference
from pipeline.models.cross_encoder import CrossEncoder, CrossEncoderConfig
from pipeline.models.dual_encoder import DualEncoder, DualEncoderConfig
from pipeline.models.encoder import TensorBatch, Tokens
from pipeline.models.inference import Assemble, embed, prepare, score
from pipeline.text.batches import token_budget_batches

CPU = torch.device("cpu")
Batch = Callable[..., TensorBatch]
TEXTS = [
    " ".join(f"w{word % 40}" for word in range(row, row + 1 + row * 7 % 11)) for row in range(23)
]
LENGTHS = np.array([len(text.split()) + 2 for text in TEXTS])


@pytest.fixture
def assemble(arrays: Callable[..., Tokens]) -> Assemble:
    return lambda positions: arrays("bert", 32, [TEXTS[position] for position in positions])


@pytest.mark.parametrize(("budget", "at_once"), [(14, 2048), (40, 2048), (10_000, 30), (40, 1)])
def test_vectors_come_in_input_order(
    checkpoints: dict[str, Path],
    batch: Batch,
    assemble: Assemble,
    monkeypatch: pytest.MonkeyPatch,
    budget: int,
    at_once: int,
) -> None:
    monkeypatch.setattr(inference, "CPU_TOKENS", at_once)
    config = DualEncoderConfig(pooling="mean", normalize=True, shared=True)
    model = prepare(DualEncoder.from_base(checkpoints["bert"], config), CPU, "float32")
    seen: list[int] = []
    found = embed(
        model.encode_passages,
        assemble,
        token_budget_batches(LENGTHS, budget),
        width=model.width,
        device=CPU,
        on_rows=seen.append,
    )
    wanted = [model.encode_passages(batch("bert", 32, [text]))[0].numpy() for text in TEXTS]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert found.dtype == np.float32
    assert sum(seen) == len(TEXTS)


def test_scores_come_in_input_order_and_nothing_gives_nothing(
    checkpoints: dict[str, Path], batch: Batch, assemble: Assemble
) -> None:
    torch.manual_seed(1)
    model = CrossEncoder.from_base(checkpoints["bert"], CrossEncoderConfig(head="cls_logit"))
    prepare(model, CPU, "float32")
    found = score(model, assemble, token_budget_batches(LENGTHS, 40), device=CPU)
    wanted = [model(batch("bert", 32, [text])).item() for text in TEXTS]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert score(model, assemble, [], device=CPU).shape == (0,)
    assert embed(model, assemble, [], width=16, device=CPU).shape == (0, 16)


def test_bfloat16_is_close_and_keeps_heads_in_float32(
    checkpoints: dict[str, Path], assemble: Assemble
) -> None:
    config = DualEncoderConfig(pooling="mean", normalize=True, shared=True)
    batches = token_budget_batches(LENGTHS, 100)
    vectors = []
    for precision in ("float32", "bfloat16"):
        model = DualEncoder.from_base(checkpoints["bert"], config)
        prepare(model, CPU, precision)
        vectors.append(embed(model.encode_queries, assemble, batches, width=16, device=CPU))
    assert np.sum(vectors[0] * vectors[1], axis=1).min() > 0.99
    ranker = CrossEncoder.from_base(checkpoints["bert"], CrossEncoderConfig())
    prepare(ranker, CPU, "bfloat16")
    assert ranker.encoder.word_embeddings.weight.dtype == torch.bfloat16
    assert {value.dtype for value in ranker.head.parameters()} == {torch.float32}
    logits = score(ranker, assemble, batches, device=CPU)
    assert not np.array_equal(logits, logits.astype(np.float16))


def test_the_next_batch_is_assembled_while_the_model_works(assemble: Assemble) -> None:
    assembled = [threading.Event() for _ in range(3)]
    calls = itertools.count()

    def note(positions: NDArray[np.int64]) -> Tokens:
        assembled[int(positions[0])].set()
        return assemble(positions)

    def forward(tensors: object) -> torch.Tensor:
        following = min(next(calls) + 1, 2)
        assert assembled[following].wait(5), "the next batch was not assembled meanwhile"
        return torch.zeros(1)

    score(forward, note, [np.array([row]) for row in range(3)], device=CPU)


def test_an_error_of_the_assembly_surfaces() -> None:
    def broken(positions: NDArray[np.int64]) -> Tokens:
        raise IndexError("no such row")

    with pytest.raises(IndexError, match="no such row"):
        score(lambda batch: torch.zeros(1), broken, [np.array([0])], device=CPU)
