"""Proof that all nodes of a cluster see the same artifact root before they work on it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts.store import Store
from pipeline.distributed.cluster import connect, is_given

PROBES = "runs/probes"
ANSWER_SECONDS = 120.0

# (root, node id) of the nodes that were asked and had the right answer.
_proven: set[tuple[str, str]] = set()


class UnsharedRoot(Exception):
    """Some node does not see what the driver writes below the artifact root."""

    def __init__(self, uri: str, nodes: str) -> None:
        super().__init__(uri, nodes)
        self.uri, self.nodes = uri, nodes

    def __str__(self) -> str:
        return (
            f"the artifact root {self.uri} is not the same on all nodes: what the driver "
            f"writes there is not seen by {self.nodes}; use an object store (s3://, gs://) that "
            "every node may read, or a shared mount"
        )


@dataclass(frozen=True)
class Probe:
    """A file below a root that the driver has written; whoever reads its token sees that root."""

    store: Store
    token: str

    @property
    def path(self) -> str:
        """Where the file is, relative to the root."""
        return f"{PROBES}/{self.token}"

    def obstacle(self) -> str:
        """Why this process does not see the file; empty where it does."""
        try:
            seen = self.store.read_bytes(self.path).decode()
        except FileNotFoundError:
            return "no such file"
        except Exception as error:
            # Clients of object stores have exceptions of their own, for credentials for instance.
            return f"{type(error).__name__}: {error}"
        return "" if seen == self.token else "another file"

    def check(self) -> None:
        """Raise UnsharedRoot if this process does not see the file.

        A worker calls this first: what is missing on a node that joined late, with a root of its
        own, would otherwise look like a damaged artifact.
        """
        if obstacle := self.obstacle():
            import ray

            raise UnsharedRoot(
                self.store.uri, f"node {ray.util.get_node_ip_address()} ({obstacle})"
            )


def prove_shared_root(store: Store) -> None:
    """Ask the nodes of the cluster that a job or an address names, before any stage runs.

    Does nothing where the cluster would be an own one on this machine.

    Raises:
        UnsharedRoot: some nodes do not see the root; they are named.
    """
    if not is_given():
        return
    here = Path.cwd()
    connect()
    with shared_root(store):
        # Nodes that share a machine unpack a job's working directory over each other: where this
        # process stood may be gone, and another folder be in its place.
        os.chdir(here)


@contextmanager
def shared_root(store: Store) -> Iterator[Probe]:
    """A probe for the workers of a stage; nodes that were not asked before are asked at once.

    Raises:
        UnsharedRoot: some nodes do not see the root; they are named.
    """
    probe = Probe(store, uuid.uuid4().hex)
    store.write_bytes(probe.path, probe.token.encode())
    try:
        _ask_nodes(probe)
        yield probe
    finally:
        store.delete(probe.path)


def _ask_nodes(probe: Probe) -> None:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    root = probe.store.uri
    alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    here = ray.get_runtime_context().get_node_id()
    todo = [node for node in alive if node != here and (root, node) not in _proven]
    ask: Any = ray.remote(num_cpus=0)(lambda: probe.obstacle())
    answers = [
        ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote()
        for node in todo
    ]
    blind = []
    for node, answer in zip(todo, answers, strict=True):
        try:
            obstacle = ray.get(answer, timeout=ANSWER_SECONDS)
        except ray.exceptions.RayTaskError as error:
            obstacle = str(error.cause)
        except ray.exceptions.RayError:
            # It left the cluster, or is busy beyond measure; a worker that lands there checks too.
            continue
        if obstacle:
            blind.append(f"node {alive[node]['NodeManagerAddress']} ({node[:8]}, {obstacle})")
        else:
            _proven.add((root, node))
    if blind:
        raise UnsharedRoot(root, ", ".join(blind))
