"""Docstrings of the standard library and of installed packages, parsed but never imported."""

from __future__ import annotations

import ast
import inspect
import sys
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

_TEST_FOLDERS = frozenset({"test", "tests", "idle_test"})


class Docstring(NamedTuple):
    """A docstring as written, with its indentation removed.

    Attributes:
        name: qualified name of what it documents, for example `json.decoder.JSONDecoder.decode`.
        module: the module it stands in, for example `json.decoder`.
        text: the cleaned docstring.
    """

    name: str
    module: str
    text: str


class SourceFile(NamedTuple):
    """A Python source file and the dotted name of its module."""

    path: Path
    module: str


def standard_library_files() -> Iterator[SourceFile]:
    """Source files of the running Python's standard library, tests left out, in order of path."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if relative.parts[0].removesuffix(".py") in sys.stdlib_module_names and is_library(
            relative
        ):
            yield SourceFile(path, module_name(relative))


def distribution_files(name: str) -> Iterator[SourceFile]:
    """Source files of an installed distribution, tests left out, in order of path.

    Raises:
        ValueError: the distribution is not installed, or is installed without its Python source.
    """
    try:
        files = metadata.distribution(name).files or []
    except metadata.PackageNotFoundError:
        raise ValueError(
            f"package '{name}' is not installed; install it or take it out of `packages`"
        ) from None
    relatives = {
        str(file): file for file in files if file.suffix == ".py" and ".." not in file.parts
    }
    if not relatives:
        raise ValueError(
            f"package '{name}' lists no Python source files (an editable install, or compiled "
            "only); install it from a wheel or take it out of `packages`"
        )
    for _, file in sorted(relatives.items()):
        if is_library(Path(file)):
            yield SourceFile(Path(str(file.locate())), module_name(Path(file)))


def is_library(relative: Path) -> bool:
    """Whether a path inside a package belongs to the library itself, not to its tests."""
    return not (
        _TEST_FOLDERS.intersection(relative.parts[:-1])
        or relative.name.startswith(("test_", "_test"))
        or relative.name == "conftest.py"
    )


def module_name(relative: Path) -> str:
    """Dotted name of the module in `relative`: `json/__init__.py` is `json`."""
    parts = relative.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read_docstrings(file: SourceFile) -> list[Docstring]:
    """All docstrings of a module: its own, of its definitions, and in literal `add_newdoc` calls.

    Raises:
        SyntaxError: the file is not valid Python for this interpreter.
    """
    with warnings.catch_warnings():
        # Old escapes and `is` with a literal warn when parsed; nobody here can mend them.
        warnings.simplefilter("ignore")
        tree = ast.parse(file.path.read_bytes())
    found = []
    own = ast.get_docstring(tree)
    if own:
        found.append(Docstring(file.module, file.module, own))
    found.extend(_definitions(tree.body, file.module, file.module))
    return found


def _definitions(statements: Sequence[ast.stmt], scope: str, module: str) -> Iterator[Docstring]:
    for statement in statements:
        match statement:
            case (
                ast.ClassDef(name=name)
                | ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
            ):
                qualified = f"{scope}.{name}"
                text = ast.get_docstring(statement)
                if text:
                    yield Docstring(qualified, module, text)
                yield from _definitions(statement.body, qualified, module)
            case ast.Expr(value=ast.Call() as call):
                yield from _added_docstrings(call, module)
            case _:
                yield from _definitions(_nested(statement), scope, module)


def _nested(statement: ast.stmt) -> list[ast.stmt]:
    """Statements inside an `if`, `try`, `with` or loop."""
    found: list[ast.stmt] = []
    for part in ("body", "handlers", "cases", "orelse", "finalbody"):
        for child in getattr(statement, part, ()):
            found.extend([child] if isinstance(child, ast.stmt) else child.body)
    return found


def _added_docstrings(call: ast.Call, module: str) -> Iterator[Docstring]:
    """What numpy and scipy give to compiled functions: `add_newdoc([place,] name, doc)`.

    `doc` is a literal, `(attribute, literal)` or a list of these; what is computed is left out.
    """
    if not (isinstance(call.func, ast.Name) and call.func.id == "add_newdoc"):
        return
    try:
        *where, documentation = (ast.literal_eval(argument) for argument in call.args)
    except ValueError:
        return
    place = where[0] if len(where) == 2 else module.rpartition(".")[0]
    entries = documentation if isinstance(documentation, list) else [documentation]
    for entry in entries:
        attribute, text = entry if isinstance(entry, tuple) else ("", entry)
        qualified = ".".join(part for part in (place, where[-1], attribute) if part)
        yield Docstring(qualified, place, inspect.cleandoc(text))
