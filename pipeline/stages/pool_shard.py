"""The work of the `pool` stage on one shard of candidates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.artifacts.kinds import NEGATIVE_POOLS
from pipeline.artifacts.reader import Artifact, Shard
from pipeline.artifacts.writer import ArtifactWriter
from pipeline.dag.contract import Progress
from pipeline.methods import filters
from pipeline.methods.answers import matching
from pipeline.methods.filters import KnownPairs
from pipeline.methods.lists import Floats, Mask, PassageLists, places
from pipeline.methods.near_copies import near_copies
from pipeline.methods.negatives import refuse_unscored
from pipeline.methods.pools import Completed, complete
from pipeline.stages import pool_report, tables
from pipeline.stages.embedding_scores import Scoring
from pipeline.stages.measuring import Judgements
from pipeline.stages.pool_block import Block
from pipeline.stages.pool_params import PoolParams


@dataclass(frozen=True)
class PoolTask:
    """A shard of candidates, the number of its output, and the embeddings its scores are from."""

    index: int
    shard: Shard
    embeddings: Artifact | None


@dataclass(frozen=True)
class MakePoolWork:
    """Everything that a worker needs, by name."""

    dataset: Artifact
    tokens: Artifact
    calibration: Artifact | None
    params: PoolParams
    writer: ArtifactWriter
    seed: int

    def __call__(self) -> PoolShard:
        """Read labels and known pairs."""
        return PoolShard(self)


class PoolShard:
    """Turns the candidates of some queries into pools."""

    def __init__(self, made: MakePoolWork) -> None:
        self._made = made
        queries = tables.queries_of(made.dataset, [made.params.split])
        self._positives = tables.positives_of(made.dataset).lists()
        self._queries = queries[np.isin(queries, self._positives.query_indices)]
        self._known = tables.never_negative(made.dataset, made.tokens)

    def __call__(self, task: PoolTask, progress: Progress) -> dict[str, Any]:
        """Write the pools of a shard's queries."""
        params = self._made.params
        found = tables.Candidates.of_table(task.shard.read()).of_queries(self._queries)
        progress.advance(task.shard.rows)
        if len(found.lists) == 0:
            empty = NEGATIVE_POOLS.schema("pools").empty_table()
            self._made.writer.shards("pools").write(task.index, empty, {})
            return {}
        queries = found.lists.query_indices
        positives = self._positives.of(queries)
        scoring = None if task.embeddings is None else Scoring.of(task.embeddings, queries)
        asked = None
        if params.filters.ranker_below is not None:
            asked = tables.probabilities(found, self._made.calibration)
        block = Block.of(found, asked, positives, scoring, params.positive == "mean")
        # Ranks are counted without known positives, whether or not the search has taken them out.
        block = block.keep(~self._known.among(block.lists))
        ranks = block.positive_ranks
        block, refused, left_out = self._filtered(block, positives)
        pools, impossible = block.pools(params.sampler, params.num_negatives, scoring)
        if impossible.any():
            left_out["left_out_by_sampler"] = int(impossible.sum())
            refused |= _pairs(block.lists, impossible)
        overlap = pools.overlap_with_top(block.lists, params.num_negatives, self._made.seed)
        done = complete(
            pools,
            params.num_negatives,
            params.starved,
            self._made.dataset.rows("passages"),
            self._known | refused,
            self._made.seed,
        )
        rows = _Rows.of(done, block, ranks, scoring)
        measured = pool_report.measure(
            done.pools,
            rows.positive_scores,
            rows.scores,
            rows.positive_ranks,
            overlap[done.kept],
        )
        info = {
            "queries": len(queries),
            "queries_kept": len(np.unique(done.pools.lists.query_indices)),
            "counts": {**left_out, **done.counts, "pools_dropped": sum(done.dropped.values())},
            "measured": measured,
        }
        self._made.writer.shards("pools").write(task.index, rows.table(), info)
        return {}

    def _filtered(
        self, block: Block, positives: PassageLists
    ) -> tuple[Block, KnownPairs, dict[str, int]]:
        """The candidates that may be drawn, those refused, and how many each filter left out."""
        params = self._made.params
        block = block.keep(filters.window(block.lists, 1, params.depth))
        if block.probabilities is not None:
            every = np.ones(len(block.scores), dtype=np.bool_)
            refuse_unscored(block.lists, block.probabilities, every, params.depth)
        masks = block.masks(params.filters, lambda lists: self._masks_of_texts(lists, positives))
        allowed, dropped = filters.applied(block.lists, masks)
        counts = {f"left_out_by_{name}": n for name, n in dropped.items()}
        return block.keep(allowed), _pairs(block.lists, ~allowed), counts

    def _masks_of_texts(self, lists: PassageLists, positives: PassageLists) -> Mapping[str, Mask]:
        chosen = self._made.params.filters
        found: dict[str, Mask] = {}
        if chosen.without_answer:
            judged = self._judgements
            judged.read_texts(lists.passage_indices)
            answers = [judged.answers.get(query, ()) for query in lists.query_indices.tolist()]
            found["without_answer"] = ~matching(lists, answers, judged.texts.__getitem__)
            judged.texts.clear()
        if chosen.near_copies is not None:
            store = tables.open_tokens(self._made.tokens)
            own = positives.of(lists.query_indices)
            found["near_copies"] = ~near_copies(lists, own, store.text_ids, chosen.near_copies)
        return found

    @cached_property
    def _judgements(self) -> Judgements:
        return Judgements.read(self._made.dataset)


