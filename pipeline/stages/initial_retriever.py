"""Stage `initial_retriever`: a base model as a retriever, before any training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.artifacts.kinds import BASE_MODEL, RETRIEVER, TOKENS
from pipeline.dag.contract import Context, Inputs, Outcome, stage
from pipeline.stages.encoder_params import EncoderParams

if TYPE_CHECKING:
    from pipeline.artifacts.writer import ArtifactWriter


@stage(
    params=EncoderParams,
    inputs={"base": BASE_MODEL, "tokens": TOKENS},
    output=RETRIEVER,
    libraries=("transformers",),
)
def initial_retriever(
    inputs: Inputs, params: EncoderParams, writer: ArtifactWriter, context: Context
) -> Outcome:
    """Wrap the base model as it is, to measure what training adds."""
    from pipeline.models.card import Card
    from pipeline.models.dual_encoder import DualEncoder, DualEncoderConfig
    from pipeline.stages import exports

    exports.check_retriever(inputs["base"], inputs["tokens"])
    model = DualEncoder.from_base(
        inputs["base"].folder("model"), DualEncoderConfig(**params.model_dump())
    )
    card = Card("Base model as a retriever", "The base model without any training.")
    with writer.folder("model") as folder:
        exports.save_retriever(model, inputs["tokens"], folder, card)
    return Outcome(rows_in=1, rows_out=1, unit="models")
