"""The stage contract: what a stage declares, what it is handed and what it returns."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from pipeline.artifacts.kinds import Kind

if TYPE_CHECKING:
    import logging

    from pipeline.artifacts.reader import Artifact
    from pipeline.artifacts.writer import ArtifactWriter


@dataclass(frozen=True)
class Outside:
    """Marks a parameter that names outside files, for `OutsidePath`."""


# No unknown keys, no silent conversions, and only numbers that JSON can hold.
STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

# A path in a parameter. Where the stage's sources identify the file by its bytes, that identity
# stands in the key in place of the path, so that moving a file re-runs nothing.
OutsidePath = Annotated[str, Outside()]


class Params(BaseModel):
    """Parameters of a stage: frozen, no unknown keys, no silent conversions."""

    model_config = STRICT

    def mismatches(self, wired: Mapping[str, int], resources: Resources) -> Sequence[str]:
        """What does not fit: values to each other, to the wiring or to the resources.

        Checked with the file, for what would otherwise fail when the stage runs, or do nothing.

        Args:
            wired: how many stages each input has.
            resources: what the file gives the stage.
        """
        return ()


class Mismatch(ValueError):
    """What does not fit, where only the inputs' contents tell: the message says what to do."""


def unused_input(name: str, why: str) -> str:
    """The mismatch of an input that is wired and that the chosen values never read."""
    return f"input '{name}' is wired and never read: {why}; take it out, it only changes the key"


class Resources(BaseModel):
    """What a stage may use. Never part of a key: results do not depend on it, but by rounding and
    where training draws dropout, which each rank does for itself.

    Attributes:
        workers: Ray workers (actors of shard stages, ranks of training). 0 runs in the driver's own
            process without Ray; `auto` fills the cluster's GPUs, or without any its CPUs.
        cpus_per_worker: CPUs reserved, and threads used, per worker.
        gpus_per_worker: GPUs reserved per worker; `auto` is 1 where the cluster has GPUs, else 0
            (half of an only one that a training shares with its refresh; none in `tokenize`, `bm25`
            and `pool`). 0 is the CPU.
        max_failures: how often a training run is restarted from its last checkpoint.
    """

    model_config = STRICT

    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    cpus_per_worker: float = Field(default=1, gt=0)
    gpus_per_worker: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    max_failures: int = Field(default=3, ge=0)

    def on_cpus(self) -> Resources:
        """These for work that has no use for a GPU: `auto` reserves none, and fills the CPUs."""
        if self.gpus_per_worker != "auto":
            return self
        return self.model_copy(update={"gpus_per_worker": 0.0})


class Progress(Protocol):
    """One live line of a running stage."""

    def start(self, what: str, total: int | None, unit: str = "rows") -> None:
        """Begin counting `what` up to `total` (None: unknown)."""

    def advance(self, amount: int) -> None:
        """Count `amount` more rows as done."""

    def note(self, text: str) -> None:
        """Show a line above the live one, and in the log."""


@dataclass(frozen=True)
class Context:
    """What a stage knows about the run it is part of.

    Attributes:
        seed: the stage's own seed, derived from the pipeline's and the stage type.
        sources: the identities of the stage's outside sources, in the order in which it names them
            (`{"hub": model, "commit": …}`, `{"package": name, "version": …}`, `{"sha256": …}`).
    """

    stage: str
    key: str
    resources: Resources
    progress: Progress
    logger: logging.Logger
    seed: int
    sources: Sequence[Mapping[str, str]] = ()


@dataclass(frozen=True)
class Outcome:
    """What a stage did to its rows, and what it measured.

    Every row that came in is either counted in `rows_out` or in `dropped` under its reason, where
    the stage maps rows to rows; `counts` holds other numbers worth a line (lists filled, ties cut).
    `report` is a text that every run shows at its end, also where the stage was cached.
    """

    rows_in: int
    rows_out: int
    unit: str = "rows"
    dropped: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int | float] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    device: str = "cpu"
    report: str = ""

    def plain(self) -> dict[str, Any]:
        """Its fields as JSON values; numpy's numbers become Python's."""
        text = json.dumps(asdict(self), default=lambda value: value.item())
        found: dict[str, Any] = json.loads(text)
        return found


