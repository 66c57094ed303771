"""Docstrings as a retrieval collection, divided into sides that share nothing.

A docstring's summary is a query, what follows it the relevant passage. The training, validation
and dev side share neither a query text nor a passage or near copy of one, nor the last part of a
name, nor a module. Joining all that shares any of these would leave one group with most of the data
(78 % of it, with numpy, pandas and scipy), hence two steps:

1. Labelled pairs that share a query, a passage or near copy, or the last part of their names form a
   group.
2. Whole modules are dealt to the sides. Where a group then lies on several sides, its pairs outside
   the training side are dropped (counted); those that answer a training query are held as excluded.

Passages of all sides, of dropped pairs, and of docstrings without a usable summary make up the one
corpus.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from typing import NamedTuple

from pipeline.sources.near_duplicates import near_duplicate_pairs, normalise
from pipeline.sources.pydocs_extract import Docstring
from pipeline.sources.pydocs_params import PydocsParams
from pipeline.sources.pydocs_text import (
    count_words,
    has_placeholder,
    split_docstring,
    without_examples,
)
from pipeline.sources.records import Judgement, Pair, Passage, Query, Split
from pipeline.sources.split import deal_blocks, draw_order, group_by_shared

MIN_SUMMARY_WORDS = 4
MIN_BODY_WORDS = 8
NEAR_COPY = 0.8


class Entry(NamedTuple):
    """A usable docstring: `summary` may ask, `body` may answer; empty where too short for that."""

    name: str
    module: str
    summary: str
    body: str


class Collection(NamedTuple):
    """The divided collection; `counts` says what was left out, by reason."""

    passages: list[Passage]
    queries: list[Query]
    judgements: list[Judgement]
    excluded: list[Pair]
    hidden: list[Pair]
    counts: Counter[str]


class _Pair(NamedTuple):
    """A query and a relevant passage, and the docstring that says so."""

    query_id: str
    passage_id: str
    name: str
    module: str

    @property
    def label(self) -> tuple[str, str]:
        return self.query_id, self.passage_id

    @property
    def last_name(self) -> str:
        return self.name.rpartition(".")[2].partition("#")[0]


def entries(docstrings: Iterable[Docstring], counts: Counter[str]) -> list[Entry]:
    """Clean docstrings, count those left out, and make names unique (`name`, `name#2`, ...)."""
    found = []
    seen: Counter[str] = Counter()
    for docstring in docstrings:
        if has_placeholder(docstring.text):
            counts["templated docstrings"] += 1
            continue
        summary, body = split_docstring(docstring.text)
        asks = count_words(summary) >= MIN_SUMMARY_WORDS
        if asks and f" {normalise(summary)} " in f" {normalise(body)} ":
            counts["summaries repeated in the body"] += 1
            asks = False
        prose = split_docstring(without_examples(docstring.text)).body
        answers = count_words(prose) >= MIN_BODY_WORDS
        if not asks and not answers:
            counts["docstrings too short"] += 1
            continue
        seen[docstring.name] += 1
        repeat = f"#{seen[docstring.name]}" if seen[docstring.name] > 1 else ""
        found.append(
            Entry(
                docstring.name + repeat,
                docstring.module,
                summary if asks else "",
                body if answers else "",
            )
        )
    return found


def divide(found: list[Entry], params: PydocsParams, counts: Counter[str]) -> Collection:
    """Make the collection: passages under the cap, queries of all splits and their labels.

    Args:
        found: usable docstrings.
        params: the cap, the shares and the seed.
        counts: what was left out so far; what is left out here is added.
    """
    passages, kept_share = _capped_passages(found, params, counts)
    queries, pairs = _labelled_pairs(found, passages)
    sides = _deal(pairs, passages, params)
    counts["labelled pairs cut off between sides"] += sides.count(None)

    splits = {pair.query_id: side for pair, side in zip(pairs, sides, strict=True) if side}
    kept = {pair.label for pair, side in zip(pairs, sides, strict=True) if side}
    cut_off = {pair.label for pair in pairs if pair.query_id in splits} - kept
    hidden_queries = _hidden_queries(splits, params)
    splits.update(dict.fromkeys(hidden_queries, "unlabelled"))
    labelled = [
        query._replace(split=splits[query.query_id])
        for query in queries.values()
        if query.query_id in splits
    ]
    held_out = {pair.module for pair, side in zip(pairs, sides, strict=True) if side != "train"}
    candidates = [
        entry
        for entry in found
        if entry.summary and not entry.body and entry.module not in held_out
    ]
    taken = {normalise(query.text) for query in labelled}
    return Collection(
        passages=list(passages.values()),
        queries=labelled + _one_line_queries(candidates, taken, kept_share, params.seed, counts),
        judgements=[
            Judgement(*label, 1) for label in sorted(kept) if label[0] not in hidden_queries
        ],
        excluded=[Pair(*label) for label in sorted(cut_off) if label[0] not in hidden_queries],
        hidden=[Pair(*label) for label in sorted(kept | cut_off) if label[0] in hidden_queries],
        counts=counts,
    )


def _capped_passages(
    found: list[Entry], params: PydocsParams, counts: Counter[str]
) -> tuple[dict[str, Passage], float]:
    """Normalised body -> its passage, equal bodies once, and the share that `max_passages` left."""
    every: dict[str, Passage] = {}
    for entry in found:
        if entry.body:
            every.setdefault(normalise(entry.body), Passage(entry.name, entry.name, entry.body))
    drawn = sorted(every, key=lambda body: draw_order(body, params.seed))
    drawn_bodies = frozenset(drawn[: params.max_passages])
    counts["passages beyond max_passages"] += len(every) - len(drawn_bodies)
    kept = {body: passage for body, passage in every.items() if body in drawn_bodies}
    return kept, len(kept) / max(len(every), 1)


def _labelled_pairs(
    found: list[Entry], passages: dict[str, Passage]
) -> tuple[dict[str, Query], list[_Pair]]:
    """Normalised summary -> its query, equal summaries once; and all pairs with a passage."""
    queries: dict[str, Query] = {}
    pairs = []
    for entry in found:
        passage = passages.get(normalise(entry.body))
        if not entry.summary or passage is None:
            continue
        query = queries.setdefault(
            normalise(entry.summary), Query(_query_id(entry), entry.summary, "train")
        )
        pairs.append(_Pair(query.query_id, passage.passage_id, entry.name, entry.module))
    return queries, pairs


def _query_id(entry: Entry) -> str:
    # Some evaluation tools leave out a passage whose id is the query's own.
    return f"q-{entry.name}"


def _deal(
    pairs: list[_Pair], passages: dict[str, Passage], params: PydocsParams
) -> list[Split | None]:
    """The side of each pair, None where it is dropped; see the module's two steps."""
    answering = {pair.passage_id for pair in pairs}
    texts = {
        passage.passage_id: passage.text
        for passage in passages.values()
        if passage.passage_id in answering
    }
    ids = list(texts)
    near: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for couple in near_duplicate_pairs(list(texts.values()), NEAR_COPY):
        for position in couple:
            near[ids[position]].append(couple)
    keys: list[list[Hashable]] = [
        [
            ("query", pair.query_id),
            ("passage", pair.passage_id),
            ("last name", pair.last_name),
            *(("near copy", couple) for couple in near[pair.passage_id]),
        ]
        for pair in pairs
    ]
    shares: dict[Split, float] = {"dev": params.dev_share, "validation": params.validation_share}
    return deal_blocks(
        group_by_shared(len(pairs), keys),
        [pair.module for pair in pairs],
        shares,
        params.seed,
        rest="train",
    )


