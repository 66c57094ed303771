"""BM25 over titles and texts."""

from __future__ import annotations

import json
import logging
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.search.bm25_library import Tokenized, bm25s
from pipeline.search.ranking import EMPTY, Excluded, TopK, best_keys, keys_of, top_k

# It announces every index it builds.
logging.getLogger("bm25s").setLevel(logging.WARNING)

PASSAGES = "passages.json"
INDEX = "params.index.json"

# Han, kana and their extensions are written without spaces: each character is a word of its own.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W{_UNSPACED}]+")


def words(text: str) -> list[str]:
    """Lower-case words of a text, without stemming and with stop words."""
    return _WORD.findall(text.lower())


class BM25Search:
    """BM25 in Lucene's form with exact scores and a fixed order of ties."""

    def __init__(self, index: bm25s.BM25, ids: dict[str, int], passages: int) -> None:
        self._index = index
        self._ids = ids
        self._passages = passages

    @classmethod
    def of_passages(
        cls, passages: Iterable[pa.Table], *, k1: float = 0.9, b: float = 0.4
    ) -> BM25Search:
        """Index a corpus in memory.

        Args:
            passages: tables with `title` and `text`, in the order of the passage indices; read
                once. Held are 4 bytes per word while indexing and 8 per different word of each
                passage afterwards.
            k1: saturation of the term frequency.
            b: weight of the passage length.
        """
        ids: dict[str, int] = {}
        corpus = _Corpus()
        for table in passages:
            titles, texts = table.column("title").to_pylist(), table.column("text").to_pylist()
            for title, text in zip(titles, texts, strict=True):
                corpus.append([ids.setdefault(word, len(ids)) for word in words(f"{title} {text}")])
        index = bm25s.BM25(k1=k1, b=b, method="lucene", backend="numpy")
        if ids:
            tokens = Tokenized(ids=corpus, vocab=ids)
            index.index(tokens, create_empty_token=False, show_progress=False)
        return cls(index, ids, len(corpus))

    def save(self, folder: Path) -> None:
        """Write the index into an empty folder, for `open`."""
        (folder / PASSAGES).write_text(json.dumps(self._passages))
        if self._ids:
            self._index.save(folder, show_progress=False)

    @classmethod
    def open(cls, folder: Path) -> BM25Search:
        """A saved index; all but its vocabulary stays on disk and is mapped into memory."""
        passages = json.loads((folder / PASSAGES).read_text())
        if not (folder / INDEX).exists():
            return cls(bm25s.BM25(), {}, passages)
        index = bm25s.BM25.load(folder, mmap=True, show_progress=False)
        return cls(index, index.vocab_dict, passages)

    @property
    def passages(self) -> int:
        """Passages in the index."""
        return self._passages

    def search(
        self,
        queries: Sequence[str],
        depth: int,
        excluded: Excluded | None = None,
        on_queries: Callable[[int], object] = lambda count: None,
    ) -> TopK:
        """The best passages of each query; passages without a common word are left out.

        Args:
            queries: texts.
            depth: passages to find per query.
            excluded: passages left out per query, before the ranking is cut.
            on_queries: is told how many more queries are done.
        """
        left_out: dict[int, list[int]] = {}
        if excluded is not None:
            pairs = zip(excluded.query_row.tolist(), excluded.passage_index.tolist(), strict=True)
            for row, passage in pairs:
                left_out.setdefault(row, []).append(passage)
        keys = np.full((len(queries), depth), EMPTY)
        for row, query in enumerate(queries):
            scores = self._scores(query)
            scores[left_out.get(row, [])] = 0
            found = np.flatnonzero(scores > 0)
            keys[row] = best_keys(keys_of(scores[found], found)[None, :], depth)[0]
            on_queries(1)
        return top_k(keys)

    def _scores(self, query: str) -> NDArray[np.float32]:
        ids = [self._ids[word] for word in words(query) if word in self._ids]
        if not ids:
            return np.zeros(self._passages, dtype=np.float32)
        scores: NDArray[np.float32] = self._index.get_scores_from_ids(ids)
        return scores


class _Corpus:
    """Word ids of passages in one flat array, read passage by passage."""

    def __init__(self) -> None:
        self._ids = array("i")
        self._ends = array("q", [0])

    def append(self, ids: list[int]) -> None:
        self._ids.extend(ids)
        self._ends.append(len(self._ids))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[Any]:
        for start, end in zip(self._ends, self._ends[1:], strict=False):
            yield self._ids[start:end]
