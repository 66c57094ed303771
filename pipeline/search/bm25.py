"""BM25 over titles and texts."""

from __future__ import annotations

import logging
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import bm25s
import numpy as np
import pyarrow as pa
from bm25s.tokenization import Tokenized
from numpy.typing import NDArray

from pipeline.search.ranking import EMPTY, Excluded, TopK, best_keys, keys_of, top_k

# It announces every index it builds.
logging.getLogger("bm25s").setLevel(logging.WARNING)

# Han, kana and their extensions are written without spaces: each character is a word of its own.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W{_UNSPACED}]+")


def words(text: str) -> list[str]:
    """Lower-case words of a text, without stemming and with stop words."""
    return _WORD.findall(text.lower())


class BM25Search:
    """BM25 in Lucene's form with exact scores and a fixed order of ties."""

    def __init__(self, passages: Iterable[pa.Table], *, k1: float = 0.9, b: float = 0.4):
        """Index a corpus.

        Args:
            passages: tables with `title` and `text`, in the order of the passage indices; read
                once. Held are 4 bytes per word while indexing and 8 per different word of each
                passage afterwards.
            k1: saturation of the term frequency.
            b: weight of the passage length.
        """
        self._ids: dict[str, int] = {}
        corpus = _Corpus()
        for table in passages:
            titles, texts = table.column("title").to_pylist(), table.column("text").to_pylist()
            for title, text in zip(titles, texts, strict=True):
                corpus.append([self._word_id(word) for word in words(f"{title} {text}")])
        self._passages = len(corpus)
        self._index = bm25s.BM25(k1=k1, b=b, method="lucene", backend="numpy")
        if self._ids:
            tokens = Tokenized(ids=corpus, vocab=self._ids)
            self._index.index(tokens, create_empty_token=False, show_progress=False)

    @property
    def passages(self) -> int:
        """Passages in the index."""
        return self._passages

    def search(self, queries: Sequence[str], depth: int, excluded: Excluded | None = None) -> TopK:
        """The best passages of each query; passages without a common word are left out.

        Args:
            queries: texts.
            depth: passages to find per query.
            excluded: passages left out per query, before the ranking is cut.
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
        return top_k(keys)

    def _scores(self, query: str) -> NDArray[np.float32]:
        ids = [self._ids[word] for word in words(query) if word in self._ids]
        if not ids:
            return np.zeros(self._passages, dtype=np.float32)
        scores: NDArray[np.float32] = self._index.get_scores_from_ids(ids)
        return scores

    def _word_id(self, word: str) -> int:
        return self._ids.setdefault(word, len(self._ids))


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
