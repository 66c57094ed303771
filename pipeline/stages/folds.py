"""Which queries of a split lie in a fold (`FoldParams`)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.artifacts.reader import Artifact
from pipeline.sources.split import deal_folds, group_by_shared
from pipeline.stages import tables
from pipeline.stages.split_params import FoldParams


def kept(
    dataset: Artifact, tokens: Artifact, split: str, fold: FoldParams | None
) -> npt.NDArray[np.int64]:
    """The query indices of a split, ascending: all of them, or what the fold keeps.

    A retriever puts a passage near every query that it was trained on with it, so that the score of
    a positive would be a memorised one through any query that shares it.
    """
    queries = tables.queries_of(dataset, [split])
    if fold is None:
        return queries
    positives = tables.positives_of(dataset).lists().of(queries)
    hashes = tables.content_hashes(tokens)[positives.passage_indices]
    own = np.split(hashes, positives.offsets[1:-1])
    # Without case, as everywhere else: such queries are one and the same to an uncased model.
    read = dataset.read("queries", ["text"])["text"].take(queries).to_pylist()
    texts = [text.casefold() for text in read]
    groups = group_by_shared(
        len(queries),
        [(text, *passages.tolist()) for text, passages in zip(texts, own, strict=True)],
    )
    inside = deal_folds(groups, fold.of) == fold.number
    chosen: npt.NDArray[np.int64] = queries[inside if fold.keep == "inside" else ~inside]
    return chosen
