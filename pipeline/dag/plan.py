"""The plan: which stages are cached, which would run, and why. Reads manifests, never data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from pipeline.artifacts.keys import digest
from pipeline.artifacts.manifest import CorruptArtifact, Manifest, directory_of, read_manifest
from pipeline.artifacts.store import Store
from pipeline.artifacts.writer import CHECKPOINTS, PARTS
from pipeline.dag.code import CodeDigests
from pipeline.dag.contract import OutsideSource
from pipeline.dag.identities import Identities, Identity, SourceMissing
from pipeline.dag.keys import differences, key_inputs
from pipeline.dag.records import reference_of
from pipeline.dag.specification import Pipeline, Stage


class State(StrEnum):
    """What is known of a stage's result before a run."""

    CACHED = "cached"
    TO_RUN = "to run"
    PARTLY = "partly done"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class PlannedStage:
    """One line of the plan.

    Attributes:
        key: None where a source below it is missing.
        key_inputs: what the key is a digest of.
        reason: why it runs, or why its key is not known; "" where it is simply cached.
        rerun: what there is of a result must be made anew: forced, damaged, or below such a stage.
        drifted: the result was made by other code of the same version.
        manifest: of the published result, if there is one.
        reference: what the pipeline's reference file says of the last result, if there is one.
    """

    stage: Stage
    state: State
    key: str | None = None
    key_inputs: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[Identity, ...] = ()
    reason: str = ""
    rerun: bool = False
    drifted: bool = False
    code_digest: str = ""
    manifest: Manifest | None = None
    reference: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.stage.name

    @property
    def directory(self) -> str:
        """Where its artifact lies below the root; "" where the key is not known."""
        return directory_of(self.stage.type.name, self.key) if self.key else ""


@dataclass(frozen=True)
class Plan:
    """The planned stages in an order in which they can run."""

    pipeline: Pipeline
    stages: tuple[PlannedStage, ...]

    def __getitem__(self, name: str) -> PlannedStage:
        for planned in self.stages:
            if planned.name == name:
                return planned
        raise KeyError(name)

    def below(self, names: Iterable[str]) -> set[str]:
        """Those of `names` that have a key, and all that depends on them or on an equal key."""
        keys = {self[name].key for name in names} - {None}
        for planned in self.stages:
            if planned.key and any(self[parent].key in keys for parent in planned.stage.parents):
                keys.add(planned.key)
        return {planned.name for planned in self.stages if planned.key in keys}


def make_plan(
    pipeline: Pipeline,
    store: Store,
    identities: Identities,
    force: Iterable[str] = (),
    strict_code: bool = False,
) -> Plan:
    """Plan a pipeline.

    Args:
        pipeline: the checked pipeline.
        store: the root.
        identities: who identifies outside sources.
        force: stages to run again though their result is there.
        strict_code: also run stages again whose code changed while their version did not.
    """
    planner = _Planner(pipeline, store, identities, strict_code)
    for stage in pipeline.stages:
        planner.keyed[stage.name] = planner.stage(stage)
    planner.judge(set(force))
    identities.save()
    planner.code.save()
    return Plan(pipeline, tuple(planner.done.values()))


