"""What truncation took away."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pipeline.text.template import InputTemplate


@dataclass(frozen=True)
class Truncation:
    """Truncation of one sort of sequences; counts of shards add up.

    Attributes:
        sequences: how many there are, empty ones not counted.
        cut: how many lost at least one token.
        tokens: tokens before truncation.
        lost: tokens that were cut off.
    """

    sequences: int = 0
    cut: int = 0
    tokens: int = 0
    lost: int = 0

    def __add__(self, other: Truncation) -> Truncation:
        return Truncation(
            self.sequences + other.sequences,
            self.cut + other.cut,
            self.tokens + other.tokens,
            self.lost + other.lost,
        )

    @property
    def cut_share(self) -> float:
        """Share of the sequences that were cut."""
        return self.cut / self.sequences if self.sequences else 0.0

    @property
    def lost_share(self) -> float:
        """Share of the tokens that were cut off."""
        return self.lost / self.tokens if self.tokens else 0.0


def query_truncation(template: InputTemplate, lengths: ArrayLike) -> Truncation:
    """Truncation of queries in query inputs, from their full lengths."""
    return _truncation(lengths, template.cut_queries(lengths))


def passage_truncation(
    template: InputTemplate, title_lengths: ArrayLike, text_lengths: ArrayLike
) -> tuple[Truncation, Truncation]:
    """Truncation of titles and of texts in passage inputs, from their full lengths."""
    kept_titles, kept_texts = template.cut_passages(title_lengths, text_lengths)
    return _truncation(title_lengths, kept_titles), _truncation(text_lengths, kept_texts)


def _truncation(full: ArrayLike, kept: ArrayLike) -> Truncation:
    lengths = np.asarray(full, dtype=np.int64)
    # A missing title is shown as a placeholder: what is kept can exceed what was there.
    lost = np.maximum(lengths - np.asarray(kept, dtype=np.int64), 0)
    return Truncation(
        sequences=int(np.count_nonzero(lengths)),
        cut=int(np.count_nonzero(lost)),
        tokens=int(lengths.sum()),
        lost=int(lost.sum()),
    )
