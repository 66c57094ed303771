"""`ray job submit` against a running cluster: a head of our own, with token authentication."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.artifacts.reader import Artifact
from pipeline.artifacts.store import Store
from tests.cluster.tiny import result_of, write_pipeline

pytestmark = pytest.mark.ray

PROJECT = Path(__file__).parents[2]
PATIENCE_SECONDS = 300
WHERE_FROM = """
import pipeline, ray
ray.init(log_to_driver=False)
where = lambda: __import__("pipeline").__file__
print("driver", where())
print("worker", ray.get(ray.remote(where).remote()))
"""


@dataclass(frozen=True)
class Head:
    folder: Path
    dashboard: str
    environment: dict[str, str]

    def submit(self, entry_point: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            shlex.split(f"ray job submit --working-dir . -- {entry_point}"),
            cwd=PROJECT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )

    def answer(self, path: str, token: str = "") -> int:
        """The status with which the dashboard answers."""
        request = urllib.request.Request(f"{self.dashboard}/{path}")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    # A short path: Unix sockets are made below it.
    folder = Path(tempfile.mkdtemp(prefix="head-", dir="/tmp"))
    token = folder / "auth_token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    gcs, dashboard, agent = free_ports(3)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = {
        **kept,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "ARTIFACT_ROOT": str(folder / "artifacts"),
        "ROCKETQA_RAY_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    start = (
        f"ray start --head --block --num-cpus 1 --object-store-memory 100000000 --port {gcs} "
        f"--dashboard-port {dashboard} --dashboard-agent-listen-port {agent}"
    )
    with (folder / "head.log").open("w") as log:
        process = subprocess.Popen(
            shlex.split(start), env=environment, stdout=log, stderr=log, start_new_session=True
        )
    started = Head(
        folder,
        f"http://127.0.0.1:{dashboard}",
        {**environment, "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"},
    )
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while started.answer("api/jobs/", token.read_text()) != 200:
            assert process.poll() is None, (folder / "head.log").read_text()
            assert time.monotonic() < deadline, (folder / "head.log").read_text()
            time.sleep(0.5)
        yield started
    finally:
        end_processes_of(folder)
        process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def end_processes_of(folder: Path) -> None:
    """End, by their ids, the processes that have this temporary folder of Ray's."""
    mark = f"RAY_TMPDIR={folder}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue


def test_the_literal_command_runs_a_pipeline(head: Head, tmp_path: Path) -> None:
    file = write_pipeline(tmp_path, workers=1, passages=12)
    done = head.submit(f"python jobs/run_pipeline.py {file}")
    assert done.returncode == 0, done.stdout + done.stderr

    root = Path(head.environment["ARTIFACT_ROOT"]) / "results"
    result = result_of(root)
    assert result["exit_code"] == 0
    assert [stage["status"] for stage in result["stages"]] == ["done"] * 3
    for stage in result["stages"]:
        artifact = Artifact.open(Store(str(root)), stage["type"], stage["key"])
        assert artifact.manifest.outcome["rows_out"] > 0
    # The stage on workers did run on Ray, and its probe of the root is gone.
    assert list((root / "runs/probes").iterdir()) == []

    (upload,) = head.folder.glob("ray/session_2*/runtime_resources/working_dir_files/_ray_pkg_*/")
    assert (upload / "jobs/run_pipeline.py").is_file()
    for left_out in ("artifacts", ".venv", ".git", "rocketqa_ray.egg-info"):
        assert not (upload / left_out).exists()


def test_the_exit_code_is_in_the_result(head: Head, tmp_path: Path) -> None:
    file = write_pipeline(tmp_path, workers=0, passages=12)
    root = tmp_path / "elsewhere"
    broken = f"--set stages.tokens.params.query_max_len=word --root {root}"
    done = head.submit(f"python jobs/run_pipeline.py {file} {broken}")
    assert done.returncode == 1, done.stdout + done.stderr
    assert result_of(root)["exit_code"] == 2


def test_the_uploaded_code_runs_whether_or_not_the_project_is_installed(head: Head) -> None:
    done = head.submit(f"python -c {shlex.quote(WHERE_FROM)}")
    assert done.returncode == 0, done.stdout + done.stderr
    for who in ("driver", "worker"):
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"{who} ")]
        assert "/working_dir_files/_ray_pkg_" in line


def test_nobody_gets_in_without_the_token(head: Head) -> None:
    assert head.answer("api/jobs/") == 401
    assert head.answer("api/jobs/", "f" * 64) == 403


def test_the_dashboard_listens_on_loopback_alone(head: Head) -> None:
    port = int(head.dashboard.rpartition(":")[2])
    addresses = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        for line in table.read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, _, number = local.rpartition(":")
            if int(number, 16) == port and state == "0A":
                addresses.add(address)
    assert addresses == {"0100007F"}
