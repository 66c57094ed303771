"""What a stage costs before it does any work: Ray's start, an actor pool, Ray Train.

Both sides do nothing, in a fresh process each: ours through `distributed/`, and Ray called directly
with the same sizes. `workers: 0` is the same work without Ray.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from benchmarks import measuring
from pipeline.artifacts.store import Store
from pipeline.dag.contract import Resources
from pipeline.distributed.cluster import connect, disconnect
from pipeline.distributed.shards import run_shards
from pipeline.distributed.tally import CountsProgress
from pipeline.distributed.training import launch

Steps = dict[str, Callable[[], object]]
CPUS = 2


class Silent:
    """A progress line that nobody sees."""

    def start(self, what: str, total: int | None, unit: str = "rows") -> None:
        """Say nothing."""

    def advance(self, amount: int) -> None:
        """Count nothing."""

    def note(self, text: str) -> None:
        """Show nothing."""


def make_nothing() -> Callable[[int, CountsProgress], dict[str, Any]]:
    """Shard work that does nothing."""
    return lambda task, progress: {"task": task}


def train_nothing(device: object, progress: CountsProgress) -> int:
    """A training loop that does nothing."""
    return 0


def our_steps(folder: Path, workers: int) -> Steps:
    """The pipeline's ways to run work."""
    store = Store(str(folder))

    def pool(workers: int) -> object:
        resources = Resources(workers=workers)
        return run_shards(make_nothing, list(range(CPUS)), resources, Silent(), store)

    def training(workers: int) -> object:
        resources = Resources(workers=workers)
        return launch(train_nothing, resources, store, "nothing", [1, CPUS], Silent())

    return {
        "pool, workers: 0": lambda: pool(0),
        "training, workers: 0": lambda: training(0),
        "Ray start": connect,
        "first actor pool": lambda: pool(workers),
        "next actor pool": lambda: pool(workers),
        "first Ray Train": lambda: training(workers),
        "next Ray Train": lambda: training(workers),
    }


def ray_steps(folder: Path, workers: int) -> Steps:
    """Ray's own ways, called directly."""
    import ray
    from ray import train
    from ray.train.torch import TorchTrainer

    class Nothing:
        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            return batch

    def pool() -> object:
        dataset = ray.data.range(CPUS, override_num_blocks=CPUS)
        strategy = ray.data.ActorPoolStrategy(size=workers)
        mapped = dataset.map_batches(Nothing, batch_size=1, num_cpus=1, compute=strategy)
        return mapped.take_all()

    def training() -> object:
        trainer = TorchTrainer(
            lambda: None,
            scaling_config=train.ScalingConfig(num_workers=workers),
            run_config=train.RunConfig(storage_path=str(folder)),
        )
        return trainer.fit()

    return {
        "Ray start": lambda: ray.init(
            address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR"
        ),
        "first actor pool": pool,
        "next actor pool": pool,
        "first Ray Train": training,
        "next Ray Train": training,
    }


def run_side(side: Literal["pipeline", "ray"], workers: int) -> None:
    """Do the steps of a side in this process; prints their timings as JSON in the last line."""
    with tempfile.TemporaryDirectory() as scratch:
        steps = (our_steps if side == "pipeline" else ray_steps)(Path(scratch), workers)
        timings = {name: asdict(measuring.timed(step)) for name, step in steps.items()}
        disconnect()
    print(json.dumps(timings))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="actors, and ranks")
    parser.add_argument("--side", choices=("pipeline", "ray"), help="one side once, as JSON")
    options = parser.parse_args()
    if options.side:
        run_side(options.side, options.workers)
        return
    measuring.machine()
    taken: dict[str, dict[str, list[measuring.Timing]]] = {}
    for number in range(1, options.rounds + 1):
        for side in ("ray", "pipeline"):
            own = [sys.executable, "-m", "benchmarks.fixed_costs", "--side", side]
            ran = measuring.run_command([*own, "--workers", str(options.workers)])
            for step, timing in json.loads(ran.output.splitlines()[-1]).items():
                sides = taken.setdefault(step, {})
                sides.setdefault(side, []).append(measuring.Timing(**timing))
            print(f"  round {number}: {side} {ran.timing.wall:.1f} s in all", flush=True)
    for step, timings in taken.items():
        print(f"\n{step} (CPU time is the driver's alone)")
        measuring.medians(timings)
        if len(timings) == 2:
            measuring.verdict("pipeline against Ray", measuring.ratios(timings, "pipeline", "ray"))
    print(measuring.load())


if __name__ == "__main__":
    main()
