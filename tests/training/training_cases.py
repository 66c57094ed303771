"""Tiny models and rows, and what worker processes are asked to do with them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from transformers import BertConfig, BertModel

from pipeline.artifacts.checkpoints import StoreCheckpoints
from pipeline.artifacts.store import Store
from pipeline.methods.filters import KnownPairs
from pipeline.methods.lists import PassageLists
from pipeline.models.cross_encoder import CrossEncoder, CrossEncoderConfig
from pipeline.models.dual_encoder import DualEncoder, DualEncoderConfig
from pipeline.models.encoder import TextEncoder
from pipeline.search.resident import ResidentPassages
from pipeline.text.store import TokenStore
from pipeline.text.template import InputTemplate, Layout, Tokenization
from pipeline.training.batches import Share
from pipeline.training.joint import JointLoss, JointObjective
from pipeline.training.loop import TrainingPlan, TrainingResult, train
from pipeline.training.optimizer import OptimizerPlan
from pipeline.training.query_tower import QueryTowerObjective
from pipeline.training.ranker import RankerObjective
from pipeline.training.retriever import RetrieverObjective
from pipeline.training.rows import TrainingPairs, TrainingRows
from pipeline.training.world import World

CPU = torch.device("cpu")
VOCABULARY = 40
QUERIES, PASSAGES = 12, 40
# One micro-batch for everything, and one that holds only a few rows.
ROOMY, TIGHT = 100_000, 60


def build_store(folder: Path) -> TokenStore:
    """Random token ids; passage 1 has the text of passage 0."""
    draw = np.random.default_rng(0)

    def ids(shortest: int, longest: int) -> list[int]:
        return draw.integers(5, VOCABULARY, draw.integers(shortest, longest)).tolist()

    queries = [ids(2, 6) for _ in range(QUERIES)]
    titles = [ids(1, 3) for _ in range(PASSAGES)]
    texts = [ids(3, 9) for _ in range(PASSAGES)]
    hashes = np.arange(100, 100 + PASSAGES)
    hashes[1] = hashes[0]
    template = InputTemplate(
        tokenization=Tokenization(query_max_len=8, passage_max_len=14, pair_max_len=20),
        single=Layout(specials=((2,), (3,)), special_types=((0,), (0,)), sequence_types=(0,)),
        pair=Layout(
            specials=((2,), (3,), (3,)), special_types=((0,), (0,), (1,)), sequence_types=(0, 1)
        ),
        pad_id=0,
        pad_type=0,
        vocab_size=VOCABULARY,
        missing_title_ids=(4,),
    )
    passages = pa.table({"title_ids": titles, "text_ids": texts, "content_hash": hashes})
    return TokenStore.build(folder, [pa.table({"ids": queries})], [passages], template)


def tiny_encoder(dropout: float, seed: int) -> TextEncoder:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=24,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        # Larger than usual: gradients of fresh weights are otherwise too small to compare.
        initializer_range=0.2,
    )
    return TextEncoder(BertModel(config, add_pooling_layer=False))


def tiny_retriever(dropout: float) -> DualEncoder:
    config = DualEncoderConfig(temperature=4.0)
    return DualEncoder(tiny_encoder(dropout, 1), tiny_encoder(dropout, 2), config).train()


def training_rows(count: int, num_negatives: int) -> TrainingRows:
    draw = np.random.default_rng(5)
    return TrainingRows(
        draw.integers(0, QUERIES, count),
        draw.integers(0, PASSAGES, count),
        draw.integers(0, PASSAGES, (count, num_negatives)),
    )


def training_pairs(count: int) -> TrainingPairs:
    draw = np.random.default_rng(6)
    return TrainingPairs(
        draw.integers(0, QUERIES, count),
        draw.integers(0, PASSAGES, count),
        (np.arange(count) % 3 == 0).astype(np.float32),
    )


def retriever_objective(store: Path, dropout: float = 0.0, **options: Any) -> RetrieverObjective:
    rows = training_rows(16, 2)
    known = PassageLists.from_pairs(rows.query_indices, rows.positives)
    if not options.pop("masked", True):
        known = None
    return RetrieverObjective(
        tiny_retriever(dropout), TokenStore.open(store), rows, known, **options
    )


def query_tower_objective(store: Path, dropout: float = 0.0, **options: Any) -> QueryTowerObjective:
    """Rows 0..15 against the nearest of frozen passages, whose vectors are drawn."""
    rows, tokens = training_rows(16, 0), TokenStore.open(store)
    vectors = np.random.default_rng(8).normal(size=(PASSAGES, 16)).astype(np.float16)
    known = KnownPairs.of(rows.positive_pairs).with_copies(tokens.content_hash)
    return QueryTowerObjective(
        tiny_retriever(dropout),
        tokens,
        rows,
        ResidentPassages(vectors, CPU, piece_rows=15),
        known.lists(),
        **{"num_negatives": 6, **options},
    )


def ranker_objective(store: Path, kind: str, dropout: float = 0.0, **options: Any) -> Any:
    torch.manual_seed(3)
    model = CrossEncoder(tiny_encoder(dropout, 4), CrossEncoderConfig(dropout=dropout)).train()
    rows = training_pairs(16) if kind == "pointwise" else training_rows(16, 2)
    return RankerObjective(model, TokenStore.open(store), rows, **options)


def joint_objective(store: Path, dropout: float = 0.0, **options: Any) -> JointObjective:
    torch.manual_seed(3)
    config = CrossEncoderConfig(head="cls_logit", dropout=dropout)
    ranker = CrossEncoder(tiny_encoder(dropout, 4), config).train()
    terms = JointLoss(**options.pop("terms", {}))
    return JointObjective(
        tiny_retriever(dropout),
        ranker,
        TokenStore.open(store),
        training_rows(16, 3),
        terms,
        **options,
    )


def gradients(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {
        name: parameter.grad.numpy().copy()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


# What a worker of the group runs: the world first, then the arguments ----------------------


def step_gradients(world: World, objective: Any) -> tuple[float, dict[str, np.ndarray]]:
    """Loss and averaged gradients of one step whose global batch is rows 0..15."""
    share = 16 // world.size
    rows = Share(np.arange(world.rank * share, (world.rank + 1) * share))
    loss = world.mean(objective.step(rows, world)["loss"])
    (model,) = objective.models.values()
    world.average_gradients(model.parameters())
    return float(loss), gradients(model)


def retriever_step(world: World, store: Path, options: dict[str, Any]) -> Any:
    return step_gradients(world, retriever_objective(store, **options))


def query_tower_step(world: World, store: Path, options: dict[str, Any]) -> Any:
    return step_gradients(world, query_tower_objective(store, **options))


def joint_step(world: World, store: Path, options: dict[str, Any], step: int = 0) -> Any:
    """Scalars and averaged gradients of both models after one step over rows 0..15."""
    objective = joint_objective(store, **options)
    share = 16 // world.size
    rows = Share(np.arange(world.rank * share, (world.rank + 1) * share), step)
    scalars = objective.step(rows, world)
    both = torch.nn.ModuleDict({"retriever": objective.retriever, "ranker": objective.ranker})
    world.average_gradients(both.parameters())
    return {name: float(world.mean(each.detach())) for name, each in scalars.items()}, gradients(
        both
    )


def ranker_step(world: World, store: Path, kind: str, options: dict[str, Any]) -> Any:
    return step_gradients(world, ranker_objective(store, kind, **options))


def gathered_gradient(world: World, values: np.ndarray, weights: np.ndarray) -> Any:
    """Gradient of sum(weights[rank] * gathered) for this rank's part of `values`."""
    own = torch.tensor(values[world.rank], requires_grad=True)
    gathered = world.gather(own)
    (gathered * torch.tensor(weights[world.rank])).sum().backward()
    return gathered.detach().numpy(), own.grad.numpy()


