"""The house: a file imports only from floors below its own, and Ray stays in one room."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pipeline"
FLOORS = {
    "artifacts": 1,
    "methods": 1,
    "models": 2,
    "text": 2,
    "search": 2,
    "sources": 2,
    "training": 3,
    "distributed": 3,
    "dag": 4,
    "reports": 4,
    "stages": 5,
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imported(file: Path) -> set[str]:
    """Modules that a file imports anywhere in it, except for type checking alone."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def room(module: str) -> str | None:
    """The room of a module of this package."""
    parts = module.split(".")
    return parts[1] if parts[0] == "pipeline" and len(parts) > 1 and parts[1] in FLOORS else None


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_down(file: Path) -> None:
    own = file.relative_to(PACKAGE).parts[0]
    if own not in FLOORS:
        return
    for module in imported(file):
        other = room(module)
        if other is not None and other != own:
            assert FLOORS[other] < FLOORS[own], f"{own} imports {module}"


# Batches under a token budget are cut alike wherever a model reads tokens, and the training loop
# is what a launcher launches.
@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_only_one_room_imports_ray(file: Path) -> None:
    uses_ray = any(module.split(".")[0] == "ray" for module in imported(file))
    assert not uses_ray or file.relative_to(PACKAGE).parts[0] == "distributed"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_modules_stay_readable(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_nothing_is_unpickled_from_files(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert "torch.load(" not in text
    assert "pickle.load(" not in text
    assert "trust_remote_code=True" not in text
