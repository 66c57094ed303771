"""BEIR collections: `corpus.jsonl`, `queries.jsonl` and `qrels/{split}.tsv`.

The queries are not divided by file but by the judgements that name them. Queries that no judgement
names are left out and counted: they may belong to a split that was not asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from typing_extensions import override

from pipeline.sources.json_rows import JsonObject, jsonl, text_of
from pipeline.sources.lines import parsed
from pipeline.sources.parameters import BeirParams
from pipeline.sources.qrels import read_qrels
from pipeline.sources.records import Judgement, Passage, Place, Problems, Query, Source, Split


class BeirSource(Source):
    """Reads the layout of `BeirParams`."""

    def __init__(self, params: BeirParams, problems: Problems) -> None:
        super().__init__(problems)
        self._params = params
        self._unnamed = 0

    @override
    def passages(self) -> Iterator[Passage]:
        return parsed(
            jsonl(self._params.required("corpus"), self.problems), _passage, self.problems
        )

    @override
    def queries(self) -> Iterator[Query]:
        splits = self._split_of_query()
        for query in self._read_queries(self._params.required("queries"), "unlabelled"):
            named = splits.get(query.query_id)
            if named is None:
                self._unnamed += 1
                continue
            for split in named:
                yield query._replace(split=split)
        for path in self._params.paths_of("unlabelled_queries"):
            yield from self._read_queries(path, "unlabelled")

    @override
    def judgements(self) -> Iterator[Judgement]:
        for split, path in self._params.splits_of("qrels"):
            yield from read_qrels(path, split, self.problems)

    @override
    def counts(self) -> Mapping[str, int]:
        return {"queries in no judgement": self._unnamed}

    def _read_queries(self, path: Path, split: Split) -> Iterator[Query]:
        def query(where: Place, row: JsonObject) -> Query:
            return Query(text_of(row, "_id"), text_of(row, "text"), split, where)

        return parsed(jsonl(path, self.problems), query, self.problems)

    def _split_of_query(self) -> dict[str, tuple[Split, ...]]:
        splits: dict[str, tuple[Split, ...]] = {}
        for split, path in self._params.splits_of("qrels"):
            for judgement in read_qrels(path, split, self.problems.repeated()):
                known = splits.get(judgement.query_id, ())
                if split not in known:
                    splits[judgement.query_id] = (*known, split)
        return splits


def _passage(where: Place, row: JsonObject) -> Passage:
    title = text_of(row, "title", default="")
    return Passage(text_of(row, "_id"), title, text_of(row, "text"), where)
