"""What a stage warns of: inputs that it can use, and that may not be what it takes them for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline.dag.contract import Inputs
from pipeline.stages import lineage

if TYPE_CHECKING:
    from pipeline.methods.lists import PassageLists


# Negatives that share more than this with the top candidates hardly differ from taking them.
_TOO_MUCH_OVERLAP = 0.9


def on_overlap(metrics: Mapping[str, Any], advice: str) -> list[str]:
    """A warning where negatives are almost the top candidates, with what may be done about it.

    Args:
        metrics: with `overlap_with_top`, where it is known.
        advice: the end of the sentence.
    """
    overlap = metrics.get("overlap_with_top", 0.0)
    if overlap <= _TOO_MUCH_OVERLAP:
        return []
    return [f"{overlap:.0%} of the negatives stand among the top candidates anyway: {advice}"]


def on_short_lists(candidates: PassageLists, depth: int, parameter: str) -> list[str]:
    """A warning where every list ends before the depth that a parameter asks for."""
    longest = int(candidates.lengths.max(initial=0))
    if longest >= depth:
        return []
    return [
        f"the candidates end at rank {longest}, before the {depth} of `{parameter}`: search "
        "deeper, or ask for less"
    ]


def on_probabilities(inputs: Inputs) -> list[str]:
    """Warnings where thresholds act on scores that may be no probabilities.

    That is so where no `calibration` is wired and the ranker behind the `candidates` was not
    trained on single pairs, and where the calibration is another ranker's.
    """
    candidates, calibration = inputs.many("candidates"), inputs.get("calibration")
    if calibration is not None:
        fitted = lineage.input_key(calibration, "ranker")
        others = {lineage.input_key(scored, "ranker") for scored in candidates} - {fitted, None}
        if fitted and others:
            return ["the calibration was fitted for another ranker than the one of the scores"]
        return []
    losses = {lineage.ranker_loss(scored) for scored in candidates}
    if "listwise" in losses:
        return [
            "thresholds act on the raw sigmoid of a ranker with a listwise loss, which is no "
            "probability: wire `calibration`"
        ]
    if None in losses:
        return [
            "the scores are taken for probabilities uncalibrated, and how their ranker was trained "
            "is not known: wire `calibration`"
        ]
    return []
