"""The queries of a Dataset while it is assembled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.sources.id_index import keys_of
from pipeline.sources.pairs import Ints
from pipeline.sources.records import SPLITS, Query
from pipeline.sources.split import draw_order

if TYPE_CHECKING:
    import pyarrow as pa

TRAIN, VALIDATION, DEV, TEST, UNLABELLED = range(len(SPLITS))


class QueryTable:
    """The queries in the order read.

    Attributes:
        split: position in `SPLITS`, per query.
        keys: hash of the text without case, per query.
        kept: whether the query stays.
    """

    def __init__(self) -> None:
        self._tables: list[Any] = []
        self._splits: list[int] = []
        self._keys = [np.zeros(0, dtype=np.uint64)]

    def add(self, block: list[Query]) -> None:
        """Append queries."""
        import pyarrow as pa

        columns = {
            "query_id": pa.array([query.query_id for query in block], pa.string()),
            "text": pa.array([query.text for query in block], pa.string()),
        }
        self._tables.append(pa.table(columns))
        self._splits.extend(SPLITS.index(query.split) for query in block)
        self._keys.append(keys_of([query.text.casefold() for query in block]))

    def close(self) -> None:
        """No more queries come; now the arrays can be used."""
        self.split = np.array(self._splits, dtype=np.int64)
        self.keys = np.concatenate(self._keys)
        self.kept = np.ones(len(self.split), dtype=np.bool_)

    def keep_labelled(self, *rows: Ints | list[int]) -> int:
        """Keep the `rows` and all of the splits that need no labels; how many are left out."""
        labelled = (self.split == TEST) | (self.split == UNLABELLED)
        for one in rows:
            labelled[one] = True
        left_out = int((self.kept & ~labelled).sum())
        self.kept &= labelled
        return left_out

    def keep_at_most(self, most: int, split: int, seed: int) -> int:
        """Keep `most` of a split, drawn by a hash of the text; how many queries are left out."""
        rows = np.flatnonzero(self.kept & (self.split == split))
        order = sorted(rows.tolist(), key=lambda row: draw_order(str(self.keys[row]), seed))
        self.kept[order[most:]] = False
        return len(order[most:])

    def table(self, order: Ints) -> pa.Table:
        """The queries of the rows `order`, as a table of the Dataset."""
        import pyarrow as pa

        table = pa.concat_tables(self._tables).take(pa.array(order)).combine_chunks()
        splits = pa.array([SPLITS[code] for code in self.split[order]], pa.string())
        return table.append_column("split", splits)

    def shared_with_evaluation(self) -> int:
        """How many training and unlabelled queries have the text of an evaluated one."""
        training = self.kept & ((self.split == TRAIN) | (self.split == UNLABELLED))
        return int(np.isin(self.keys[training], self.keys[self.kept & ~training]).sum())