def _hidden_queries(splits: dict[str, Split], params: PydocsParams) -> frozenset[str]:
    """The training queries that lose their labels."""
    training = [query_id for query_id, split in splits.items() if split == "train"]
    training.sort(key=lambda query_id: draw_order(f"hidden/{query_id}", params.seed))
    return frozenset(training[: round(params.hidden_share * len(training))])


def _one_line_queries(
    candidates: list[Entry], taken: set[str], share: float, seed: int, counts: Counter[str]
) -> list[Query]:
    """Unlabelled queries from docstrings without a body, thinned like the passages.

    Args:
        candidates: docstrings in modules of the training side.
        taken: normalised texts of all labelled queries, which must not come again.
        share: part of the candidates to keep.
        seed: of the draw.
        counts: gets the number of those whose text is taken.
    """
    fresh: dict[str, Query] = {}
    repeated = 0
    for entry in candidates:
        text = normalise(entry.summary)
        if text in taken or text in fresh:
            repeated += 1
        else:
            fresh[text] = Query(_query_id(entry), entry.summary, "unlabelled")
    counts["one-line docstrings with the text of another query"] += repeated
    drawn = sorted(fresh, key=lambda text: draw_order(text, seed))
    return [fresh[text] for text in drawn[: round(share * len(fresh))]]
