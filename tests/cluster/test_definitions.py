"""The cluster definitions: what Ray's own check says, and what we rely on."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
CLUSTER = PROJECT / "cluster"
IMAGE = "REGISTRY/rocketqa-ray:0.1.0"


def read(name: str) -> Any:
    return yaml.safe_load((CLUSTER / name).read_text())


@pytest.fixture(params=["aws.yaml", "gcp.yaml"])
def prepared(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A `ray up` file as the launcher sees it, after Ray's check, with Ray's defaults filled in."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(read(request.param))
    validate_config(config)
    return config


def test_ray_accepts_the_file_and_refuses_mistakes(prepared: dict[str, Any]) -> None:
    import jsonschema
    from ray.autoscaler._private.util import validate_config

    with pytest.raises(jsonschema.ValidationError):
        validate_config({**prepared, "max_wokers": 3})


def test_the_head_is_on_demand_and_workers_are_spot(prepared: dict[str, Any]) -> None:
    types = prepared["available_node_types"]
    head, worker = types.pop(prepared["head_node_type"]), types.pop("gpu_worker")
    assert not types
    assert head["resources"] == {"CPU": 0} and head["max_workers"] == 0
    assert "preemptible" not in str(head) and "spot" not in str(head)
    assert worker["resources"]["GPU"] == 1
    assert 1 <= worker["min_workers"] < worker["max_workers"] <= prepared["max_workers"]
    if prepared["provider"]["type"] == "aws":
        assert worker["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    else:
        (scheduling,) = worker["node_config"]["scheduling"]
        assert scheduling["preemptible"] is True


def test_containers_have_a_root_shared_memory_and_the_token(prepared: dict[str, Any]) -> None:
    docker = prepared["docker"]
    assert docker["image"] == IMAGE
    options = docker["run_options"]
    assert any(re.match(r"-e ARTIFACT_ROOT=(s3|gs)://", option) for option in options)
    assert "-e RAY_AUTH_MODE=token" in options
    (where,) = [option for option in options if "RAY_AUTH_TOKEN_PATH" in option]
    assert where.partition("=")[2].rpartition("/")[0] in prepared["file_mounts"]
    for who in ("head_run_options", "worker_run_options"):
        assert any(option.startswith("--shm-size=") for option in docker[who])


def test_dashboards_listen_on_loopback(prepared: dict[str, Any]) -> None:
    start = " ".join(prepared["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in start and "--num-cpus=0" in start
    assert "0.0.0.0" not in str(prepared)
    # Nothing is installed on a node that is waited for: it is all in the image.
    assert prepared["setup_commands"] == [] and prepared["worker_setup_commands"] == []


def test_the_ray_job_for_kubernetes() -> None:
    job = read("kuberay-rayjob.yaml")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    words = spec["entrypoint"].split()
    assert words[0] == "python"
    for word in words[1:]:
        assert (PROJECT / word.removeprefix("/home/ray/rocketqa-ray/")).is_file()
    assert spec["shutdownAfterJobFinishes"] is True
    environment = yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]
    assert environment["ARTIFACT_ROOT"].startswith("s3://")
    cluster = spec["rayClusterSpec"]
    assert cluster["rayVersion"] == version("ray")
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (workers,) = cluster["workerGroupSpecs"]
    assert 1 <= workers["minReplicas"] <= workers["replicas"] < workers["maxReplicas"]
    for group in (cluster["headGroupSpec"], workers):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"] == IMAGE
        (mount,) = container["volumeMounts"]
        assert mount == {"name": "shm", "mountPath": "/dev/shm"}
        assert pod["volumes"][0]["emptyDir"]["medium"] == "Memory"
    (container,) = workers["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_image_copies_what_is_there_and_runs_without_root() -> None:
    lines = (CLUSTER / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    copied = [name for line in lines if line.startswith("COPY") for name in line.split()[1:-1]]
    assert {"requirements.txt", "pipeline", "jobs", "recipes", "pipeline.yaml"} <= set(copied)
    kept = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    for name in copied:
        assert (PROJECT / name).exists() and f"!{name}" in kept
    users = [number for number, line in enumerate(lines) if line.startswith("USER")]
    assert users and lines[users[-1]] == "USER ray"
    after = " ".join(lines[users[-1] :])
    assert "ARTIFACT_ROOT=" in after and "RAY_AUTH_MODE=token" in after
