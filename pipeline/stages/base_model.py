"""Stage `base_model`: the pretrained encoder, copied into an artifact that every node reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from pipeline.artifacts.kinds import BASE_MODEL, DATASET
from pipeline.dag.contract import (
    Context,
    FileSource,
    HubSource,
    Input,
    Inputs,
    Outcome,
    OutsidePath,
    OutsideSource,
    Params,
    Resources,
    ValueSource,
    stage,
    unused_input,
)

if TYPE_CHECKING:
    from pipeline.artifacts.writer import ArtifactWriter

SCRATCH = "scratch"
NEEDS_DATASET = f"model '{SCRATCH}' trains its vocabulary on a corpus: wire `dataset`"


class Scratch(Params):
    """A BERT encoder with random weights and a sentencepiece vocabulary of the corpus.

    Attributes:
        vocab_size: pieces of the vocabulary, special tokens included.
        hidden_size: width of a token state.
        num_hidden_layers: Transformer layers.
        num_attention_heads: of each layer; they divide `hidden_size`.
        intermediate_size: width of the feed-forward layers.
        max_position_embeddings: longest input in tokens.
        lowercase: whether texts are lower-cased first.
        character_coverage: share of the corpus' characters that get a piece of their own.
    """

    vocab_size: int = Field(default=8000, ge=100)
    hidden_size: int = Field(default=256, ge=1)
    num_hidden_layers: int = Field(default=4, ge=1)
    num_attention_heads: int = Field(default=4, ge=1)
    intermediate_size: int = Field(default=1024, ge=1)
    max_position_embeddings: int = Field(default=512, ge=3)
    lowercase: bool = True
    character_coverage: float = Field(default=0.9995, ge=0.98, le=1)


class BaseModelParams(Params):
    """Which encoder training starts from.

    Attributes:
        model: a hub id, a local folder, or `scratch`.
        revision: branch, tag or commit of a hub model.
        scratch: sizes, for `scratch` alone; its vocabulary is trained on the wired dataset.
        replicate: another number draws other random weights for `scratch`.
    """

    model: OutsidePath = Field(default="sentence-transformers/all-MiniLM-L6-v2", min_length=1)
    revision: str | None = None
    scratch: Scratch = Scratch()
    replicate: int = Field(default=0, ge=0)

    def mismatches(self, wired: Mapping[str, int], resources: Resources) -> Sequence[str]:
        """A dataset for `scratch` and for nothing else, and sizes that go together."""
        if self.model != SCRATCH:
            if not wired.get("dataset"):
                return ()
            return (
                unused_input("dataset", f"only `model: {SCRATCH}` learns a vocabulary from it"),
            )
        found = []
        if not wired.get("dataset"):
            found.append(NEEDS_DATASET)
        width, heads = self.scratch.hidden_size, self.scratch.num_attention_heads
        if width % heads:
            found.append(
                f"scratch: num_attention_heads {heads} does not divide hidden_size {width}"
            )
        return found


def _sources(params: BaseModelParams) -> Sequence[OutsideSource]:
    from pipeline.models.base import DEFAULT_IDENTITY, means_default, names_a_folder

    if params.model == SCRATCH:
        return ()
    if names_a_folder(params.model):
        return (FileSource(params.model),)
    if means_default(params.model, params.revision):
        return (ValueSource(params.model, DEFAULT_IDENTITY),)
    return (HubSource(params.model, params.revision),)


@stage(
    params=BaseModelParams,
    inputs={"dataset": Input((DATASET,), optional=True)},
    output=BASE_MODEL,
    draws=True,
    libraries=("transformers",),
    sources=_sources,
)
def base_model(
    inputs: Inputs, params: BaseModelParams, writer: ArtifactWriter, context: Context
) -> Outcome:
    """Copy weights, configuration and tokenizer of the base model; safetensors only."""
    from pipeline.models import base_folder
    from pipeline.models.base import BaseModelError
    from pipeline.text.tokenizer import load_tokenizer

    if params.model == SCRATCH:
        return _from_scratch(inputs, params, writer, context)
    # The commit that the key was made of: the branch may have moved on since.
    revision = context.sources[0].get("commit", params.revision)
    with writer.folder("model") as folder:
        source = base_folder.write_base(folder, params.model, revision)
        try:
            # Here rather than in the first stage that tokenises.
            load_tokenizer(folder)
        except ValueError as error:
            raise BaseModelError(f"{params.model}: {error}") from error
        files = len(list(folder.iterdir()))
    context.progress.note(f"{source.model} from the {source.origin}, {source.identity}")
    return Outcome(
        rows_in=files,
        rows_out=files,
        unit="files",
        metrics={"origin": source.origin, "identity": source.identity},
    )


def _from_scratch(
    inputs: Inputs, params: BaseModelParams, writer: ArtifactWriter, context: Context
) -> Outcome:
    from pipeline.models.base_folder import ScratchSizes, write_scratch
    from pipeline.text.sentencepiece_model import save_as_fast_tokenizer, train_sentencepiece

    dataset = inputs.get("dataset")
    if dataset is None:
        raise ValueError(NEEDS_DATASET)
    sizes, seed = params.scratch, context.seed + params.replicate
    context.progress.start("training the vocabulary", dataset.rows("passages"))

    def texts() -> Iterator[str]:
        for table in dataset.iterate("passages", ["title", "text"]):
            titles, bodies = table["title"].to_pylist(), table["text"].to_pylist()
            for title, body in zip(titles, bodies, strict=True):
                yield f"{title} {body}".strip()
                context.progress.advance(1)

    model = train_sentencepiece(
        texts(),
        sizes.vocab_size,
        lowercase=sizes.lowercase,
        character_coverage=sizes.character_coverage,
        seed=seed,
    )
    with writer.folder("model") as folder:
        tokenizer = save_as_fast_tokenizer(model, folder)
        shape = sizes.model_dump(exclude={"vocab_size", "lowercase", "character_coverage"})
        write_scratch(
            folder,
            ScratchSizes(
                vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id or 0, **shape
            ),
            seed,
        )
    rows = dataset.rows("passages")
    return Outcome(rows_in=rows, rows_out=rows, metrics={"pieces": len(tokenizer)})
