"""Checks what the default run measured: every system is there, and training helped."""

from __future__ import annotations

import sys
from typing import Any

from pipeline.artifacts.reader import Artifact
from pipeline.artifacts.store import Store

SYSTEMS = ("BM25", "base as released", "M_D0", "M_D1", "M_D2", "M_D2 + ranker")


def main(root: str) -> int:
    """Print what is wrong with the run under `root`; the exit status says whether anything is."""
    store = Store(root)
    evaluation = _latest(store, "evaluation")
    dataset = _latest(store, "data")
    dev = evaluation.document("metrics.json")["splits"]["dev"]
    wrong = [f"{name} is missing" for name in SYSTEMS if name not in dev["systems"]]
    if dataset.rows("passages") < 2500:
        wrong.append("fewer than 2,500 passages")
    splits = dataset.read("queries", ["split"])["split"].to_pylist()
    if splits.count("train") < 800:
        wrong.append("fewer than 800 training queries")
    if dev["queries"] < 500:
        wrong.append("fewer than 500 dev queries")
    if not wrong:
        wrong = _orders(dev["systems"])
    print("\n".join(wrong) or "the ladder is as it should be")
    return int(bool(wrong))


def _latest(store: Store, stage: str) -> Artifact:
    reference = store.read_json(f"refs/rocketqa/{stage}.json")
    return Artifact.open(store, reference["type"], reference["key"])


def _orders(systems: dict[str, Any]) -> list[str]:
    def value(name: str) -> float:
        return float(systems[name]["RR@10"]["mean"])

    released = value("base as released")
    return [
        f"{name} (RR@10 {value(name):.3f}) is not above the base as released ({released:.3f})"
        for name in ("M_D0", "M_D1", "M_D2")
        if value(name) <= released
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
