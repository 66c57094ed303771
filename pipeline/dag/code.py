"""A digest of the code behind a stage, found by reading imports: a forgotten version shows."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.artifacts.keys import digest
from pipeline.artifacts.store import Store
from pipeline.dag.layout import MEMORY
from pipeline.dag.roots import recall, remember

MEMORY_FILE = f"{MEMORY}/code.json"
# What every stage shares and no result depends on.
MACHINERY = ("pipeline.dag", "pipeline.artifacts")


class CodeDigests:
    """Digests of modules with all that they import from their own top-level package.

    Imports inside functions count, since stages import what they bind only when they run. Comments,
    docstrings and layout do not count. Files are read again only when their size or time changes.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._memory: dict[str, Any] | None = None
        self._changed = False
        self._files: dict[str, tuple[str, list[str]]] = {}
        self._digests: dict[str, str] = {}

    def of(self, module: str) -> str:
        """The digest of `module` and what it imports; "" where its source is not to be had."""
        if module not in self._digests:
            self._digests[module] = self._closure(module)
        return self._digests[module]

    def _closure(self, module: str) -> str:
        source = _source_of(module)
        if source is None:
            return ""
        package = module.partition(".")[0]
        root = _root_of(module, source)
        todo, seen = [(module, source)], {}
        while todo:
            name, path = todo.pop()
            if name in seen:
                continue
            content, imports = self._read(path)
            seen[name] = content
            for wanted in imports:
                absolute = _absolute(wanted, name, path)
                if absolute.partition(".")[0] == package and not _is_machinery(absolute):
                    todo += _modules(absolute, root)
        return digest(seen)

    def save(self) -> None:
        """Keep what was read in mind, where that can be."""
        if self._changed:
            remember(self._store, MEMORY_FILE, self._memory)
            self._changed = False

    def _read(self, path: Path) -> tuple[str, list[str]]:
        """The digest of a file's code, and the names that it imports."""
        name = str(path)
        if name in self._files:
            return self._files[name]
        if self._memory is None:
            self._memory = recall(self._store, MEMORY_FILE)
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        entry = self._memory.get(name)
        if not entry or entry["stamp"] != stamp:
            tree = ast.parse(path.read_bytes())
            imports = sorted(set(_imports(tree)))
            entry = {"stamp": stamp, "code": _code_digest(tree), "imports": imports}
            self._memory[name] = entry
            self._changed = True
        self._files[name] = entry["code"], entry["imports"]
        return self._files[name]


def _source_of(module: str) -> Path | None:
    loaded = sys.modules.get(module)
    file = getattr(loaded, "__file__", None)
    if file is None:
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            return None
        file = spec.origin if spec else None
    return Path(file) if file and file.endswith(".py") else None


def _root_of(module: str, source: Path) -> Path:
    """The folder in which the module's top-level package lies."""
    depth = module.count(".") + (source.name == "__init__.py")
    return source.parents[depth]


def _is_machinery(module: str) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in MACHINERY)


def _imports(tree: ast.Module) -> Iterator[str]:
    """Imported names; `from a import b` gives `a.b`, which may be a module or less."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            dots = "." * node.level
            for alias in node.names:
                yield f"{dots}{node.module}.{alias.name}" if node.module else f"{dots}{alias.name}"


def _absolute(name: str, module: str, path: Path) -> str:
    dots = len(name) - len(name.lstrip("."))
    if not dots:
        return name
    parts = module.split(".")
    if path.name != "__init__.py":
        parts = parts[:-1]
    parts = parts[: len(parts) - dots + 1]
    return ".".join([*parts, name.lstrip(".")])


@cache
def _modules(name: str, root: Path) -> list[tuple[str, Path]]:
    """The packages on the way to `name`, and the module itself, as far as there are files."""
    parent = name.rpartition(".")[0]
    found = _modules(parent, root) if parent else []
    stem = os.path.join(root, *name.split("."))
    for path in (os.path.join(stem, "__init__.py"), f"{stem}.py"):
        if os.path.isfile(path):
            return [*found, (name, Path(path))]
    return found


def _code_digest(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()
