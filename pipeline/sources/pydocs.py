"""The `pydocs` source: documentation of the Python standard library and of installed packages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property

from pipeline.sources.pydocs_division import Collection, divide, entries
from pipeline.sources.pydocs_extract import (
    Docstring,
    SourceFile,
    distribution_files,
    read_docstrings,
    standard_library_files,
)
from pipeline.sources.pydocs_params import PydocsParams, package_names
from pipeline.sources.pydocs_planting import plant
from pipeline.sources.records import Judgement, Pair, Passage, Problems, Query, Source, place

__all__ = ["PydocsParams", "PydocsSource", "package_names"]


class PydocsSource(Source):
    """Reads the docstrings that `params` names, at the first stream that is opened.

    Args:
        params: what to read and how to divide it.
        problems: where source files that do not parse are reported.
    """

    def __init__(self, params: PydocsParams, problems: Problems) -> None:
        super().__init__(problems)
        self._params = params

    def counts(self) -> Mapping[str, int]:
        """What was left out of the collection, by reason."""
        return self.collection.counts

    @cached_property
    def collection(self) -> Collection:
        """The collection; `counts` says what was left out and why."""
        counts: Counter[str] = Counter()
        files = list(standard_library_files())
        for name in package_names(self._params):
            files.extend(distribution_files(name))
        params = self._params
        divided = divide(entries(self._docstrings(files), counts), params, counts)
        return (
            plant(divided, params.planted_share, params.seed) if params.planted_share else divided
        )

    def _docstrings(self, files: list[SourceFile]) -> Iterator[Docstring]:
        for file in files:
            try:
                yield from read_docstrings(file)
            except SyntaxError as error:
                self.problems.found(
                    "not valid Python",
                    place(file.path, error.lineno or 0),
                    f"not valid Python for this interpreter: {error.msg}",
                    "take the package out of `packages`",
                )

    def passages(self) -> Iterator[Passage]:
        """All passages; the title is the qualified name."""
        return iter(self.collection.passages)

    def queries(self) -> Iterator[Query]:
        """Queries of the splits train, validation, dev and unlabelled."""
        return iter(self.collection.queries)

    def judgements(self) -> Iterator[Judgement]:
        """The body of each docstring whose summary is the query."""
        return iter(self.collection.judgements)

    def excluded(self) -> Iterator[Pair]:
        """Answers to training queries that stand in modules of another side."""
        return iter(self.collection.excluded)

    def hidden(self) -> Iterator[Pair]:
        """The labels of those unlabelled queries that had one, and of planted passages."""
        return iter(self.collection.hidden)