@dataclass(frozen=True)
class Input:
    """A named input of a stage: the kinds it accepts, and how many artifacts."""

    kinds: tuple[Kind, ...]
    many: bool = False
    optional: bool = False

    def accepts(self, kind: Kind) -> bool:
        """Whether an artifact of `kind` can be wired here."""
        return any(kind.serves_as(wanted) for wanted in self.kinds)

    def wanted(self) -> str:
        """The accepted kinds, for messages."""
        return " or ".join(kind.name for kind in self.kinds)


@dataclass(frozen=True)
class FileSource:
    """An outside file or folder, identified by the SHA-256 of its bytes."""

    path: str


@dataclass(frozen=True)
class PackageSource:
    """An installed Python package, identified by name and version."""

    name: str


@dataclass(frozen=True)
class HubSource:
    """A model on the hub, identified by its 40-hex commit.

    Attributes:
        revision: a commit, branch or tag; None is the main branch.
    """

    model: str
    revision: str | None = None


@dataclass(frozen=True)
class ValueSource:
    """An identity the stage states itself (for example an `ir_datasets` id)."""

    name: str
    value: str


OutsideSource = FileSource | PackageSource | HubSource | ValueSource


@dataclass(frozen=True)
class Inputs:
    """The opened input artifacts of a stage, by input name."""

    artifacts: Mapping[str, tuple[Artifact, ...]]

    def __getitem__(self, name: str) -> Artifact:
        """The single artifact wired to `name`."""
        (artifact,) = self.artifacts[name]
        return artifact

    def many(self, name: str) -> tuple[Artifact, ...]:
        """All artifacts wired to `name`, in the order of the pipeline file."""
        return self.artifacts.get(name, ())

    def get(self, name: str) -> Artifact | None:
        """The artifact of an optional input, or None."""
        found = self.artifacts.get(name, ())
        return found[0] if found else None


P = TypeVar("P", bound=Params)
RunStage = Callable[[Inputs, Any, "ArtifactWriter", Context], Outcome]


@dataclass(frozen=True)
class StageType:
    """A registered stage type.

    Attributes:
        name: how pipelines call it (`uses:`), and the folder of its artifacts.
        code_version: bump when the same inputs and parameters give another result.
        draws: whether the stage draws random numbers; only then the seed is part of its key.
        libraries: distributions whose major.minor shapes the result.
        sources: outside files, packages and models that the parameters name.
    """

    name: str
    run: RunStage
    params: type[Params]
    inputs: Mapping[str, Input]
    output: Kind
    code_version: int
    draws: bool
    libraries: tuple[str, ...]
    sources: Callable[[Any], Sequence[OutsideSource]]
    module: str

    @property
    def summary(self) -> str:
        """First line of the stage's docstring."""
        return (inspect.getdoc(self.run) or "").split("\n")[0]


def _no_sources(_: Any) -> Sequence[OutsideSource]:
    return ()


def stage(
    *,
    params: type[P],
    output: Kind,
    inputs: Mapping[str, Input | Kind] | None = None,
    code_version: int = 1,
    draws: bool = False,
    libraries: Sequence[str] = (),
    sources: Callable[[P], Sequence[OutsideSource]] | None = None,
) -> Callable[[Callable[[Inputs, P, ArtifactWriter, Context], Outcome]], StageType]:
    """Turn a function `(inputs, params, writer, context) -> Outcome` into a `StageType`.

    The type's name is the function's name. A bare `Kind` is one required input.
    """
    declared = {
        name: wanted if isinstance(wanted, Input) else Input((wanted,))
        for name, wanted in (inputs or {}).items()
    }

    def register(
        run: Callable[[Inputs, P, ArtifactWriter, Context], Outcome],
    ) -> StageType:
        return StageType(
            name=run.__name__,
            run=run,
            params=params,
            inputs=declared,
            output=output,
            code_version=code_version,
            draws=draws,
            libraries=tuple(libraries),
            sources=sources or _no_sources,
            module=run.__module__,
        )

    return register