def collectives(world: World) -> Any:
    shared = torch.full((2,), float(world.rank))
    world.broadcast([shared])
    world.barrier()
    return (
        world.gather_no_grad(torch.tensor([world.rank])).tolist(),
        world.minimum(world.rank + 3),
        world.any(world.rank == 1),
        world.any(False),
        shared.tolist(),
    )


def loss_of_vectors(
    world: World, store: Path, queries: np.ndarray, passages: np.ndarray, rows: TrainingRows
) -> float:
    """This rank's unmasked cross-batch loss of given vectors [16, d] and [16, 1 + n, d]."""
    objective = RetrieverObjective(tiny_retriever(0), TokenStore.open(store), rows, known=None)
    share = len(rows) // world.size
    part = slice(world.rank * share, (world.rank + 1) * share)
    vectors = np.concatenate([passages[part, 0], passages[part, 1:].reshape(-1, queries.shape[1])])
    indices = np.concatenate([rows.positives[part], rows.negatives[part].ravel()])
    absent = None
    if rows.absent is not None:
        absent = np.concatenate([np.zeros(share, np.bool_), rows.absent[part].ravel()])
    return float(
        objective.loss(
            torch.tensor(queries[part]),
            torch.tensor(vectors),
            rows.query_indices[part],
            indices,
            world,
            absent,
        )
    )


