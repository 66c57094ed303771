from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.sources.pydocs_extract import (
    Docstring,
    SourceFile,
    distribution_files,
    is_library,
    module_name,
    read_docstrings,
    standard_library_files,
)

SOURCE = '''
"""Of the module."""
raise RuntimeError("this module must not be imported")

if True:
    def conditional():
        """Of a function."""
        def inner():
            """Of an inner one."""
else:
    try:
        pass
    except OSError:
        class Handler:
            """Of a class.

            More.
            """
            async def run(self):
                """Of a method."""

add_newdoc("far.away", "function", """
    Of a compiled function.

        Indented.
    """)
add_newdoc("far.away", "Type", ("attribute", "Of an attribute."))
add_newdoc("far.away", "Type", [("one", "Of one."), ("two", "Of two.")])
add_newdoc("short", "Of a function of the package.")
add_newdoc("far.away", "computed", "a" % b)
"Not a docstring."
'''


def test_reads_every_docstring_without_importing(tmp_path: Path) -> None:
    path = tmp_path / "docs.py"
    path.write_text(SOURCE, encoding="utf-8")
    module = "pack.docs"
    assert read_docstrings(SourceFile(path, module)) == [
        Docstring("pack.docs", module, "Of the module."),
        Docstring("pack.docs.conditional", module, "Of a function."),
        Docstring("pack.docs.conditional.inner", module, "Of an inner one."),
        Docstring("pack.docs.Handler", module, "Of a class.\n\nMore."),
        Docstring("pack.docs.Handler.run", module, "Of a method."),
        Docstring("far.away.function", "far.away", "Of a compiled function.\n\n    Indented."),
        Docstring("far.away.Type.attribute", "far.away", "Of an attribute."),
        Docstring("far.away.Type.one", "far.away", "Of one."),
        Docstring("far.away.Type.two", "far.away", "Of two."),
        Docstring("pack.short", "pack", "Of a function of the package."),
    ]


@pytest.mark.parametrize(
    ("path", "library"),
    [
        ("numpy/linalg/_linalg.py", True),
        ("numpy/testing/_private/utils.py", True),
        ("unittest/case.py", True),
        ("numpy/linalg/tests/helpers.py", False),
        ("test/support.py", False),
        ("pandas/conftest.py", False),
        ("pack/test_one.py", False),
        ("idlelib/idle_test/htest.py", False),
    ],
)
def test_leaves_tests_out(path: str, library: bool) -> None:
    assert is_library(Path(path)) is library


def test_module_names() -> None:
    assert module_name(Path("json/__init__.py")) == "json"
    assert module_name(Path("json/decoder.py")) == "json.decoder"


def test_standard_library_is_found_and_is_only_that() -> None:
    modules = {file.module for file in standard_library_files()}
    assert {"json", "json.decoder", "argparse"} <= modules
    assert not {"numpy", "test", "pip"} & {module.split(".")[0] for module in modules}


def test_distribution_is_found_by_its_package_name() -> None:
    modules = {file.module: file.path for file in distribution_files("PyYAML")}
    assert modules["yaml.loader"].is_file()


def test_missing_distribution_is_named() -> None:
    with pytest.raises(ValueError, match="'no-such-package' is not installed; install it"):
        list(distribution_files("no-such-package"))
