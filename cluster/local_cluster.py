"""Several Ray nodes on this machine, and the pipeline submitted to them as a job.

    python cluster/local_cluster.py [--nodes 2] [-- ARGUMENTS of jobs/run_pipeline.py]

For trying out what a cluster does: the head has no CPUs for tasks, the other nodes have
`--cpus-per-node` each, token authentication is on and the dashboard listens on loopback. Artifacts
go below `$ARTIFACT_ROOT` (this checkout unless set). The nodes end with this process.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
OBJECT_STORE_BYTES = 128 << 20
# Ray asks these of each node; the nodes of one machine may not share them.
PORTS = ("gcs_server_port", "dashboard_port", "dashboard_agent_listen_port")


@dataclass(frozen=True)
class Layout:
    """How many nodes, and what each offers."""

    nodes: int
    cpus_per_node: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the nodes, submit the job, end the nodes; the job's exit status (0 or 1)."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nodes", type=int, default=2, help="beside the head (default: 2)")
    parser.add_argument("--cpus-per-node", type=int, default=1, help="default: 1")
    parser.add_argument("arguments", nargs="*", help="of jobs/run_pipeline.py, after --")
    given = parser.parse_args(arguments)
    if given.nodes < 1 or given.cpus_per_node < 1:
        parser.error("at least one node with one CPU is needed")
    signal.signal(signal.SIGTERM, _exit)
    with local_cluster(Layout(given.nodes, given.cpus_per_node)) as dashboard:
        print(f"dashboard: {dashboard}", flush=True)
        return subprocess.call(submission(given.arguments, dashboard), cwd=PROJECT)


def submission(arguments: Sequence[str], dashboard: str) -> list[str]:
    """The command that runs the pipeline as a job of the cluster."""
    submit = ["ray", "job", "submit", "--address", dashboard, "--working-dir", ".", "--"]
    return [*submit, "python", "jobs/run_pipeline.py", *arguments]


@contextmanager
def local_cluster(layout: Layout) -> Iterator[str]:
    """A head and other nodes while the block runs; the address of its dashboard."""
    with ExitStack() as stack:
        # A short path: Unix sockets live below it, whose names may have 107 characters.
        folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        _environment(folder)
        # Only now: Ray reads its settings from the environment when it is imported.
        from ray.cluster_utils import Cluster

        ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
        cluster = Cluster()
        stack.callback(cluster.shutdown)
        _add_node(cluster, num_cpus=0, dashboard_host="127.0.0.1", **ports)
        for number in range(1, layout.nodes + 1):
            node = _add_node(cluster, num_cpus=layout.cpus_per_node)
            print(f"node {number}: raylet {_raylet(node)}", flush=True)
        yield f"http://127.0.0.1:{ports['dashboard_port']}"


def _environment(folder: Path) -> None:
    """What the nodes, and the jobs on them, find in their environment."""
    token = folder / "auth_token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    os.environ.update(
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN_PATH=str(token),
        RAY_TMPDIR=str(folder),
        RAY_USAGE_STATS_ENABLED="0",
        RAY_ENABLE_UV_RUN_RUNTIME_ENV="0",
        # The job's `python` is the one that runs this.
        PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    )
    os.environ.setdefault("ARTIFACT_ROOT", str(PROJECT))
    os.environ.pop("RAY_ADDRESS", None)


def _add_node(cluster: Any, **settings: Any) -> Any:
    return cluster.add_node(
        object_store_memory=OBJECT_STORE_BYTES, include_dashboard=not cluster.head_node, **settings
    )


def _raylet(node: Any) -> int:
    """The process whose end is the node's end."""
    (raylet,) = node.all_processes["raylet"]
    return int(raylet.process.pid)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _exit(_: int, __: FrameType | None) -> None:
    sys.exit(143)


if __name__ == "__main__":
    sys.exit(main())
