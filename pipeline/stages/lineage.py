"""What a run was made from, read from the manifests of the artifacts before it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Literal

from pipeline.artifacts.kinds import RANKER, RETRIEVER
from pipeline.artifacts.manifest import Manifest, directory_of, read_manifest
from pipeline.dag.contract import Mismatch

if TYPE_CHECKING:
    from pipeline.artifacts.reader import Artifact
    from pipeline.artifacts.store import Store

Role = Literal["retriever", "ranker"]

_ROLES: Final[dict[str, Role]] = {RETRIEVER.name: "retriever", RANKER.name: "ranker"}
# The inputs that lead from a run to its model, and from a model to the one it started from.
_WAY: Final = ("candidates", "joint", "base", "embeddings")


class UnknownOrigin(LookupError):
    """An artifact on the way is gone, or was not made by a stage."""


def models_behind(run: Artifact, role: Role) -> Iterator[Manifest]:
    """From a run back to where its retriever or ranker began, the run's own manifest first.

    Raises:
        UnknownOrigin: the way cannot be followed to its end.
    """
    manifest: Manifest | None = run.manifest
    while manifest is not None:
        yield manifest
        if "inputs" not in manifest.key_inputs:
            raise UnknownOrigin(f"{run}: nothing is known of the origin of {manifest.stage}")
        # A ranker may have begun as a retriever.
        role = _ROLES.get(manifest.kind, role)
        inputs = manifest.key_inputs["inputs"]
        way = next((name for name in (role, *_WAY) if inputs.get(name)), None)
        manifest = made_from(run.store, manifest, way) if way else None


def made_from(store: Store, made: Manifest, name: str) -> Manifest:
    """The artifact that was wired to an input. Its key says no stage, the input's kinds do."""
    from pipeline.stages import registry

    stages = registry()
    (key, *_) = made.key_inputs["inputs"][name]
    declared = stages[made.stage].inputs.get(name) if made.stage in stages else None
    for stage in stages.values():
        if declared and declared.accepts(stage.output):
            found = read_manifest(store, directory_of(stage.name, key))
            if found is not None:
                return found
    raise UnknownOrigin(f"{made.stage} {made.key[:12]}: its input '{name}' is gone")


def optimiser_steps(run: Artifact, role: Role) -> int | None:
    """The steps of all trainings, one after the other, behind a run's retriever or ranker.

    Where two models took turns, those of its own. None where that cannot be found out; 0 where
    nothing was trained.
    """
    total = 0
    try:
        for made in models_behind(run, role):
            role = _ROLES.get(made.kind, role)
            total += _own_steps(made, role)
    except UnknownOrigin:
        return None
    return total


def _own_steps(made: Manifest, role: Role) -> int:
    """The steps in which a training changed the model of that role."""
    from pipeline.stages.train_joint import TurnsParams

    steps = int(made.outcome.get("counts", {}).get("steps", 0))
    params = made.key_inputs.get("params", {})
    if role == "ranker" and params.get("teacher") == "static":
        return 0
    turns = params.get("turns")
    return TurnsParams(**turns).phases.done(role, steps) if turns else steps


def searched_depth(run: Artifact, split: str) -> int | None:
    """How many passages a query of the split was given at most; None where it is not known."""
    try:
        for made in models_behind(run, "retriever"):
            if "depths" in made.key_inputs.get("params", {}):
                depth: int | None = made.key_inputs["params"]["depths"].get(split)
                return depth
    except UnknownOrigin:
        pass
    return None


def positives_removed(run: Artifact) -> set[str]:
    """Splits whose known positives were taken out of a run's search; none where not known."""
    try:
        for made in models_behind(run, "retriever"):
            params = made.key_inputs.get("params", {})
            if "remove_positives" in params:
                return set(params["remove_positives"]) & set(params["depths"])
    except UnknownOrigin:
        pass
    return set()


def ranker_loss(scored: Artifact) -> str | None:
    """What the ranker behind scored candidates was last trained with; None where not known."""
    try:
        for made in models_behind(scored, "ranker"):
            params = made.key_inputs.get("params", {})
            # A static teacher stayed as it came.
            if "loss" in params or params.get("teacher") == "dynamic":
                return str(params.get("loss") or params["ranker_loss"])
    except UnknownOrigin:
        pass
    return None


def input_key(made: Artifact, name: str) -> str | None:
    """The key of the first artifact that was wired to an input of the stage that made this one."""
    found: list[str] = made.manifest.key_inputs.get("inputs", {}).get(name, [])
    return found[0] if found else None


def retriever_key(made: Artifact) -> str | None:
    """The key of the retriever behind vectors or candidates; None without one, or not known."""
    try:
        return next(
            (one.key for one in models_behind(made, "retriever") if one.kind == RETRIEVER.name),
            None,
        )
    except UnknownOrigin:
        return None


def refuse_other_draws(pools: Artifact, num_negatives: int) -> None:
    """Raise Mismatch where pools are known to have been made for draws of another number.

    What `top` and `nearest` choose, and what fills a starved pool, is right for that number alone.
    """
    made = pools.manifest.key_inputs.get("params", {}).get("num_negatives")
    if made is not None and num_negatives not in (0, made):
        raise Mismatch(
            f"{pools} was made for draws of {made} negatives, and num_negatives is "
            f"{num_negatives}: give both stages the same"
        )