class _Planner:
    def __init__(
        self,
        pipeline: Pipeline,
        store: Store,
        identities: Identities,
        strict_code: bool,
    ) -> None:
        self.pipeline = pipeline
        self.store = store
        self.identities = identities
        self.strict_code = strict_code
        self.code = CodeDigests(store)
        self.keyed: dict[str, PlannedStage] = {}
        self.done: dict[str, PlannedStage] = {}

    def stage(self, stage: Stage) -> PlannedStage:
        """The stage with its key, as far as that can be known."""
        reference = reference_of(self.store, self.pipeline.name, stage.name)
        try:
            sources = self.sources(stage)
        except SourceMissing as error:
            reason = f"source missing: {error}; key not known yet"
            return PlannedStage(stage, State.UNKNOWN, reason=reason, reference=reference)
        unknown = [name for name in stage.parents if self.keyed[name].key is None]
        if unknown:
            reason = f"needs '{unknown[0]}', whose key is not known yet"
            return PlannedStage(stage, State.UNKNOWN, reason=reason, reference=reference)
        keys = {
            name: [str(self.keyed[given].key) for given in names]
            for name, names in stage.inputs.items()
        }
        inputs = key_inputs(stage, keys, sources)
        return PlannedStage(
            stage,
            State.TO_RUN,
            key=digest(inputs),
            key_inputs=inputs,
            sources=tuple(identity for _, identity in sources),
            code_digest=self.code.of(stage.type.module),
            reference=reference,
        )

    def sources(self, stage: Stage) -> list[tuple[OutsideSource, Identity]]:
        named: Sequence[OutsideSource] = stage.type.sources(stage.params)
        return [(source, self.identities.identify(source)) for source in named]

    def judge(self, force: set[str]) -> None:
        # Stages of one key have one result: whichever is named, it is made again for all.
        forced = {self.keyed[name].key: f"'{name}' is made again" for name in sorted(force)}
        for name, planned in self.keyed.items():
            why = "forced" if name in force else forced.get(planned.key, "")
            self.done[name] = self.judged(planned, why) if planned.key else planned

    def judged(self, planned: PlannedStage, forced: str) -> PlannedStage:
        """Whether the result is there and can be used; `forced` says why it must not be."""
        try:
            manifest = read_manifest(self.store, planned.directory)
        except CorruptArtifact as error:
            return replace(planned, rerun=True, reason=str(error))
        digests = manifest.code_digest if manifest else "", planned.code_digest
        drifted = all(digests) and digests[0] != digests[1]
        found = replace(planned, manifest=manifest, drifted=drifted)
        if forced:
            return replace(found, rerun=True, reason=forced)
        above = [name for name in planned.stage.parents if self.done[name].rerun]
        if above:
            return replace(found, rerun=True, reason=f"'{above[0]}' is made again")
        if manifest is None:
            return self.missing(planned)
        if drifted and self.strict_code:
            return replace(found, rerun=True, reason="code changed (--strict-code)")
        reason = "code changed since, version not bumped" if drifted else ""
        return replace(found, state=State.CACHED, reason=reason)

    def missing(self, planned: PlannedStage) -> PlannedStage:
        twin = next((p.name for p in self.done.values() if p.key == planned.key), None)
        if twin:
            return replace(planned, reason=f"has the same key as '{twin}'")
        reason = self.why(planned)
        done = progress_of(self.store, planned.directory)
        if done:
            return replace(planned, state=State.PARTLY, reason=f"{done} ({reason})")
        return replace(planned, reason=reason)

    def why(self, planned: PlannedStage) -> str:
        """The first difference to the last result."""
        if planned.reference is None:
            return "no result yet"
        changed = differences(planned.reference["key_inputs"], planned.key_inputs)
        if not changed:
            return "its artifact is gone"
        path, old, new = changed[0]
        name = path.partition(".")[2]
        if path.startswith("inputs.") and name in planned.stage.inputs:
            return f"input {name} changed: {', '.join(planned.stage.inputs[name])}"
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        return f"{path}: {shown(old)} → {shown(new)}{more}"


def progress_of(store: Store, directory: str) -> str:
    """What an unpublished artifact already has; "" for nothing."""
    parts = [name for name in store.list(f"{directory}/{PARTS}") if name.endswith(".json")]
    checkpoints = [
        int(name.removeprefix("step-").removesuffix(".json"))
        for name in store.list(f"{directory}/{CHECKPOINTS}")
        if name.startswith("step-") and name.endswith(".json")
    ]
    found = [f"{len(parts)} shards"] if parts else []
    if checkpoints:
        found.append(f"a checkpoint at step {max(checkpoints)}")
    return " and ".join(found)


def shown(value: Any) -> str:
    """A value of a key as short text."""
    if value is None:
        return "none"
    if isinstance(value, list):
        return ", ".join(shown(item) for item in value) or "none"
    if isinstance(value, dict) and len(value) == 1:
        return shown(next(iter(value.values())))
    text = str(value)
    return text[:10] + "…" if len(text) == 64 and text.isalnum() else text
