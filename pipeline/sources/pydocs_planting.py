"""Planted false negatives: passages that answer a query and are labelled nowhere.

What a sampler or a ranker takes for a negative can be counted only against labels that it has not
seen. A collection with one label a query has none; so some are made.
"""

from __future__ import annotations

from pipeline.sources.pydocs_division import Collection
from pipeline.sources.pydocs_text import sentences
from pipeline.sources.records import Pair
from pipeline.sources.split import draw_order

FEWEST_SENTENCES = 4


def plant(collection: Collection, share: float, seed: int) -> Collection:
    """Give training queries a second relevant passage whose label is hidden.

    It has every other sentence of the labelled one, under the same title.

    Args:
        collection: with its labels.
        share: part of the labelled training queries whose passage is long enough.
        seed: of the draw.

    Returns:
        The collection with the planted passages at its end, their labels among the hidden ones, and
        their number among the counts.
    """
    passages = {passage.passage_id: passage for passage in collection.passages}
    training = {query.query_id for query in collection.queries if query.split == "train"}
    first = {
        label.query_id: label.passage_id
        for label in reversed(collection.judgements)
        if label.query_id in training
    }
    parts = {query: sentences(passages[passage].text) for query, passage in first.items()}
    able = [query for query, found in parts.items() if len(found) >= FEWEST_SENTENCES]
    able.sort(key=lambda query: draw_order(f"planted/{query}", seed))
    chosen = able[: round(share * len(able))]
    planted = {first[query]: " ".join(parts[query][1::2]) for query in chosen}
    collection.counts["planted false negatives"] += len(planted)
    return collection._replace(
        passages=[
            *collection.passages,
            *(
                passages[passage]._replace(passage_id=_planted(passage), text=text)
                for passage, text in planted.items()
            ),
        ],
        # A query that shares the labelled passage is answered by the planted one as well.
        hidden=[
            *collection.hidden,
            *(
                Pair(label.query_id, _planted(label.passage_id))
                for label in collection.judgements
                if label.passage_id in planted
            ),
        ],
    )


def _planted(passage_id: str) -> str:
    return f"{passage_id}#planted"
