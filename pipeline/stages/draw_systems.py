"""The systems that `draws` compares, and who judges what they draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from pipeline.dag.contract import Inputs, Mismatch
from pipeline.methods.answers import matching
from pipeline.methods.draws import ranks_by_score, ranks_of_positives
from pipeline.methods.filters import KnownPairs
from pipeline.methods.lists import PassageLists
from pipeline.methods.pools import Pools
from pipeline.stages import lineage, tables
from pipeline.stages.measuring import Judgements
from pipeline.training.rows import TrainingRows

if TYPE_CHECKING:
    from pipeline.artifacts.reader import Artifact
    from pipeline.stages.draws import DrawsParams

# Passages whose texts are in memory together.
_TEXTS = 100_000


@dataclass(frozen=True, eq=False)
class System:
    """What negatives are drawn from.

    Attributes:
        name: what it is called.
        pools: P pools of N candidates; a row of written lists is a pool that is drawn as a whole.
        ranks: each candidate's place in its pool by score, [N]; None for lists, which have none.
        positive_ranks: on the same scale, [P]; 0 where not known.
    """

    name: str
    pools: Pools
    ranks: npt.NDArray[np.int64] | None = None
    positive_ranks: npt.NDArray[np.int32] | None = None

    @classmethod
    def of_pools(cls, name: str, artifact: Artifact, num_negatives: int) -> System:
        """From a NegativePools artifact for draws of so many."""
        lineage.refuse_other_draws(artifact, num_negatives)
        pools = tables.pools_of(artifact)
        table = artifact.read("pools", ["positive_score", "score"])
        scores = pc.list_flatten(table["score"]).to_numpy()
        own = table["positive_score"].to_numpy()
        return cls(
            name,
            pools,
            ranks_by_score(pools.lists, scores),
            ranks_of_positives(pools.lists, scores, own),
        )

    @classmethod
    def of_lists(cls, name: str, artifact: Artifact, num_negatives: int) -> System:
        """From a TrainingLists artifact: what training reads of it in every epoch."""
        rows = TrainingRows.from_lists(artifact.read("lists"), num_negatives)
        lengths = np.full(len(rows), num_negatives)
        lists = PassageLists.from_lengths(rows.query_indices, lengths, rows.negatives.ravel())
        equal = np.zeros(len(lists.passage_indices))
        return cls(name, Pools(lists, rows.positives.astype(np.int32), equal))

    @property
    def queries(self) -> set[int]:
        """Those that have something to draw."""
        return set(np.unique(self.pools.lists.queries).tolist())

    def of(self, queries: npt.NDArray[np.integer]) -> System:
        """What belongs to the given queries."""
        rows = np.isin(self.pools.lists.query_indices, queries)
        found = replace(self, pools=self.pools.take(rows))
        if self.ranks is None or self.positive_ranks is None:
            return found
        return replace(
            found,
            ranks=self.ranks[rows[self.pools.lists.rows]],
            positive_ranks=self.positive_ranks[rows],
        )


@dataclass(frozen=True, eq=False)
class Judge:
    """Who says what is a false negative.

    Attributes:
        asked: how many queries all systems have.
        queries: those of them that can be judged, ascending.
        false: the false negatives.
        needs: what the others lack.
    """

    asked: int
    queries: npt.NDArray[np.integer]
    false: KnownPairs
    needs: str


def read_systems(inputs: Inputs, params: DrawsParams) -> list[System]:
    """Everything that is wired, pools first."""
    pools, lists = inputs.many("pools"), inputs.many("lists")
    names = params.names
    return [
        *(
            System.of_pools(name, artifact, params.num_negatives)
            for name, artifact in zip(names[: len(pools)], pools, strict=True)
        ),
        *(
            System.of_lists(name, artifact, params.num_negatives)
            for name, artifact in zip(names[len(pools) :], lists, strict=True)
        ),
    ]


def common_pairs(systems: Sequence[System]) -> KnownPairs:
    """The queries and positives that every system with ranks has a pool of."""
    pairs = [
        KnownPairs.of((system.pools.lists.query_indices, system.pools.positives)).keys
        for system in systems
        if system.ranks is not None
    ]
    return KnownPairs(reduce(np.intersect1d, pairs))


def judged(inputs: Inputs, judge: str, systems: Sequence[System]) -> tuple[list[System], Judge]:
    """The systems with the queries that all of them have and that can be judged, and the judge.

    Raises:
        Mismatch: there are no such queries.
    """
    dataset, tokens = inputs["dataset"], inputs["tokens"]
    common = np.array(sorted(set.intersection(*(system.queries for system in systems))), np.int64)
    systems = [system.of(common) for system in systems]
    if judge == "hidden_qrels":
        hidden = tables.pairs_of(dataset, "hidden_qrels")
        able, needs = hidden.lists().query_indices, "a hidden label"
        false = hidden.with_copies(tables.content_hashes(tokens))
        advice = "give `ingest` the parameter `training_positives`, or choose `judge: answers`"
    else:
        judgements = Judgements.read(dataset)
        able, needs = np.array(list(judgements.answers), np.int32), "answers"
        false = _with_answer(_unlabelled(systems, inputs), judgements)
        advice = (
            "choose `judge: hidden_qrels`, for which `ingest` needs the parameter "
            "`training_positives`"
        )
    queries = np.intersect1d(common, able)
    if not len(queries):
        raise Mismatch(f"no query that all systems have comes with {needs}: {advice}")
    found = Judge(len(common), queries, false, needs)
    return [system.of(queries) for system in systems], found


def _unlabelled(systems: Sequence[System], inputs: Inputs) -> KnownPairs:
    """What the systems may draw, without what is known as a positive."""
    lists = [system.pools.lists for system in systems]
    pairs = KnownPairs.of(*((each.queries, each.passage_indices) for each in lists))
    known = tables.never_negative(inputs["dataset"], inputs["tokens"])
    return KnownPairs(np.setdiff1d(pairs.keys, known.keys))


def _with_answer(pairs: KnownPairs, judgements: Judgements) -> KnownPairs:
    """The pairs whose passage holds an answer of their query."""
    lists = pairs.lists()
    found = np.zeros(len(lists.passage_indices), dtype=np.bool_)
    passages = np.unique(lists.passage_indices)
    for first in range(0, len(passages), _TEXTS):
        block = passages[first : first + _TEXTS]
        entries = np.isin(lists.passage_indices, block)
        part = lists.keep(entries)
        part = part.take(part.lengths > 0)
        judgements.read_texts(block)
        answers = [judgements.answers.get(query, ()) for query in part.query_indices.tolist()]
        found[entries] = matching(part, answers, judgements.texts.__getitem__)
        judgements.texts.clear()
    return KnownPairs.of((lists.queries[found], lists.passage_indices[found]))
