"""Models as artifacts hold them: with the tokenizer and the lengths they were trained with."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifacts.kinds import RETRIEVER
from pipeline.dag.contract import Mismatch, Outcome
from pipeline.stages import lineage

if TYPE_CHECKING:
    from pipeline.artifacts.reader import Artifact
    from pipeline.artifacts.writer import ArtifactWriter
    from pipeline.models.card import Card
    from pipeline.models.cross_encoder import CrossEncoder, CrossEncoderConfig
    from pipeline.models.dual_encoder import DualEncoder
    from pipeline.text.template import InputTemplate

APART = ("query_max_len", "passage_max_len")
PAIRED = ("pair_max_len",)


def check_retriever(start: Artifact, tokens: Artifact) -> None:
    """Check that a dual encoder that starts from a model can read tokens.

    Raises:
        BaseModelError: they are another tokenizer's, or more or longer than the model can look up.
    """
    _check(start, tokens, APART)


def check_ranker(
    start: Artifact, tokens: Artifact, config: CrossEncoderConfig | None = None
) -> None:
    """Check that a ranker with this head that starts from a model can read tokens.

    Without `config` the model is a ranker and has its own head.

    Raises:
        BaseModelError: they are another tokenizer's, or more or longer than the model can look up.
    """
    from pipeline.models.cross_encoder import Ranker

    config = config or Ranker.read(start.folder("model")).config
    _check(start, tokens, APART if config.pair_layout == "joined" else PAIRED)


def _check(start: Artifact, tokens: Artifact, lengths: Sequence[str]) -> None:
    from pipeline.models.base import BaseModelError
    from pipeline.models.base_folder import check_capacity
    from pipeline.text.tokenizer import load_tokenizer, tokenizer_digest

    folder, template = encoder_folder(start), _template(tokens)
    known = template.tokenizer_digest
    if known is not None and known != tokenizer_digest(load_tokenizer(folder)):
        raise BaseModelError(
            f"the {start.kind_name} {start} has another tokenizer than the one that made the "
            f"Tokens {tokens}: their ids mean other words to it. Wire tokens that a tokenize stage "
            "makes with this model's base, or start from a model with the tokens' vocabulary"
        )
    check_capacity(
        folder,
        f"{start.kind_name} {start} with Tokens {tokens}",
        template.vocab_size,
        {name: getattr(template.tokenization, name) for name in lengths},
    )


def check_vectors(vectors: Artifact, retriever: Artifact, **others: Artifact) -> None:
    """Check that vectors are those of a retriever, and of these other inputs of `encode`.

    Raises:
        Mismatch: they were made by another one, or from others.
    """
    for name, wanted in {"retriever": retriever, **others}.items():
        if lineage.input_key(vectors, name) != wanted.key:
            raise Mismatch(
                f"the {vectors.kind_name} {vectors} are not made with the {wanted.kind_name} "
                f"{wanted}: wire as `embeddings` a stage `encode` whose `retriever` is the one "
                "that is wired as `base` here, with the same tokens and dataset"
            )


def encoder_folder(start: Artifact) -> Path:
    """The folder of the encoder in a base model, a ranker, or a retriever (of passages there)."""
    from pipeline.models.dual_encoder import tower_folder

    folder = start.folder("model")
    return tower_folder(folder, "passage") if start.kind_name == RETRIEVER.name else folder


def save_retriever(model: DualEncoder, tokens: Artifact, folder: Path, card: Card) -> None:
    """Write a retriever's folder."""
    template = _template(tokens)
    lengths = template.tokenization
    model.save(
        folder,
        tokenizer=tokens.folder("tokenizer"),
        query_max_len=lengths.query_max_len,
        passage_max_len=lengths.passage_max_len,
        card=_told(card, template, template.passage_room if lengths.title else 0),
    )


def save_ranker(model: CrossEncoder, tokens: Artifact, folder: Path, card: Card) -> None:
    """Write a ranker's folder."""
    from pipeline.models.cross_encoder import JoinedInputs

    template = _template(tokens)
    tokenization, joined = template.tokenization, model.pair_layout == "joined"
    room = template.passage_room if joined and tokenization.title else 0
    model.save(
        folder,
        tokenizer=tokens.folder("tokenizer"),
        pair_max_len=tokenization.pair_max_len,
        joined=JoinedInputs.model_validate(tokenization.model_dump()) if joined else None,
        card=_told(card, template, room if joined else template.pair_room),
    )


def _template(tokens: Artifact) -> InputTemplate:
    from pipeline.stages.tables import TEMPLATE
    from pipeline.text.template import InputTemplate

    return InputTemplate.model_validate(tokens.document(TEMPLATE))


def _told(card: Card, template: InputTemplate, room: int) -> Card:
    """The card with what a user has to know about inputs.

    Args:
        card: what else is told.
        template: how the inputs were made.
        room: tokens that the two sequences of an input share; 0 where there is one sequence.
    """
    from pipeline.models.card import Titles

    tokenization = template.tokenization
    limits = [card.limits] if card.limits else []
    if room % 2:
        limits.append(
            f"Where both sequences of an input are longer than {room // 2} tokens, training gave "
            f"the odd one of the {room} tokens that they share to the first; Hugging Face "
            "tokenizers give it to the second where that is no shorter, so that results differ "
            "slightly for such inputs."
        )
    titles = Titles(tokenization.title, tokenization.missing_title)
    return replace(card, titles=titles, limits="\n\n".join(limits))


def copy_model(joint: Artifact, part: str, writer: ArtifactWriter) -> Outcome:
    """Make one model of a joint training an artifact of its own, with that training's journal."""
    from pipeline.training.state import moments_file

    with writer.folder("model") as folder:
        shutil.copytree(joint.folder("model") / part, folder, dirs_exist_ok=True)
    if joint.has("moments"):
        moments = joint.folder("moments") / moments_file(part)
        # A static teacher was not trained, and has none.
        if moments.exists():
            with writer.folder("moments") as folder:
                shutil.copyfile(moments, folder / moments_file(part))
    if joint.has("training.jsonl"):
        writer.document("training.jsonl", joint.text("training.jsonl"))
    return Outcome(rows_in=1, rows_out=1, unit="models")
