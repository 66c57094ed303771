"""Answering questions with the trained models of a pipeline, found by its reference files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifacts.kinds import EMBEDDINGS, RANKER
from pipeline.artifacts.reader import Artifact
from pipeline.artifacts.store import Store
from pipeline.dag.records import reference_of
from pipeline.dag.yaml_nodes import nearest
from pipeline.sources.content import clean

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa
    import torch

    from pipeline.dag.specification import Pipeline, Stage
    from pipeline.models.cross_encoder import CrossEncoder
    from pipeline.models.dual_encoder import DualEncoder
    from pipeline.text.store import TokenBatch, TokenStore

RETRIEVER_INPUT = "retriever"
# Padded tokens of a batch that the ranker reads.
TOKEN_BUDGET = 8192


class NothingTrained(Exception):
    """A stage that is needed has no result yet; the message says which one and how to get it."""


@dataclass(frozen=True)
class Hit:
    """A found passage.

    Attributes:
        score: the retriever's score, or the ranker's logit.
        retrieved_rank: 1-based, before re-ranking.
    """

    passage_id: str
    title: str
    text: str
    score: float
    retrieved_rank: int


@dataclass(frozen=True)
class Found:
    """The best passages by the retriever, and in the ranker's order if there is a ranker."""

    retrieved: Sequence[Hit]
    reranked: Sequence[Hit]


class Results:
    """The latest results of a pipeline's stages below a root."""

    def __init__(self, pipeline: Pipeline, store: Store) -> None:
        self._pipeline = pipeline
        self._store = store

    def has(self, stage: Stage) -> bool:
        """Whether the stage has run."""
        return reference_of(self._store, self._pipeline.name, stage.name) is not None

    def of(self, stage: Stage) -> Artifact:
        """The stage's latest artifact; raises NothingTrained where it has not run."""
        reference = reference_of(self._store, self._pipeline.name, stage.name)
        if reference is None:
            raise NothingTrained(
                f"stage '{stage.name}' has no result under {self._store.full('')}: run "
                f"`python jobs/run_pipeline.py {self._pipeline.file} --until {stage.name}` first"
            )
        return Artifact.open(self._store, reference["type"], reference["key"])

    def input_of(self, stage: Stage, artifact: Artifact, name: str) -> Artifact:
        """What a stage's artifact was made from, even if that has been made anew since."""
        (giver,) = stage.inputs[name]
        (key,) = artifact.manifest.key_inputs["inputs"][name]
        return Artifact.open(self._store, self._pipeline[giver].type.name, key)

    def tokens_of(self, trained: Stage, model: Artifact) -> Artifact:
        """What a model was trained on: one of a joint training names only the training."""
        if "joint" in trained.inputs:
            model = self.input_of(trained, model, "joint")
            trained = self._pipeline[trained.inputs["joint"][0]]
        return self.input_of(trained, model, "tokens")

    def embeddings(self, retriever: str | None) -> Stage:
        """The encode stage of the named retriever, or the last one that has run."""
        encoders = [s for s in self._pipeline.stages if s.type.output.serves_as(EMBEDDINGS)]
        if retriever is not None:
            self._check_name(retriever, [s.inputs[RETRIEVER_INPUT][0] for s in encoders])
            encoders = [s for s in encoders if s.inputs[RETRIEVER_INPUT] == (retriever,)]
        return self._last_that_ran(encoders, "encodes passages with a retriever")

    def ranker(self, ranker: str | None) -> Stage:
        """The stage that trains the named ranker, or the last one that has run."""
        rankers = [s for s in self._pipeline.stages if s.type.output.serves_as(RANKER)]
        if ranker is not None:
            self._check_name(ranker, [stage.name for stage in rankers])
            rankers = [stage for stage in rankers if stage.name == ranker]
        return self._last_that_ran(rankers, "trains a ranker")

    def _check_name(self, name: str, known: Sequence[str]) -> None:
        if name not in known:
            raise NothingTrained(
                f"'{name}' is not one of the stages to choose{nearest(name, known)}"
            )

    def _last_that_ran(self, stages: Sequence[Stage], what: str) -> Stage:
        if not stages:
            raise NothingTrained(f"{self._pipeline.file} has no stage that {what}")
        return next((s for s in reversed(stages) if self.has(s)), stages[-1])