@dataclass(frozen=True, eq=False)
class _Rows:
    """The pools that remain, with scores and ranks."""

    done: Completed
    positive_scores: Floats
    positive_ranks: npt.NDArray[np.int32]
    scores: Floats

    @classmethod
    def of(
        cls,
        done: Completed,
        block: Block,
        ranks: npt.NDArray[np.int32],
        scoring: Scoring | None,
    ) -> _Rows:
        """Scores of a retriever also for passages that were filled in, or else those found."""
        lists = done.pools.lists
        if scoring is not None:
            scores = scoring.of_queries(lists.queries, lists.passage_indices)
        else:
            scores = _found_scores(lists, np.flatnonzero(done.kept), block)
        return cls(done, block.positive_scores[done.kept], ranks[done.kept], scores)

    def table(self) -> pa.Table:
        """The rows of the artifact."""
        pools = self.done.pools
        return pa.table(
            {
                "query_index": pa.array(pools.lists.query_indices, pa.int32()),
                "positive": pa.array(pools.positives, pa.int32()),
                "positive_score": pa.array(self.positive_scores, pa.float32()),
                "positive_rank": pa.array(self.positive_ranks, pa.int32()),
                "passage_index": tables.list_array(
                    pools.lists, pools.lists.passage_indices, pa.int32()
                ),
                "score": tables.list_array(
                    pools.lists, self.scores.astype(np.float32), pa.float32()
                ),
                "log_weight": tables.list_array(
                    pools.lists, pools.log_weights.astype(np.float32), pa.float32()
                ),
            }
        )


def _pairs(lists: PassageLists, mask: Mask) -> KnownPairs:
    """The (query, passage) pairs set in `mask`."""
    return KnownPairs.of((lists.queries[mask], lists.passage_indices[mask]))


def _found_scores(lists: PassageLists, rows: npt.NDArray[np.integer], block: Block) -> Floats:
    """The scores that candidates were found with, NaN for passages that were not.

    Args:
        lists: some of the block's candidates, and passages that were filled in.
        rows: which pair of the block each list belongs to.
        block: the candidates.
    """
    wanted = rows[lists.rows].astype(np.int64) << 32 | lists.passage_indices
    own = block.lists.rows.astype(np.int64) << 32 | block.lists.passage_indices
    found = places(own, wanted)
    scores: Floats = np.full(len(wanted), np.nan, np.float32)
    scores[found >= 0] = block.scores[found[found >= 0]]
    return scores
