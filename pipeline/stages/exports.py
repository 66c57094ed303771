"""Models as artifacts hold them: with the tokenizer and the lengths they were trained with."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.dag.contract import Outcome

if TYPE_CHECKING:
    from pipeline.artifacts.reader import Artifact
    from pipeline.artifacts.writer import ArtifactWriter
    from pipeline.models.card import Card
    from pipeline.models.cross_encoder import CrossEncoder
    from pipeline.models.dual_encoder import DualEncoder


def save_retriever(model: DualEncoder, tokens: Artifact, folder: Path, card: Card) -> None:
    """Write a retriever's folder."""
    lengths = tokens.document("template.json")["tokenization"]
    model.save(
        folder,
        tokenizer=tokens.folder("tokenizer"),
        query_max_len=lengths["query_max_len"],
        passage_max_len=lengths["passage_max_len"],
        card=card,
    )


def save_ranker(model: CrossEncoder, tokens: Artifact, folder: Path, card: Card) -> None:
    """Write a ranker's folder."""
    from pipeline.models.cross_encoder import JoinedInputs

    tokenization = tokens.document("template.json")["tokenization"]
    joined = model.pair_layout == "joined"
    model.save(
        folder,
        tokenizer=tokens.folder("tokenizer"),
        pair_max_len=tokenization["pair_max_len"],
        joined=JoinedInputs.model_validate(tokenization) if joined else None,
        card=card,
    )


def copy_model(joint: Artifact, part: str, writer: ArtifactWriter) -> Outcome:
    """Make one model of a joint training an artifact of its own, with that training's journal."""
    with writer.folder("model") as folder:
        shutil.copytree(joint.folder("model") / part, folder, dirs_exist_ok=True)
    if joint.has("training.jsonl"):
        writer.document("training.jsonl", joint.text("training.jsonl"))
    return Outcome(rows_in=1, rows_out=1, unit="models")