class QuestionSearch:
    """Searches the corpus of a finished pipeline for questions of any wording.

    Questions are tokenised, encoded and scored as the pipeline did it, so that one of the dataset's
    own queries finds what the pipeline found for it.

    Args:
        pipeline: whose models are used.
        store: its root.
        retriever: a stage that makes one; None takes the last whose passages are encoded.
        ranker: a stage that trains one; None takes the last that has run, if any.

    Raises:
        NothingTrained: the pipeline has not come that far.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        store: Store,
        retriever: str | None = None,
        ranker: str | None = None,
    ) -> None:
        results = Results(pipeline, store)
        encoder = results.embeddings(retriever)
        self._embeddings = results.of(encoder)
        self._retriever = results.input_of(encoder, self._embeddings, RETRIEVER_INPUT)
        self._tokens = results.input_of(encoder, self._embeddings, "tokens")
        self._dataset = results.input_of(encoder, self._embeddings, "dataset")
        self.retriever_name = encoder.inputs[RETRIEVER_INPUT][0]
        self.ranker_name = ""
        self._ranker: Artifact | None = None
        self._ranker_tokens = self._tokens
        if ranker is not None or any(
            stage.type.output.serves_as(RANKER) and results.has(stage) for stage in pipeline.stages
        ):
            trainer = results.ranker(ranker)
            self._ranker = results.of(trainer)
            self._ranker_tokens = results.tokens_of(trainer, self._ranker)
            self.ranker_name = trainer.name

    def search(self, question: str, depth: int = 50) -> Found:
        """The best `depth` passages, by the retriever and by the ranker.

        Args:
            question: any text.
            depth: passages to retrieve, all of which the ranker reads.

        Raises:
            ValueError: the question is empty, or the depth is not positive.
        """
        if not question.strip():
            raise ValueError("the question is empty")
        passages, scores = self._retrieve(question, depth)
        texts = _rows(self._dataset, "passages", passages)
        hits = [
            Hit(row["passage_id"], row["title"], row["text"], float(score), rank)
            for rank, (row, score) in enumerate(zip(texts.to_pylist(), scores, strict=True), 1)
        ]
        return Found(hits, self._rerank(question, passages, hits))

    # Retrieving -------------------------------------------------------------------------------

    def _retrieve(
        self, question: str, depth: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        from pipeline.search.topk import ExactSearch
        from pipeline.stages import tables

        search = ExactSearch(self._query_vector(question), depth)
        found = search.search(tables.vector_blocks(self._embeddings.shards("passages")))
        count = int(found.counts[0])
        return found.passage_index[0, :count].astype("int64"), found.score[0, :count]

    def _query_vector(self, question: str) -> npt.NDArray[np.floating]:
        """[1, width], rounded to the format of the stored vectors."""
        import numpy as np

        from pipeline.models.inference import embed

        encoder = self._encoder
        with _small_store(question, self._tokens, np.empty(0, np.int64)) as store:
            vector = embed(
                encoder.encode_queries,
                store.query_batch,
                [np.zeros(1, np.int64)],
                width=encoder.width,
                device=self._device,
            )
        stored = self._embeddings.manifest.key_inputs["params"]["dtype"]
        return vector.astype(np.dtype(stored))

    # Re-ranking -------------------------------------------------------------------------------

    def _rerank(
        self, question: str, passages: npt.NDArray[np.int64], hits: Sequence[Hit]
    ) -> list[Hit]:
        """The hits by falling logit; of equal ones the lower passage index first."""
        if self._ranker is None or not hits:
            return []
        logits = self._logits(question, passages)
        order = sorted(range(len(hits)), key=lambda at: (-logits[at], passages[at]))
        return [replace(hits[at], score=float(logits[at])) for at in order]

    def _logits(self, question: str, passages: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        import numpy as np

        from pipeline.models.inference import score
        from pipeline.text.batches import token_budget_batches

        layout = self._cross_encoder.pair_layout
        with _small_store(question, self._ranker_tokens, passages) as store:

            def pairs(at: npt.NDArray[np.int64]) -> TokenBatch:
                return store.pair_batch(np.zeros_like(at), at, layout)

            rows = np.arange(len(passages))
            lengths = store.pair_lengths(np.zeros_like(rows), rows, layout)
            batches = token_budget_batches(lengths, TOKEN_BUDGET)
            return score(self._cross_encoder, pairs, batches, device=self._device)

    # Models -----------------------------------------------------------------------------------

    @cached_property
    def _device(self) -> torch.device:
        from pipeline.models.device import choose_device

        return choose_device()

    @cached_property
    def _encoder(self) -> DualEncoder:
        from pipeline.models.dual_encoder import DualEncoder
        from pipeline.models.inference import prepare

        model = DualEncoder.load(self._retriever.folder("model"))
        return prepare(model, self._device, self._embeddings.resolved["precision"])

    @cached_property
    def _cross_encoder(self) -> CrossEncoder:
        from pipeline.models.cross_encoder import CrossEncoder
        from pipeline.models.inference import prepare

        assert self._ranker is not None
        # So few pairs are quick in any format.
        return prepare(CrossEncoder.load(self._ranker.folder("model")), self._device, "float32")


@contextmanager
def _small_store(
    question: str, tokens: Artifact, passages: npt.NDArray[np.int64]
) -> Iterator[TokenStore]:
    """A token store of one query, the question, and of the given passages in their order."""
    from pipeline.stages.tables import TEMPLATE
    from pipeline.text.store import TokenStore
    from pipeline.text.template import InputTemplate
    from pipeline.text.tokenizer import load_tokenizer, tokenize_queries

    template = InputTemplate.model_validate(tokens.document(TEMPLATE))
    tokenizer = load_tokenizer(tokens.folder("tokenizer"))
    query = tokenize_queries(tokenizer, template, [clean(question)]).table
    with tempfile.TemporaryDirectory() as folder:
        rows = _rows(tokens, "passages", passages)
        yield TokenStore.build(Path(folder), [query], [rows], template)


def _rows(artifact: Artifact, table: str, wanted: npt.NDArray[np.int64]) -> pa.Table:
    """The given rows of a table in the given order, reading only the shards that hold some."""
    import numpy as np
    import pyarrow as pa

    shards = artifact.shards(table)
    parts = [shards[0].read().slice(0, 0)]
    found = [np.empty(0, np.int64)]
    for shard in shards:
        inside = wanted[(wanted >= shard.first_row) & (wanted < shard.first_row + shard.rows)]
        if len(inside):
            found.append(inside)
            parts.append(shard.read().take(inside - shard.first_row))
    place = {int(row): at for at, row in enumerate(np.concatenate(found))}
    return pa.concat_tables(parts).take(pa.array([place[int(row)] for row in wanted], pa.int64()))
