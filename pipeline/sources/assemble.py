"""From a `Source` to the tables of a Dataset, checked, with bounded memory.

Passages stream through: at n passages there stay 24 bytes for each of them (its id's hash and row,
the hashes of its title and text), what the source keeps, and one shard; and all queries and labels.

What is checked, and is an error or a counted row as the problem policy says:

* ids: empty, with white space, or used twice. Of equal queries the first stays, and with it the
  labels of its split; a query id with two texts goes with all that refers to it, and so do the
  labels of a passage id with two texts, but for its positives, which become excluded;
* texts: nothing in them after cleaning, or characters that UTF-8 cannot encode;
* labels: of unknown queries or passages, of unlabelled queries, of a query that stands in another
  split, or two that conflict.

What is no mistake but is dropped and counted:

* queries of train, validation and dev with neither a relevant passage nor an answer (collections
  ship more queries than they judge), and what refers to them;
* equal labels that are given twice; negatives and excluded passages that are also relevant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.sources.carving import carve
from pipeline.sources.content import clean, clean_title
from pipeline.sources.dataset_tables import DatasetTables, Report
from pipeline.sources.held_back import held_back
from pipeline.sources.id_index import UNKNOWN, keys_of
from pipeline.sources.known_texts import KnownTexts
from pipeline.sources.pairs import (
    Ints,
    LabelledPair,
    Pairs,
    columns_of,
    drop_ambiguous,
    fits_split,
    joined,
    labelled,
    merge_repeated,
    of_two_texts,
    resolve,
    without,
)
from pipeline.sources.query_table import UNLABELLED, QueryTable
from pipeline.sources.records import (
    SPLITS,
    Answers,
    DataError,
    Pair,
    Passage,
    Place,
    Source,
    Split,
)
from pipeline.sources.row_checks import RowChecks, encodable

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 8192


class Assembly:
    """Assembles a source: first all of `passages()`, then `finish()`.

    Args:
        source: what to read.
        passages_per_shard: rows of each passage table but the last.
        validation_share: part of the training queries to move to validation where the source has no
            validation queries; 0 moves none.
        seed: of that choice.
        max_queries: split -> most of its queries to keep, drawn after that.
        training_positives: most of each training query's positives to keep; others are hidden.
    """

    def __init__(
        self,
        source: Source,
        *,
        passages_per_shard: int,
        validation_share: float,
        seed: int,
        max_queries: Mapping[Split, int] | None = None,
        training_positives: int | None = None,
    ) -> None:
        self._source = source
        self._passages_per_shard = passages_per_shard
        self._validation_share = validation_share
        self._seed = seed
        self._max_queries = dict(max_queries or {})
        self._training_positives = training_positives
        self._passages = KnownTexts()
        self._queries = KnownTexts()
        self._checks = RowChecks(source.problems)
        self._title_keys: list[npt.NDArray[np.uint64]] = []
        self._counts: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._read = 0

    # Passages -----------------------------------------------------------------------------

    def passages(self) -> Iterator[pa.Table]:
        """Yield the passages in tables of `passages_per_shard` rows.

        Raises:
            DataError: bad rows where the policy is `fail`; no usable passage at all.
        """
        import pyarrow as pa

        waiting: list[Any] = []
        rows = 0
        stream = self._source.passages()
        while block := list(islice(stream, min(BLOCK, self._passages_per_shard))):
            table = self._passage_table(block)
            waiting.append(table)
            rows += table.num_rows
            if rows >= self._passages_per_shard:
                whole = pa.concat_tables(waiting)
                yield whole.slice(0, self._passages_per_shard).combine_chunks()
                waiting = [whole.slice(self._passages_per_shard)]
                rows -= self._passages_per_shard
        if rows:
            yield pa.concat_tables(waiting).combine_chunks()
        if not len(self._passages):
            raise self._nothing("passage")

    def _passage_table(self, block: list[Passage]) -> pa.Table:
        import pyarrow as pa

        self._read += len(block)
        cleaned = (
            passage._replace(title=clean_title(passage.title), text=clean(passage.text))
            for passage in block
        )
        kept = [
            passage
            for passage in cleaned
            if self._checks.usable(
                "passage", passage.passage_id, passage.title + passage.text, passage.place
            )
        ]
        ids = [passage.passage_id for passage in kept]
        kept = self._checks.first_times("passage", kept, ids, self._passages)
        titles = [passage.title for passage in kept]
        keys = keys_of([title.casefold() for title in titles])
        self._title_keys.append(np.where([bool(title) for title in titles], keys, 0))
        self._counts["passages without a title"] += titles.count("")
        self._counts["passages without a text"] += sum(not passage.text for passage in kept)
        return pa.table(
            {
                "passage_id": pa.array([passage.passage_id for passage in kept], pa.string()),
                "title": pa.array(titles, pa.string()),
                "text": pa.array([passage.text for passage in kept], pa.string()),
            }
        )

    # Queries and labels -------------------------------------------------------------------

    def finish(self) -> DatasetTables:
        """Read queries and labels, carve validation queries, number queries by split.

        Call it when `passages()` is exhausted.

        Raises:
            DataError: bad rows where the policy is `fail`; no usable query at all.
        """
        import pyarrow as pa

        queries = self._read_queries()
        qrels, doubtful = self._read_judgements(queries)
        hidden = self._read_pairs("hidden label", self._source.hidden(), queries)
        excluded = self._read_excluded(queries, doubtful)
        negatives = self._read_pairs("negative", self._source.negatives(), queries)
        answers = self._read_answers(queries)

        positives = qrels.take(qrels.value >= 1)
        excluded = self._without("excluded passages that are relevant", excluded, positives)
        answered = [row for row, texts in answers.items() if texts]
        self._dropped["queries without a label"] += queries.keep_labelled(positives.query, answered)
        self._counts["validation queries carved out"] = carve(
            queries,
            positives,
            self._passages,
            np.concatenate(self._title_keys),
            share=self._validation_share,
            seed=self._seed,
        )
        for split, most in self._max_queries.items():
            left_out = queries.keep_at_most(most, SPLITS.index(split), self._seed)
            self._dropped[f"{split} queries beyond max_queries"] += left_out
        withheld = held_back(
            positives, queries, self._passages, self._training_positives, self._seed
        )
        self._counts["training positives held back"] = len(withheld)
        qrels, _ = without(qrels, withheld)
        # A passage whose label is held back may have been given as a negative, and stays one.
        positives, _ = without(positives, withheld)
        negatives = self._without("negatives that are relevant", negatives, positives)
        negatives = self._without("negatives that are excluded", negatives, excluded)

        order = np.argsort(queries.split, kind="stable")
        order = order[queries.kept[order]]
        new_row = np.full(len(queries.split), UNKNOWN, dtype=np.int64)
        new_row[order] = np.arange(len(order))
        tables = {
            "queries": queries.table(order),
            "qrels": self._pair_table(qrels, new_row, "relevance"),
            "answers": self._answer_table(answers, new_row),
            "excluded": self._pair_table(excluded, new_row),
            "negatives": self._pair_table(negatives, new_row),
            "hidden_qrels": pa.concat_tables(
                self._pair_table(pairs, new_row) for pairs in (hidden, withheld)
            ).combine_chunks(),
        }
        report = self._report(queries, {name: table.num_rows for name, table in tables.items()})
        return DatasetTables(**tables, report=report)

    def _read_queries(self) -> QueryTable:
        queries = QueryTable()
        stream = self._source.queries()
        while block := list(islice(stream, BLOCK)):
            self._read += len(block)
            cleaned = (query._replace(text=clean(query.text)) for query in block)
            kept = [
                query
                for query in cleaned
                if self._checks.usable("query", query.query_id, query.text, query.place)
            ]
            ids = [query.query_id for query in kept]
            queries.add(self._checks.first_times("query", kept, ids, self._queries))
        queries.close()
        # Nobody knows which of the texts the labels mean.
        queries.kept[list(self._queries.conflicting)] = False
        self._dropped["conflicting query id"] += len(self._queries.conflicting)
        if not queries.kept.any():
            raise self._nothing("query")
        return queries

    def _nothing(self, what: str) -> DataError:
        files = ", ".join(self._source.looked_for) or "its records"
        return DataError(
            Place("source", 0),
            f"no usable {what} was found in {files}",
            "check its `path`, the file names and the splits",
        )

    def _read_judgements(self, queries: QueryTable) -> tuple[Pairs, Pairs]:
        """The judgements, and those that call a passage relevant of which there are two texts."""
        rows = (LabelledPair(*judgement) for judgement in self._source.judgements())
        pairs = self._resolve("judgement", rows, queries)
        unlabelled = queries.split[pairs.query] == UNLABELLED
        for at in np.flatnonzero(unlabelled):
            self._checks.drop(
                "judgement of an unlabelled query",
                pairs.place(int(at)),
                "the query is also given as unlabelled",
                "take it out of one of the files",
            )
        pairs = pairs.take(~unlabelled)
        doubtful = (pairs.value >= 1) & of_two_texts(pairs, self._passages)
        judged = self._clear("judgement", pairs.take(~doubtful))
        return self._merged("relevance", judged), pairs.take(doubtful).with_value(1)

    def _read_excluded(self, queries: QueryTable, doubtful: Pairs) -> Pairs:
        """The excluded passages and the `doubtful` positives.

        Whichever text was meant, leaving a passage out of negatives does no harm.
        """
        rows = labelled(self._source.excluded())
        excluded = joined(self._resolve("excluded passage", rows, queries), doubtful)
        self._counts["positives of a passage with two texts, excluded"] += len(doubtful)
        return self._merged("excluded passage", excluded)

    def _read_pairs(self, what: str, stream: Iterator[Pair], queries: QueryTable) -> Pairs:
        pairs = self._resolve(what, labelled(stream), queries)
        return self._merged(what, self._clear(what, pairs))

    def _clear(self, what: str, pairs: Pairs) -> Pairs:
        return drop_ambiguous(what, pairs, self._passages, self._checks.drop)

    def _resolve(self, what: str, rows: Iterator[LabelledPair], queries: QueryTable) -> Pairs:
        def counted() -> Iterator[LabelledPair]:
            for row in rows:
                self._read += 1
                yield row

        return resolve(
            what,
            counted(),
            self._queries.index,
            queries.split,
            self._passages.index,
            self._checks.drop,
        )

    def _merged(self, what: str, pairs: Pairs) -> Pairs:
        distinct, repeated = merge_repeated(what, pairs, self._checks.drop)
        self._dropped["repeated pair"] += repeated
        return distinct

    def _without(self, what: str, pairs: Pairs, others: Pairs) -> Pairs:
        rest, taken = without(pairs, others)
        self._dropped[what] += taken
        return rest

    def _read_answers(self, queries: QueryTable) -> dict[int, list[str]]:
        answers: dict[int, list[str]] = {}
        stream = self._source.answers()
        while block := list(islice(stream, BLOCK)):
            self._read += len(block)
            rows = self._queries.index.find([one.query_id for one in block])
            for row, one in zip(rows.tolist(), block, strict=True):
                if row == UNKNOWN:
                    self._checks.drop(
                        "answers of an unknown query",
                        one.place,
                        f"answers of query '{one.query_id}', which does not exist",
                        "check that the files belong together",
                    )
                    continue
                if not fits_split("answers", one, int(queries.split[row]), self._checks.drop):
                    continue
                if row in answers:
                    self._dropped["repeated answers of a query"] += 1
                cleaned = self._clean_answers(one)
                answers[row] = list(dict.fromkeys([*answers.get(row, ()), *cleaned]))
        return answers

    def _clean_answers(self, row: Answers) -> Iterator[str]:
        for text in filter(None, map(clean, row.answers)):
            if encodable(text):
                yield text
            else:
                # The row stays, so this is no dropped row but one that was never read.
                self._source.problems.found(
                    "answer with lone surrogates",
                    row.place,
                    f"the answer {text[:60]!a} holds half a character (a lone surrogate)",
                    "write the text as UTF-8 instead of \\u escapes",
                )

    # Tables -------------------------------------------------------------------------------

    def _pair_table(self, pairs: Pairs, new_row: Ints, value: str | None = None) -> pa.Table:
        import pyarrow as pa

        moved = pairs.with_queries(new_row[pairs.query])
        kept = moved.take(moved.query != UNKNOWN)
        self._dropped["rows of queries left out"] += len(pairs) - len(kept)
        return pa.table(dict(columns_of(kept.ordered(), value)))

    def _answer_table(self, answers: dict[int, list[str]], new_row: Ints) -> pa.Table:
        import pyarrow as pa

        moved = sorted(
            (int(new_row[row]), texts) for row, texts in answers.items() if new_row[row] != UNKNOWN
        )
        self._dropped["rows of queries left out"] += len(answers) - len(moved)
        return pa.table(
            {
                "query_index": pa.array([row for row, _ in moved], pa.int32()),
                "answers": pa.array([texts for _, texts in moved], pa.list_(pa.string())),
            }
        )

    def _report(self, queries: QueryTable, rows: Mapping[str, int]) -> Report:
        counts = {"passages": len(self._passages)}
        for code, split in enumerate(SPLITS):
            counts[f"{split} queries"] = int((queries.kept & (queries.split == code)).sum())
        counts |= {name: count for name, count in rows.items() if name != "queries"}
        counts |= self._counts
        shared = queries.shared_with_evaluation()
        counts["training queries whose text is evaluated"] = shared
        warnings = []
        if shared:
            warnings.append(
                f"{shared} training or unlabelled queries have the text of an evaluated one"
            )
        if not counts["validation queries"]:
            warnings.append("there are no validation queries to make choices on")
        problems = self._source.problems.counts
        unread = problems.total() - self._checks.refused
        return Report(
            rows_in=self._read + unread,
            rows_out=len(self._passages) + sum(rows.values()),
            dropped={name: count for name, count in (problems + self._dropped).items() if count},
            counts={
                name: count for name, count in {**counts, **self._source.counts()}.items() if count
            },
            warnings=tuple(warnings),
        )
