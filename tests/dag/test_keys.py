from __future__ import annotations

import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.artifacts.store import Store
from pipeline.dag import identities, keys
from pipeline.dag.code import CodeDigests
from pipeline.dag.contract import FileSource, HubSource, PackageSource, ValueSource
from pipeline.dag.identities import Identities, SourceMissing

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def changed(bench, *settings: str) -> set[str]:
    """The stages whose key the settings change."""
    before = {p.name: p.key for p in bench.plan().stages}
    return {p.name for p in bench.plan(*settings).stages if p.key != before[p.name]}


@pytest.mark.parametrize(
    ("setting", "stages"),
    [
        ("stages.data.params.count=5", {"data", "left", "right", "sum"}),
        ("stages.data.params.options.rate=0.2", {"data", "left", "right", "sum"}),
        ("stages.left.params.factor=5", {"left", "sum"}),
        ("stages.sum.inputs.parts=[right, left]", {"sum"}),
        ("stages.sum.inputs.parts=[left]", {"sum"}),
        ("seed=14", {"random"}),
        # What does not change a result changes no key.
        ("stages.data.params.count=4", set()),
        ("stages.data.params.options.rate=1e-1", set()),
        ("stages.left.params.factor=2", set()),
        ("stages.left.resources.workers=3", set()),
        ("stages.left.resources.gpus_per_worker=0.5", set()),
        ("root=elsewhere", set()),
        ("stages.data.params.label=x", set()),
        ("name=other", set()),
    ],
)
def test_what_changes_which_keys(bench, setting, stages):
    assert changed(bench, setting) == stages


def test_names_of_stages_and_order_in_the_file_are_not_in_keys(bench):
    before = {p.key for p in bench.plan().stages}
    bench.write(
        f"name: toy\nroot: {bench.root}\nstages:\n"
        "  s: {uses: total, inputs: {parts: [a, b]}}\n"
        "  r: {uses: draw}\n"
        "  b: {uses: scale, params: {factor: 3, mode: times}, inputs: {numbers: d}}\n"
        "  a: {uses: scale, inputs: {numbers: d}}\n"
        "  d: {uses: numbers, params: {options: {deep: true}, count: 4}}\n"
    )
    assert {p.key for p in bench.plan().stages} == before


def test_code_version_and_library_minor_versions_are_in_keys(bench, monkeypatch):
    def key(version: str) -> str | None:
        monkeypatch.setattr(keys, "package_version", lambda _: version)
        return bench.plan()["data"].key

    assert key("2.99.0+cpu") == key("2.99.7") != key("2.98.7")
    monkeypatch.undo()
    stage = bench.pipeline()["random"]
    old = keys.key_inputs(stage, {}, [])
    new = keys.key_inputs(replace(stage, type=replace(stage.type, code_version=2)), {}, [])
    assert keys.differences(old, new) == [("code_version", 1, 2)]
    assert keys.differences(old, old) == []


def test_files_count_by_content_and_not_by_path(bench, tmp_path):
    first, second = tmp_path / "a.txt", tmp_path / "sub" / "b.txt"
    second.parent.mkdir()
    first.write_text("1 2 3")
    second.write_text("1 2 3")

    def key(path: Path) -> str:
        return bench.plan(f"stages.data.params.path={path}")["data"].key

    before = key(first)
    assert key(second) == before and key(Path(os.path.relpath(second))) == before
    os.utime(first, (1, 1))
    assert key(first) == before
    second.write_text("1 2 4")
    assert key(second) != before

    # Which parameter a file stands in does count.
    as_list = bench.plan(f"stages.data.params.paths=[{first}]")["data"].key
    assert as_list != before
    folder = tmp_path / "sub"
    of_folder = key(folder)
    (folder / "b.txt").rename(folder / "c.txt")
    assert key(folder) != of_folder


