"""The stages: each binds the rooms below to the DAG's contract, one file a stage."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module

from pipeline.dag.contract import StageType

# A module's stage is the function of the same name.
NAMES = (
    "ingest",
    "base_model",
    "tokenize",
    "initial_retriever",
    "bm25",
    "encode",
    "mine",
    "sample",
    "train_retriever",
    "train_ranker",
    "score",
    "calibrate",
    "denoise",
    "pseudo_label",
    "hybrid",
    "pool",
    "train_joint",
    "joint_retriever",
    "joint_ranker",
    "gradients",
    "evaluate",
    "draws",
    "report",
)


@cache
def registry() -> Mapping[str, StageType]:
    """All stage types by name. Light: a stage imports the rooms it binds when it runs."""
    return {name: getattr(import_module(f"pipeline.stages.{name}"), name) for name in NAMES}
