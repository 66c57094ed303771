"""Pools made anew while training goes on, the way in which the wired ones were made."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipeline.artifacts.keys import digest
from pipeline.artifacts.kinds import CANDIDATES, EMBEDDINGS, NEGATIVE_POOLS, RETRIEVER
from pipeline.artifacts.manifest import Manifest, directory_of, read_manifest
from pipeline.artifacts.reader import Artifact
from pipeline.artifacts.writer import ArtifactWriter
from pipeline.dag.contract import Context, Inputs, Mismatch, Resources
from pipeline.stages.encode import EncodeParams
from pipeline.stages.mine import MineParams
from pipeline.stages.pool_params import PoolParams

if TYPE_CHECKING:
    from pipeline.artifacts.kinds import Kind
    from pipeline.dag.contract import Params
    from pipeline.distributed.companion import Room
    from pipeline.methods.refresh import RefreshSchedule
    from pipeline.training.objective import Objective

POLL_SECONDS = 0.5
_KINDS = {"encode": EMBEDDINGS, "mine": CANDIDATES, "pool": NEGATIVE_POOLS, "retriever": RETRIEVER}


class RefreshFailed(RuntimeError):
    """The pools of a version cannot be made."""


@dataclass(frozen=True)
class Making:
    """How pools were made from a retriever.

    Attributes:
        encode: passages, and the queries of the pools' split alone.
        mine: for those queries.
        pool: what is drawn from, and how.
        seed: of the pools.
        scored: whether all scores are computed from the vectors.
    """

    encode: EncodeParams
    mine: MineParams
    pool: PoolParams
    seed: int
    scored: bool

    @classmethod
    def of(cls, pools: Artifact, inputs: Inputs) -> Making:
        """Read it from the manifests of the wired pools and of what they were made from.

        Raises:
            Mismatch: they were not made by `encode`, `mine` and `pool` from the inputs of the
                training that is to make more.
        """
        made = pools.manifest
        if made.stage != "pool":
            raise Mismatch(f"{pools} cannot be made anew: `{made.stage}` made them, not `pool`")
        mined = _made_by(pools, made, "candidates", "mine")
        encoded = _made_by(pools, mined, "embeddings", "encode")
        for manifest in (made, mined, encoded):
            for name, keys in manifest.key_inputs["inputs"].items():
                if name in ("dataset", "tokens") and keys != [inputs[name].key]:
                    raise Mismatch(
                        f"{pools} cannot be made anew: their {manifest.stage} has read another "
                        f"input `{name}` than this training. Wire both to the same stage"
                    )
        own = made.key_inputs["inputs"].get("embeddings", [])
        if own not in ([], mined.key_inputs["inputs"]["embeddings"]):
            raise Mismatch(
                f"{pools} cannot be made anew: their scores are from other embeddings than their "
                "candidates. Wire the embeddings that `mine` has searched"
            )
        pool = PoolParams.model_validate(made.key_inputs["params"])
        mine = MineParams.model_validate(mined.key_inputs["params"])
        encode = EncodeParams.model_validate(encoded.key_inputs["params"])
        return cls(
            encode.model_copy(update={"splits": [pool.split]}),
            mine.model_copy(update={"depths": {pool.split: mine.depths[pool.split]}}),
            pool,
            made.key_inputs["seed"],
            bool(own),
        )


def _made_by(pools: Artifact, made: Manifest, name: str, stage: str) -> Manifest:
    """What was wired to an input of `made`, the only one there, by a stage of this type."""
    from pipeline.stages.lineage import UnknownOrigin, made_from

    try:
        found = made_from(pools.store, made, name)
    except (UnknownOrigin, KeyError) as error:
        raise Mismatch(f"{pools} cannot be made anew: {error}") from error
    count = len(made.key_inputs["inputs"][name])
    if count != 1 or found.stage != stage:
        by = f"by `{found.stage}`" if count == 1 else f"by {count} stages"
        raise Mismatch(
            f"{pools} cannot be made anew: the {name} of their {made.stage} were made {by}. Wire "
            "pools of the candidates that one `mine` has found in the vectors of one `encode`"
        )
    return found


@dataclass(frozen=True, eq=False)
class PoolRefresher:
    """Both sides of a refresh: the ranks' (`Refresher`) and the `Companion`'s beside them.

    They meet below the training's unpublished artifact, where each version has four artifacts of
    its own: the retriever, its embeddings and candidates, and the pools. Each is published by its
    marker, so that whoever dies goes on with the first missing shard.

    Attributes:
        inputs: of the training; the only pools among its `lists` are made anew.
        num_negatives: of a row.
        seed: of the training.
        schedule: the version of each step.
        making: how the pools are made.
        writer: of the training.
        resources: of the training. Without workers, the process that trains makes the pools, when
            they come into force.
    """

    inputs: Inputs
    num_negatives: int
    seed: int
    schedule: RefreshSchedule
    making: Making
    writer: ArtifactWriter
    resources: Resources

    @classmethod
    def open(
        cls,
        inputs: Inputs,
        num_negatives: int,
        seed: int,
        schedule: RefreshSchedule,
        writer: ArtifactWriter,
        resources: Resources,
    ) -> PoolRefresher:
        """For a training with these inputs, about to start.

        Raises:
            Mismatch: none or several of its lists are pools, or they cannot be made anew.
        """
        pools = [each for each in inputs.many("lists") if each.kind_name == NEGATIVE_POOLS.name]
        if len(pools) != 1:
            raise Mismatch(
                f"`refresh` makes pools anew, and {len(pools) or 'none'} are wired to `lists`: "
                "wire exactly one stage `pool`"
            )
        making = Making.of(pools[0], inputs)
        found = cls(inputs, num_negatives, seed, schedule, making, writer, resources)
        # Of an attempt that has failed; this one may be luckier.
        writer.store.delete(found._failure)
        return found

    # The ranks' side ------------------------------------------------------------------------

    def hand_over(self, objective: Objective, version: int) -> None:
        """Keep the weights as they are now for making a version."""
        from pipeline.models.card import Card
        from pipeline.stages import exports

        if self._published(version, "retriever"):
            return
        writer = self._writer(version, "retriever")
        with writer.folder("model") as folder:
            card = Card("Dense retriever", "A dual encoder in the middle of its training.", {})
            model: Any = objective.models["retriever"]
            exports.save_retriever(model, self.inputs["tokens"], folder, card)
        self._publish(writer, version, {})

    def exchanged(self, objective: Objective, version: int) -> Objective:
        """The objective with the rows of a version, once they are made.

        Raises:
            RefreshFailed: they will not be.
        """
        from pipeline.stages.training_run import read_rows
        from pipeline.training.batches import part_seed

        if self.resources.workers == 0:
            self._make(version, self.resources)
        pools = self._awaited(version)
        lists = [
            pools if each.kind_name == NEGATIVE_POOLS.name else each
            for each in self.inputs.many("lists")
        ]
        # Draws of its own, as those of a round.
        seed = part_seed(self.seed, 1 + version)
        rows, _ = read_rows(Inputs({"lists": tuple(lists)}), self.num_negatives, seed)
        changed: Objective = replace(objective, rows=rows)  # type: ignore[type-var]
        return changed

    def report(self, version: int) -> dict[str, Any]:
        """How much of a version the one before had, and what `pool` reported of it."""
        from pipeline.stages.tables import pools_of

        new, old = (pools_of(self._pools(number)) for number in (version, version - 1))
        outcome = self._pools(version).manifest.outcome
        told = {name: outcome[name] for name in ("counts", "metrics", "warnings")}
        return {"overlap_with_previous": new.overlap_with(old), "pools": told}

    def retain(self, versions: Collection[int], current: int) -> None:
        """Forget what the making of `current` has left, and older versions but the given ones."""
        store, kept = self.writer.store, {self.schedule.encoder_step(each) for each in versions}
        newest = self.schedule.encoder_step(current)
        for name in store.list(self.writer.refresh_directory):
            if not name.isdigit() or int(name) > newest:
                continue
            gone = ["encode", "mine"]
            if int(name) < newest and int(name) not in kept:
                # Weights first: without them nobody makes the pools again.
                gone += ["retriever", "pool"]
            for stage in gone:
                store.delete(f"{self.writer.refresh_directory}/{name}/{stage}")

    def _awaited(self, version: int) -> Artifact:
        while (found := self._published(version, "pool")) is None:
            if told := self.writer.store.read_json_if_any(self._failure):
                raise RefreshFailed(f"the negatives were not made anew: {told}")
            time.sleep(POLL_SECONDS)
        return found

    def _pools(self, version: int) -> Artifact:
        """The pools of a version that is made."""
        if version:
            return self._awaited(version)
        wired = self.inputs.many("lists")
        return next(each for each in wired if each.kind_name == NEGATIVE_POOLS.name)

    # The companion's side -------------------------------------------------------------------

    def serve(self, room: Room) -> None:
        """Make every version whose weights are handed over, until this process is ended."""
        resources = self.resources.model_copy(
            update={
                "workers": room.workers,
                "cpus_per_worker": room.cpus,
                "gpus_per_worker": room.gpus,
            }
        )
        while True:
            for version in self._handed_over():
                self._make(version, resources)
            time.sleep(POLL_SECONDS)

    def give_up(self, why: str) -> None:
        """Tell the ranks that nothing is made any more."""
        self.writer.store.write_json(self._failure, why)

    def _handed_over(self) -> list[int]:
        """Versions that are to be made."""
        steps = [
            int(n) for n in self.writer.store.list(self.writer.refresh_directory) if n.isdigit()
        ]
        found = [step // self.schedule.every for step in sorted(steps)]
        # In this order: of a version that is being forgotten the weights go first.
        unmade = [version for version in found if not self._published(version, "pool")]
        return [version for version in unmade if self._published(version, "retriever")]

    def _make(self, version: int, resources: Resources) -> None:
        """Encode, search and weigh with the weights of a version, as far as it is not done."""
        if self._published(version, "pool"):
            return
        retriever = self._published(version, "retriever")
        if retriever is None:
            raise RefreshFailed(f"the weights of version {version} were not handed over")
        data = {name: self.inputs[name] for name in ("tokens", "dataset")}
        made = self.making
        vectors = self._run(
            version, "encode", made.encode, {**data, "retriever": retriever}, resources
        )
        found = self._run(version, "mine", made.mine, {**data, "embeddings": vectors}, resources)
        scored = {"embeddings": vectors} if made.scored else {}
        here = resources.model_copy(update={"workers": 0})
        # In this process, which can then take away the copy of all vectors on its node.
        self._run(version, "pool", made.pool, {**data, "candidates": found, **scored}, here)
        vectors.forget_derived("vectors")

    def _run(
        self,
        version: int,
        name: str,
        params: Params,
        inputs: Mapping[str, Artifact],
        resources: Resources,
    ) -> Artifact:
        """The artifact of a stage for a version."""
        from pipeline.distributed.training import Silent
        from pipeline.stages import registry

        if found := self._published(version, name):
            return found
        writer = self._writer(version, name)
        context = Context(
            stage=name,
            key=writer.key,
            resources=resources,
            progress=Silent(),
            logger=logging.getLogger(f"pipeline.stages.{name}"),
            seed=self.making.seed,
        )
        given = Inputs({slot: (artifact,) for slot, artifact in inputs.items()})
        outcome = registry()[name].run(given, params, writer, context)
        self._publish(writer, version, outcome.plain())
        return Artifact.open(self.writer.store, writer.stage, writer.key)

    # Both -----------------------------------------------------------------------------------

    @property
    def _failure(self) -> str:
        return f"{self.writer.refresh_directory}/failure.json"

    def _writer(self, version: int, name: str) -> ArtifactWriter:
        kind: Kind = _KINDS[name]
        step = self.schedule.encoder_step(version)
        key = digest({"training": self.writer.key, "step": step, "stage": name})
        stage = f"{self.writer.refresh_directory}/{step}/{name}"
        return ArtifactWriter(self.writer.store, stage, key, kind)

    def _publish(self, writer: ArtifactWriter, version: int, outcome: Mapping[str, Any]) -> None:
        writer.publish({"encoder_step": self.schedule.encoder_step(version)}, outcome)

    def _published(self, version: int, name: str) -> Artifact | None:
        writer = self._writer(version, name)
        manifest = read_manifest(writer.store, directory_of(writer.stage, writer.key))
        return Artifact(writer.store, writer.directory, manifest) if manifest else None