def test_file_digests_are_remembered_once_settled(tmp_path, monkeypatch):
    file = tmp_path / "big"
    file.write_bytes(b"x" * 100)
    store = Store(str(tmp_path / "root"))
    store.write_json("refs/toy/data.json", {})  # where no run was, nothing is remembered
    hashed = []
    original = identities._sha256

    def counted(stream, progress):
        hashed.append(1)
        return original(stream, progress)

    monkeypatch.setattr(identities, "_sha256", counted)

    def identify() -> str:
        asked = Identities(store)
        found = asked.identify(FileSource(str(file)))["sha256"]
        asked.save()
        return found

    first = identify()
    assert identify() == first and len(hashed) == 2, "a file this fresh must not be trusted yet"
    os.utime(file, (time.time() - 60, time.time() - 60))
    assert identify() == identify() == first and len(hashed) == 3
    file.write_bytes(b"y" * 100)
    os.utime(file, (time.time() - 30, time.time() - 30))
    assert identify() != first and len(hashed) == 4


def test_remote_files_are_hashed_and_remembered(tmp_path):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe_file("/toy/a.txt", b"1 2")
    asked = Identities(Store(str(tmp_path)))
    local = tmp_path / "a.txt"
    local.write_bytes(b"1 2")
    assert asked.identify(FileSource("memory://toy/a.txt")) == asked.identify(
        FileSource(str(local))
    )
    with pytest.raises(SourceMissing, match=r"memory://toy/b\.txt does not exist"):
        asked.identify(FileSource("memory://toy/b.txt"))


def test_packages_values_and_models(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    asked = Identities(Store(str(tmp_path / "root")))
    version = asked.identify(PackageSource("pydantic"))["version"]
    assert re.match(r"\d+\.\d+", version)
    with pytest.raises(SourceMissing, match="no-such-package is not installed"):
        asked.identify(PackageSource("no-such-package"))
    assert asked.identify(ValueSource("dataset", "x/y")) == {"dataset": "x/y"}

    model = HubSource("org/model")
    with pytest.raises(SourceMissing, match="org/model is not in the hub cache"):
        asked.identify(model)
    assert asked.identify(HubSource("org/model", COMMIT)) == {"hub": "org/model", "commit": COMMIT}
    reference = tmp_path / "models--org--model" / "refs" / "main"
    reference.parent.mkdir(parents=True)
    reference.write_text(COMMIT)
    assert asked.identify(model) == {"hub": "org/model", "commit": COMMIT}


def test_seeds_differ_by_type_and_are_stable():
    assert keys.stage_seed(13, "draw") == keys.stage_seed(13, "draw") < 2**31
    assert len({keys.stage_seed(s, t) for s in range(5) for t in ("draw", "train")}) == 10


def test_code_digest_follows_imports_and_ignores_comments(tmp_path, monkeypatch):
    package = tmp_path / "toyroom"
    (package / "sub").mkdir(parents=True)
    files = {
        "__init__.py": "",
        "sub/__init__.py": "",
        "stage.py": "def run():\n    from toyroom.sub import maths\n    return maths.f()\n",
        "sub/maths.py": "from . import deeper\ndef f():\n    return deeper.g()\n",
        "sub/deeper.py": "def g():\n    return 1\n",
        "other.py": "x = 1\n",
    }
    for name, text in files.items():
        (package / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    store = Store(str(tmp_path / "root"))

    def current() -> str:
        digests = CodeDigests(store)
        found = digests.of("toyroom.stage")
        digests.save()
        return found

    def write(name: str, text: str) -> None:
        (package / name).write_text(text)
        os.utime(package / name, ns=(write.clock, write.clock))
        write.clock += 1

    write.clock = 10**18
    before = current()
    assert before and current() == before
    write("other.py", "x = 2\n")
    assert current() == before, "what is not imported does not count"
    write("sub/deeper.py", '"""Says."""\n\n\ndef g():\n    """One."""\n    return 1  # one\n')
    assert current() == before, "comments, docstrings and layout do not count"
    write("sub/deeper.py", "def g():\n    return 2\n")
    assert current() != before
    assert "toyroom.stage" not in sys.modules
    assert CodeDigests(store).of("nowhere.at_all") == ""
