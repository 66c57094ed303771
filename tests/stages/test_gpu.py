"""The stages that compute with models make on a GPU what they make on a CPU."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from pipeline.stages import tables
from pipeline.training.gradient_cache import Side, backward
from tests.benches import EXACT, SHORT

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

# What dropout draws differs between devices.
STILL = {**SHORT, "encoder_dropout": 0.0}


def both(tiny, stage, params, **inputs):
    """What a stage makes on the CPU, and on the GPU."""
    cpu, gpu = (tiny.bench.run(stage, params, gpus=gpus, **inputs) for gpus in (0, 1))
    assert "cuda" in str(tiny.bench.outcome(gpu).device)
    assert "cuda" not in str(tiny.bench.outcome(cpu).device)
    return cpu, gpu


def losses(artifact) -> list[float]:
    return [json.loads(line)["loss"] for line in artifact.text("training.jsonl").splitlines()]


def training(tiny):
    wired = {"base": tiny.base, "tokens": tiny.tokens, "dataset": tiny.dataset}
    return {**wired, "lists": tiny.lists}


def ranking(tiny):
    return {"base": tiny.base, "tokens": tiny.tokens, "lists": tiny.lists}


def joining(tiny):
    still = tiny.bench.run("train_ranker", {**STILL, "dropout": 0.0}, **ranking(tiny))
    return {**tiny.joining, "ranker": still}


CASES = {
    "retriever": ("train_retriever", {}, training),
    "retriever in pieces": ("train_retriever", {"token_budget": 64}, training),
    "PAIR": ("train_retriever", {"passage_centric_weight": 0.1}, training),
    "ranker": ("train_ranker", {"dropout": 0.0}, ranking),
    "joint": ("train_joint", {"num_negatives": 2}, joining),
    "joint in pieces": ("train_joint", {"num_negatives": 2, "token_budget": 64}, joining),
    "AR2": (
        "train_joint",
        {"num_negatives": 2, "reward": "policy_gradient", "turns": {"ranker": 1, "retriever": 1}},
        joining,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_training_takes_the_same_steps(tiny, case):
    stage, params, wired = CASES[case]
    cpu, gpu = both(tiny, stage, {**STILL, **params}, **wired(tiny))
    np.testing.assert_allclose(losses(gpu), losses(cpu), rtol=2e-3)


@pytest.mark.parametrize("case", CASES)
def test_training_in_bfloat16_stays_near(tiny, case):
    stage, params, wired = CASES[case]
    exact = tiny.bench.run(stage, {**STILL, **params}, **wired(tiny))
    params = {**STILL, **params, "precision": "bfloat16"}
    rounded = tiny.bench.run(stage, params, gpus=1, **wired(tiny))
    np.testing.assert_allclose(losses(rounded), losses(exact), rtol=0.05, atol=0.05)


def test_vectors_are_the_same(tiny):
    given = {"retriever": tiny.retriever, "tokens": tiny.tokens, "dataset": tiny.dataset}
    cpu, gpu = both(tiny, "encode", {"dtype": "float32", **EXACT}, **given)
    for name in ("queries", "passages"):
        ours, theirs = (tables.vectors(made.read(name)) for made in (gpu, cpu))
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_scores_are_the_same(tiny):
    cpu, gpu = both(tiny, "score", {"depth": 10, **EXACT}, **tiny.scoring)
    ours, theirs = (made.read("candidates").to_pydict()["ranker_score"] for made in (gpu, cpu))
    for row, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(
            np.array(row, float), np.array(other, float), rtol=1e-3, atol=1e-3
        )


def test_candidates_are_the_same(tiny):
    given = {"embeddings": tiny.vectors, "dataset": tiny.dataset, "tokens": tiny.tokens}
    cpu, gpu = (
        tiny.bench.run("mine", {"depths": {"dev": 12, "train": 12}}, gpus=gpus, **given)
        for gpus in (0, 1)
    )
    assert tiny.bench.outcome(gpu).device in ("faiss_gpu", "torch")
    ours, theirs = (made.read("candidates").to_pydict() for made in (gpu, cpu))
    assert ours["query_index"] == theirs["query_index"]
    for row, other in zip(ours["score"], theirs["score"], strict=True):
        np.testing.assert_allclose(row, other, atol=1e-5)


def test_dropout_of_a_cached_gradient_is_drawn_again():
    device = torch.device("cuda", torch.cuda.current_device())
    weight = torch.tensor(3.0, device=device, requires_grad=True)

    def encode(rows):
        ones = torch.ones((len(rows), 64), device=device)
        return torch.nn.functional.dropout(ones * weight, 0.5, training=True)

    side = Side(encode, [np.arange(4), np.arange(4, 8)])
    loss = backward([side], torch.sum, device)
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad * weight.detach(), loss)
