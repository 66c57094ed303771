"""What `refresh: every_step` of `train_retriever` means: frozen passages, searched anew (ADORE)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.dag.contract import Context, Inputs, Outcome, unused_input
from pipeline.stages.training_run import group_sizes, read_rows, run_training

if TYPE_CHECKING:
    from pipeline.artifacts.reader import Artifact
    from pipeline.artifacts.writer import ArtifactWriter
    from pipeline.methods.lists import PassageLists
    from pipeline.stages.train_retriever import TrainRetrieverParams
    from pipeline.training.loop import TrainingPlan
    from pipeline.training.query_tower import QueryTowerObjective
    from pipeline.training.rows import Rows
    from pipeline.training.world import World

# What says which passages of a batch a query is compared with.
_OF_BATCHES = ("negatives", "in_batch_group_size", "mask_known_positives", "passage_centric_weight")


def mismatches(params: TrainRetrieverParams, wired: Mapping[str, int]) -> Sequence[str]:
    """Vectors to search where they are searched, and nothing that then does nothing."""
    if params.refresh != "every_step":
        why = "without `refresh: every_step` nothing is searched"
        return [unused_input("embeddings", why)] if wired.get("embeddings") else []
    found = []
    if not wired.get("embeddings"):
        found.append(
            "refresh 'every_step' searches passages: wire `embeddings`, a stage `encode` of the "
            "retriever that is wired as `base`"
        )
    if params.num_negatives == 0:
        found.append("refresh 'every_step' searches for num_negatives passages, and it is 0")
    fields = type(params).model_fields
    found += [
        f"{name} is not used: with refresh 'every_step' a query is compared with its own nearest "
        "passages, never with a known positive"
        for name in _OF_BATCHES
        if getattr(params, name) != fields[name].default
    ]
    return found


@dataclass(frozen=True, eq=False)
class _Prepared:
    start: Artifact
    tokens: Artifact
    dataset: Artifact
    embeddings: Artifact
    rows: Rows
    params: TrainRetrieverParams
    plan: TrainingPlan

    @property
    def starts(self) -> Mapping[str, Artifact]:
        return {"retriever": self.start}

    def objective(self, world: World, precision: str) -> QueryTowerObjective:
        from pipeline.models.dual_encoder import DualEncoder
        from pipeline.models.training_mode import prepare_for_training
        from pipeline.search.resident import ResidentPassages
        from pipeline.stages import tables
        from pipeline.training.query_tower import QueryTowerObjective

        model = DualEncoder.load(self.start.folder("model")).untied()
        params = self.params
        return QueryTowerObjective(
            model=prepare_for_training(model, world.device, params.encoder_dropout),
            store=tables.open_tokens(self.tokens),
            rows=self.rows,
            passages=ResidentPassages(tables.open_passage_vectors(self.embeddings), world.device),
            known=self._known(),
            num_negatives=params.num_negatives,
            comparison=params.loss,
            token_budget=params.token_budget,
            precision=precision,  # type: ignore[arg-type]
        )

    def _known(self) -> PassageLists:
        """Labelled and suspected positives, those of the lists themselves, and copies of all."""
        from pipeline.methods.filters import KnownPairs
        from pipeline.stages import tables

        own = KnownPairs.of(self.rows.positive_pairs)
        own = own.with_copies(tables.content_hashes(self.tokens))
        return (own | tables.never_negative(self.dataset, self.tokens)).lists()

    def save(self, objective: Any, folder: Path, facts: Mapping[str, Any]) -> None:
        from pipeline.models.card import Card
        from pipeline.stages import exports

        how = (
            "A dual encoder whose query tower was trained against what it found itself, searching "
            "all passages in every step. The passage tower is that of the retriever it began as."
        )
        exports.save_retriever(
            objective.model, self.tokens, folder, Card("Dense retriever", how, facts)
        )


def train(
    inputs: Inputs, params: TrainRetrieverParams, writer: ArtifactWriter, context: Context
) -> Outcome:
    """Train the query tower of the retriever `base` against the passages of `embeddings`.

    Raises:
        ValueError: these are not that retriever's.
    """
    from pipeline.stages import exports

    start, tokens, dataset = (inputs[name] for name in ("base", "tokens", "dataset"))
    exports.check_vectors(inputs["embeddings"], start, tokens=tokens, dataset=dataset)
    plan = params.plan(context.seed, "retriever")
    rows, lists = read_rows(inputs, 0, plan.seed)
    prepared = _Prepared(start, tokens, dataset, inputs["embeddings"], rows, params, plan)
    # Queries alone go through the model.
    sizes = group_sizes(params.global_batch_size, 1)
    return run_training(prepared, params.precision, lists, sizes, writer, context)
