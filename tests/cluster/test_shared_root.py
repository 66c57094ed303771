"""Nodes that see different folders under one name: a run on them stops, and says why."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipeline.artifacts.store import Store
from pipeline.dag.layout import resolve_root
from pipeline.distributed.shared_root import Probe, UnsharedRoot
from tests.cluster.tiny import result_of, write_pipeline

PROJECT = Path(__file__).parents[2]
# What this names is the working directory of whoever looks: a node that was started elsewhere sees
# another folder, as a machine without the shared mount does.
ROOT = "/proc/self/cwd/artifacts"
NODES_APART = """
import os, runpy, sys
from ray.cluster_utils import Cluster

here, elsewhere, job, joins, *arguments = sys.argv[1:]
cluster = Cluster()
os.chdir(here)
cluster.add_node(num_cpus=0, include_dashboard=False, dashboard_agent_listen_port=None)
os.chdir(elsewhere)
cluster.add_node(num_cpus=1, include_dashboard=False)
os.chdir(here)
os.environ["RAY_ADDRESS"] = cluster.address
if joins == "later":
    from pipeline.distributed import shared_root
    shared_root._ask_nodes = lambda probe: None
sys.argv = [job, *arguments]
try:
    runpy.run_path(job, run_name="__main__")
finally:
    import ray
    ray.shutdown()
    cluster.shutdown()
"""


@pytest.mark.ray
@pytest.mark.parametrize("joins", ["before", "later"])
def test_a_run_stops_where_nodes_see_different_roots(tmp_path: Path, joins: str) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    file = write_pipeline(tmp_path, workers=1, passages=12)
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as short:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "PYTHONPATH": str(PROJECT),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_TMPDIR": short,
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
        }
        arguments = [here, elsewhere, PROJECT / "jobs/run_pipeline.py", joins, file, "--root", ROOT]
        done = subprocess.run(
            [sys.executable, "-c", NODES_APART, *map(str, arguments)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    output = done.stdout + done.stderr
    assert done.returncode == 3, output
    result = result_of(here / "artifacts")
    # A node that is there at the start is found out before the first stage.
    statuses = {"before": [], "later": ["done", "done", "failed"]}[joins]
    assert [stage["status"] for stage in result["stages"]] == statuses
    error = result["stages"][-1]["error"] if statuses else result["error"]
    assert f"{ROOT} is not the same on all nodes: " in error, output
    assert "node " in error and "no such file" in error, output
    assert list((here / "artifacts/runs/probes").iterdir()) == []


def test_a_probe_is_seen_where_the_same_root_is_seen(tmp_path: Path) -> None:
    here, elsewhere = Store(str(tmp_path / "a")), Store(str(tmp_path / "b"))
    here.write_bytes(Probe(here, "token").path, b"token")
    Probe(here, "token").check()
    assert Probe(here, "token").obstacle() == ""
    assert Probe(here, "other").obstacle() == "no such file"
    here.write_bytes(Probe(here, "other").path, b"token")
    assert Probe(here, "other").obstacle() == "another file"
    with pytest.raises(UnsharedRoot, match=r"not seen by node .* \(no such file\)"):
        Probe(elsewhere, "token").check()


def test_a_node_without_credentials_is_a_blind_one(tmp_path: Path, monkeypatch) -> None:
    store = Store(str(tmp_path))

    class NoCredentialsError(Exception):
        pass

    def refuse(self: Store, path: str) -> bytes:
        raise NoCredentialsError("Unable to locate credentials")

    monkeypatch.setattr(Store, "read_bytes", refuse)
    assert Probe(store, "token").obstacle() == "NoCredentialsError: Unable to locate credentials"


@pytest.mark.parametrize(
    ("root", "base", "resolved", "warning"),
    [
        ("results", "s3://bucket/prefix/", "s3://bucket/prefix/results", ""),
        ("results", "/mnt/shared", "/mnt/shared/results", ""),
        ("s3://bucket/other", "/mnt/shared", "s3://bucket/other", ""),
        ("/absolute", "/mnt/shared", "/absolute", ""),
        ("results", "", f"{Path.home()}/results", "$ARTIFACT_ROOT is not set for this Ray job"),
        ("results", "shared", f"{Path.home()}/results", "$ARTIFACT_ROOT 'shared' is not absolute"),
    ],
)
def test_where_the_root_of_a_job_is(root: str, base: str, resolved: str, warning: str) -> None:
    environment = {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}", "ARTIFACT_ROOT": base}
    found, said = resolve_root(root, environment)
    assert found == resolved and said.startswith(warning) and bool(said) == bool(warning)


def test_where_the_root_is_without_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_root("results", {"ARTIFACT_ROOT": "/mnt"}) == (str(tmp_path / "results"), "")
