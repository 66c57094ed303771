from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.artifacts.store import Store
from pipeline.dag.commands import Options, execute
from pipeline.dag.identities import Identities
from pipeline.dag.plan import Plan, make_plan
from pipeline.dag.specification import read_pipeline
from tests.dag import toys


class Bench:
    """A toy pipeline in a folder of its own, and what can be done with it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.file = folder / "pipeline.yaml"
        self.file.write_text(toys.PIPELINE.format(root=self.root))
        self.store = Store(str(self.root))

    def write(self, text: str) -> None:
        self.file.write_text(text)

    def pipeline(self, *settings: str):
        return read_pipeline(self.file, toys.registry(), settings)

    def plan(self, *settings: str, **options) -> Plan:
        return make_plan(self.pipeline(*settings), self.store, Identities(self.store), **options)

    def states(self, *settings: str, **options) -> dict[str, str]:
        return {p.name: str(p.state) for p in self.plan(*settings, **options).stages}

    def reasons(self, *settings: str, **options) -> dict[str, str]:
        return {p.name: p.reason for p in self.plan(*settings, **options).stages}

    def run(self, *settings: str, **options) -> tuple[int, list[str]]:
        """The exit code, and the stages that ran, in order."""
        toys.CALLS.clear()
        code = execute(Options(file=str(self.file), settings=settings, **options), toys.registry())
        return int(code), list(toys.CALLS)

    def verb(self, verb: str, *settings: str, **options) -> int:
        chosen = Options(verb=verb, file=str(self.file), settings=settings, **options)
        return int(execute(chosen, toys.registry()))

    def document(self, stage: str, name: str):
        from pipeline.artifacts.reader import Artifact

        planned = self.plan()[stage]
        artifact = Artifact.open(self.store, planned.stage.type.name, planned.key)
        return artifact.document(name)

    def results(self) -> list[dict]:
        """The results of all runs, oldest first."""
        runs = sorted(
            (self.root / "runs").iterdir(), key=lambda p: (p / "result.json").stat().st_mtime_ns
        )
        return [self.store.read_json(f"runs/{run.name}/result.json") for run in runs]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def mistakes(tmp_path: Path) -> Callable[..., list[str]]:
    """Reads a pipeline text and gives its mistakes as `line: message`."""
    from pipeline.dag.yaml_nodes import SpecificationError

    def read(text: str, *settings: str) -> list[str]:
        file = tmp_path / "wrong.yaml"
        file.write_text(text)
        with pytest.raises(SpecificationError) as caught:
            read_pipeline(file, toys.registry(), settings)
        return [str(problem).removeprefix(f"{file}:") for problem in caught.value.problems]

    return read
