"""Labels that are held back from training, so that false negatives can be counted afterwards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.sources.known_texts import KnownTexts
from pipeline.sources.pairs import Pairs
from pipeline.sources.query_table import TRAIN, QueryTable
from pipeline.sources.split import draw_order


def held_back(
    positives: Pairs, queries: QueryTable, passages: KnownTexts, most: int | None, seed: int
) -> Pairs:
    """The positives of training queries beyond the `most` of highest relevance of each.

    Equal ones are drawn by a hash of the seed and both texts, so that ids and order play no part.
    None holds nothing back.
    """
    if most is None:
        return positives.take(np.zeros(len(positives), dtype=np.bool_))
    own = positives.take((queries.kept & (queries.split == TRAIN))[positives.query])
    draws = [
        draw_order(f"{queries.keys[query]}/{passages.text_key(passage)}", seed)
        for query, passage in zip(own.query.tolist(), own.passage.tolist(), strict=True)
    ]
    return own.take(_surplus(own, most, draws))


def _surplus(pairs: Pairs, most: int, draws: Sequence[bytes]) -> npt.NDArray[np.bool_]:
    """Which pairs stand beyond the first `most` of their query, by value and then by their draw."""
    order = np.array(
        sorted(range(len(pairs)), key=lambda at: (pairs.query[at], -pairs.value[at], draws[at])),
        dtype=np.int64,
    )
    ordered = pairs.query[order]
    place = np.arange(len(pairs)) - np.searchsorted(ordered, ordered, side="left")
    beyond = np.zeros(len(pairs), dtype=np.bool_)
    beyond[order[place >= most]] = True
    return beyond
