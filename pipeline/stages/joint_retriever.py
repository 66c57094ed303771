"""Stage `joint_retriever`: the retriever of a joint training, to be used like any other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.artifacts.kinds import JOINT_MODELS, RETRIEVER
from pipeline.dag.contract import Context, Inputs, Outcome, Params, stage
from pipeline.stages.exports import copy_model

if TYPE_CHECKING:
    from pipeline.artifacts.writer import ArtifactWriter


class JointRetrieverParams(Params):
    """No parameters."""


@stage(params=JointRetrieverParams, inputs={"joint": JOINT_MODELS}, output=RETRIEVER)
def joint_retriever(
    inputs: Inputs, params: JointRetrieverParams, writer: ArtifactWriter, context: Context
) -> Outcome:
    """Take the retriever out of a joint training."""
    return copy_model(inputs["joint"], "retriever", writer)
