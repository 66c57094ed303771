"""Which systems of an evaluation are compared, and what of their training forbids a claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from pipeline.artifacts.kinds import SCORED_CANDIDATES
from pipeline.stages import lineage
from pipeline.stages.runs import DERIVED, RANKED, derived

if TYPE_CHECKING:
    from pipeline.artifacts.reader import Artifact
    from pipeline.methods.statistics import SystemScores

Steps = Mapping[str, Sequence[int | None]]


def steps_behind(names: Sequence[str], artifacts: Sequence[Artifact]) -> Steps:
    """The optimiser steps behind each system, one entry a seed; None where they are not known.

    Those of the retriever, and of the ranker too where it has a part in the order.
    """
    steps: dict[str, list[int | None]] = {}
    for name, artifact in zip(names, artifacts, strict=True):
        retriever = lineage.optimiser_steps(artifact, "retriever")
        steps.setdefault(name, []).append(retriever)
        if artifact.kind_name == SCORED_CANDIDATES.name:
            ranker = lineage.optimiser_steps(artifact, "ranker")
            both = None if retriever is None or ranker is None else retriever + ranker
            for reordered in derived([name]):
                steps.setdefault(reordered, []).append(both)
    return steps


def objection(first: str, second: str, steps: Steps, untrained: Sequence[str]) -> str:
    """Why unlike training forbids a claim about two systems; empty where it does not.

    What was not trained may be compared with anything, and a run with what re-ranking makes of it.
    """
    for name in (first, second):
        if name in untrained and any(steps[name]):
            return f"{name} is named as untrained and took {_span(set(steps[name]))} steps"
    if _retriever(first) == _retriever(second):
        return ""
    both = [(name, set(steps[name])) for name in (first, second)]
    if any(taken == {0} or name in untrained for name, taken in both):
        return ""
    unknown = [name for name, taken in both if None in taken]
    if unknown:
        return f"the optimiser steps behind {' and '.join(unknown)} are not known"
    if both[0][1] == both[1][1]:
        return ""
    told = [f"{name} took {_span(taken)}" for name, taken in both]
    return f"unlike optimiser steps: {', '.join(told)}"


def _span(steps: set[int | None]) -> str:
    known = sorted(one for one in steps if one is not None)
    return f"{known[0]:,}" if len(known) == 1 else f"{known[0]:,} to {known[-1]:,}"


def _retriever(name: str) -> str:
    """The run that a name's re-ranking started from."""
    for suffix in DERIVED:
        name = name.removesuffix(suffix)
    return name


def neighbours(names: Sequence[str]) -> list[list[str]]:
    """Each system with the one before; what was re-ranked, with the run it re-ranks."""
    ladder = [name for name in names if not name.endswith(DERIVED)]
    pairs = [[name, before] for before, name in pairwise(ladder)]
    pairs += [[name, name.removesuffix(RANKED)] for name in names if name.endswith(RANKED)]
    return pairs


def not_compared(
    pairs: Sequence[Sequence[str]],
    scores: Mapping[str, SystemScores],
    depths: Mapping[str, int],
    lacking: str,
) -> list[dict[str, str]]:
    """The pairs that cannot be tested, and why.

    Args:
        pairs: names of two systems each.
        scores: of those systems that the measure of the comparisons could be taken of.
        depths: of all systems, the rank to which their passages were searched for.
        lacking: what no query has that the measure needs; empty where there is some.
    """

    def reason(missing: str) -> str:
        if missing not in depths:
            return f"there is no run {missing}"
        if lacking:
            return f"no query has {lacking}"
        return f"{missing} was searched to rank {depths[missing]} only"

    found = []
    for first, second in pairs:
        missing = [name for name in (first, second) if name not in scores]
        if missing:
            found.append({"first": first, "second": second, "reason": reason(missing[0])})
    return found


def comparisons(
    pairs: Sequence[Sequence[str]],
    scores: Mapping[str, SystemScores],
    steps: Steps,
    untrained: Sequence[str],
    tuned: str | None = None,
) -> list[dict[str, Any]]:
    """The tests of those pairs that have scores, corrected over all of them.

    Args:
        pairs: names of two systems each.
        scores: of the systems.
        steps: see `steps_behind`.
        untrained: see `objection`.
        tuned: how the names end of what was chosen on these queries; nothing is claimed of it.
    """
    from pipeline.methods.statistics import compare

    def against(first: str, second: str) -> str:
        if tuned and (first.endswith(tuned) or second.endswith(tuned)):
            return "the mix's weight was chosen on these queries"
        return objection(first, second, steps, untrained)

    kept = [(first, second) for first, second in pairs if first in scores and second in scores]
    compared = compare(
        [(scores[first], scores[second]) for first, second in kept],
        [against(first, second) for first, second in kept],
    )
    return [asdict(comparison) for comparison in compared]