class Quiet:
    """Progress that keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def start(self, what: str, total: int | None, unit: str = "rows") -> None:
        pass

    def advance(self, amount: int) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)


def plan(**changes: Any) -> TrainingPlan:
    return TrainingPlan(
        **{
            "seed": 7,
            "global_batch_size": 4,
            "optimizers": {"retriever": OptimizerPlan(1e-2, weight_decay=0.01)},
            "num_train_epochs": 2,
            "checkpoint_steps": 3,
            **changes,
        }
    )


class Mortal:
    """An objective that kills the last rank's process in the fifth step."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.steps = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def step(self, share: Any, world: World) -> Any:
        self.steps += 1
        if self.steps == 5 and world.rank == world.size - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.inner.step(share, world)


OBJECTIVES: dict[str, Callable[..., Any]] = {
    "retriever": retriever_objective,
    "joint": joint_objective,
    "query_tower": query_tower_objective,
}


def train_objective(
    world: World, store: Path, folder: Path, kind: str, mortal: bool = False
) -> TrainingResult:
    objective = OBJECTIVES[kind](store, dropout=0.1, token_budget=TIGHT)
    optimizers = dict.fromkeys(objective.models, OptimizerPlan(1e-2, weight_decay=0.01))
    checkpoints = StoreCheckpoints(Store(str(folder)), "checkpoints")
    return train(
        Mortal(objective) if mortal else objective,
        plan(optimizers=optimizers),
        world,
        checkpoints,
        Quiet(),
        folder / "training.jsonl",
    )


# The group ---------------------------------------------------------------------------------


def in_process_group(
    rank: int, size: int, meeting: Path, work: Callable[..., Any], arguments: tuple[Any, ...]
) -> Any:
    """Run `work` as one rank of `size`, which meet over a file."""
    torch.set_num_threads(1)
    if size == 1:
        return work(World.single(CPU), *arguments)
    dist.init_process_group("gloo", store=dist.FileStore(str(meeting), size), rank=rank,
                            world_size=size)  # fmt: skip
    try:
        return work(World.of_process_group(CPU), *arguments)
    finally:
        dist.destroy_process_group()


def serve(rank: int, pipe: Connection) -> None:
    while (job := pipe.recv()) is not None:
        try:
            pipe.send((True, in_process_group(rank, *job)))
        except Exception:
            pipe.send((False, traceback.format_exc()))


class WorkerGroup:
    """Four processes that stay up for all tests, since starting one takes seconds."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.folder = tempfile.TemporaryDirectory()
        self.meetings = 0
        self.workers = []
        for rank in range(4):
            near, far = context.Pipe()
            process = context.Process(target=serve, args=(rank, far), daemon=True)
            process.start()
            self.workers.append((process, near))

    def run(self, size: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Results of `work(world, *arguments)` on each of `size` ranks."""
        self.meetings += 1
        meeting = Path(self.folder.name, str(self.meetings))
        for _, pipe in self.workers[:size]:
            pipe.send((size, meeting, work, arguments))
        answers = [pipe.recv() for _, pipe in self.workers[:size]]
        for worked, answer in answers:
            if not worked:
                raise AssertionError(answer)
        return [answer for _, answer in answers]

    def close(self) -> None:
        for process, pipe in self.workers:
            pipe.send(None)
            process.join(10)
        self.folder.cleanup()
