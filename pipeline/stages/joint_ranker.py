"""Stage `joint_ranker`: the ranker of a joint training, to be used like any other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.artifacts.kinds import JOINT_MODELS, RANKER
from pipeline.dag.contract import Context, Inputs, Outcome, Params, stage
from pipeline.stages.exports import copy_model

if TYPE_CHECKING:
    from pipeline.artifacts.writer import ArtifactWriter


class JointRankerParams(Params):
    """No parameters."""


@stage(params=JointRankerParams, inputs={"joint": JOINT_MODELS}, output=RANKER)
def joint_ranker(
    inputs: Inputs, params: JointRankerParams, writer: ArtifactWriter, context: Context
) -> Outcome:
    """Take the ranker out of a joint training."""
    return copy_model(inputs["joint"], "ranker", writer)
