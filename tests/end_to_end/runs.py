"""Pipeline files run as from the command line, and what they left."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from jobs.run_pipeline import main, options_of
from pipeline.artifacts.reader import Artifact
from pipeline.artifacts.store import Store
from pipeline.dag.identities import Identities
from pipeline.dag.plan import Plan, make_plan
from pipeline.dag.specification import read_pipeline
from pipeline.stages import registry
from tests.worlds import GeneratedWorld

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Run:
    """A pipeline file over a generated world below a root, all stages in one process."""

    file: str
    world: GeneratedWorld
    root: str
    settings: tuple[str, ...] = ()

    def arguments(self, *more: str) -> list[str]:
        settings = [
            f"stages.data.params.source.path={self.world.folder}",
            "stages.*.resources.workers=0",
            *self.settings,
        ]
        options = [part for setting in settings for part in ("--set", setting)]
        return [*more, str(HERE / self.file), "--root", self.root, *options]

    def __call__(self, *more: str) -> int:
        """The exit code of `run_pipeline.py` with these arguments."""
        return main(self.arguments(*more))

    def plan(self) -> Plan:
        options = options_of(self.arguments())
        pipeline = read_pipeline(options.file, registry(), options.settings)
        store = Store(self.root)
        return make_plan(pipeline, store, Identities(store))

    def artifact(self, stage: str) -> Artifact:
        planned = self.plan()[stage]
        return Artifact.open(Store(self.root), planned.stage.type.name, str(planned.key))

    def results(self) -> list[dict[str, str]]:
        """Stage -> status of each run below the root, oldest first."""
        store = Store(self.root)
        found = [
            store.read_json(f"runs/{name}/result.json")
            for name in store.list("runs")
            if "-" in name and store.exists(f"runs/{name}/result.json")
        ]
        return [{stage["name"]: stage["status"] for stage in run["stages"]} for run in found]

    def below(self, root: Path | str, *settings: str) -> Run:
        """The same run with another root, and more settings."""
        return replace(self, root=str(root), settings=(*self.settings, *settings))
