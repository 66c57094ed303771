"""Ids that remember what they name, so that a repeated row can be told from a contradiction."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

import numpy as np

from pipeline.sources.id_index import IdIndex, keys_of


class KnownTexts:
    """Numbers distinct ids as `IdIndex` does, with a hash of the text of each: 16 bytes per id.

    The hash has 32 bits, so one contradiction in four billion is taken for a repeat.

    Attributes:
        index: the ids.
        conflicting: rows of ids that came with more than one text, so that nobody knows which of
            them is meant where the id is used.
    """

    def __init__(self) -> None:
        self.index = IdIndex()
        self.conflicting: set[int] = set()
        self._text_keys = array("I")

    def __len__(self) -> int:
        return len(self.index)

    def text_key(self, row: int) -> int:
        """The hash of a row's text."""
        return self._text_keys[row]

    def add(self, ids: Sequence[str], texts: Iterable[str]) -> dict[int, bool]:
        """Number those of `ids` that are new, in order, each with its text.

        Returns:
            position -> whether its text is another one, of ids that were added before or stand
            earlier in `ids`.
        """
        keys = keys_of(texts).astype(np.uint32)
        new = self.index.add(ids)
        self._text_keys.frombytes(keys[new].tobytes())
        repeated: dict[int, bool] = {}
        for at in np.flatnonzero(~new).tolist():
            row = int(self.index.find([ids[at]])[0])
            repeated[at] = self._text_keys[row] != int(keys[at])
            if repeated[at]:
                self.conflicting.add(row)
        return repeated
