"""FlagEmbedding JSONL: `query`, `pos` and `neg` lists of texts; nothing has an id or a title.

Teacher scores, prompts and task types are not read: scores come from this pipeline's own ranker.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from typing_extensions import override

from pipeline.sources.content import passage_id_of
from pipeline.sources.examples import Context, Example, ExampleSource
from pipeline.sources.id_index import SeenIds
from pipeline.sources.json_rows import JsonObject, jsonl, text_of, texts_of
from pipeline.sources.lines import parsed
from pipeline.sources.parameters import FlagEmbeddingParams
from pipeline.sources.records import Passage, Place, Problems, Split


class FlagEmbeddingSource(ExampleSource):
    """Reads the layout of `FlagEmbeddingParams`."""

    def __init__(self, params: FlagEmbeddingParams, problems: Problems) -> None:
        super().__init__(problems, params.paths_of("unlabelled_queries"))
        self._params = params

    def passages(self) -> Iterator[Passage]:
        """The passages of the examples, then those of the corpus that are not among them."""
        passages = chain(super().passages(), self._candidates())
        return SeenIds().first_times((passage.passage_id, passage) for passage in passages)

    def _candidates(self) -> Iterator[Passage]:
        for path in self._params.paths_of("corpus"):
            yield from parsed(jsonl(path, self.problems), _passage, self.problems)

    @override
    def examples(self, problems: Problems) -> Iterator[Example]:
        for split, path in self._params.splits_of("examples"):

            def example(where: Place, row: JsonObject, split: Split = split) -> Example:
                return Example(
                    None,
                    text_of(row, "query"),
                    split,
                    where,
                    positives=_contexts(row, "pos", required=True),
                    negatives=_contexts(row, "neg"),
                )

            yield from parsed(jsonl(path, problems), example, problems)


def _contexts(row: JsonObject, name: str, required: bool = False) -> tuple[Context, ...]:
    return tuple(Context("", text) for text in texts_of(row, name, required=required))


def _passage(where: Place, row: JsonObject) -> Passage:
    text = text_of(row, "text")
    return Passage(passage_id_of("", text), "", text, where)
