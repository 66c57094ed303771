"""How token sequences become model inputs: lengths, special tokens and segment ids."""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.text.truncation import longest_first

Lengths = NDArray[np.int64]

# Lengths are stored in 16 bits; no encoder of this family reads further.
LONGEST_INPUT = 32768


class Tokenization(BaseModel):
    """Lengths, special tokens included, and the treatment of titles.

    Attributes:
        query_max_len: tokens of `[CLS] query [SEP]`.
        passage_max_len: tokens of `[CLS] title [SEP] text [SEP]`.
        pair_max_len: tokens of `[CLS] query [SEP] title text [SEP]`.
        title: whether titles are part of the inputs; without them a passage is `[CLS] text [SEP]`.
        missing_title: what stands for a missing title in a passage input. The ranker's input just
            leaves a missing title out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    query_max_len: int = Field(default=32, ge=3, le=LONGEST_INPUT)
    passage_max_len: int = Field(default=128, ge=3, le=LONGEST_INPUT)
    pair_max_len: int = Field(default=160, ge=3, le=LONGEST_INPUT)
    title: bool = True
    missing_title: Literal["-", ""] = "-"


class Layout(BaseModel):
    """Special tokens around and between the sequences of one input.

    Attributes:
        specials: ids before the first sequence, after it, ..., after the last: one entry more than
            there are sequences.
        special_types: segment ids of `specials`.
        sequence_types: segment id of each sequence.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    specials: tuple[tuple[int, ...], ...]
    special_types: tuple[tuple[int, ...], ...]
    sequence_types: tuple[int, ...]

    @property
    def special_count(self) -> int:
        """Special tokens in one input."""
        return sum(len(ids) for ids in self.specials)

    def followed_by(self, other: Layout) -> Layout:
        """This input and then `other`, each with all of its special tokens."""
        between = self.specials[-1] + other.specials[0]
        between_types = self.special_types[-1] + other.special_types[0]
        return Layout(
            specials=(*self.specials[:-1], between, *other.specials[1:]),
            special_types=(*self.special_types[:-1], between_types, *other.special_types[1:]),
            sequence_types=self.sequence_types + other.sequence_types,
        )


class InputTemplate(BaseModel):
    """All that is needed to build model inputs from token ids without a tokeniser.

    Attributes:
        tokenization: lengths and the treatment of titles.
        single: layout of one sequence.
        pair: layout of two sequences.
        pad_id: id of the padding token.
        pad_type: segment id of padding.
        vocab_size: ids are smaller than this.
        missing_title_ids: ids that stand for a missing title in a passage input.
        tokenizer_digest: of the tokeniser that the ids come from (`tokenizer.tokenizer_digest`);
            None where tokens were made before it was kept.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokenization: Tokenization
    single: Layout
    pair: Layout
    pad_id: int
    pad_type: int
    vocab_size: int
    missing_title_ids: tuple[int, ...]
    tokenizer_digest: str | None = None

    @model_validator(mode="after")
    def _rooms_hold_text(self) -> Self:
        rooms = {
            "query_max_len": self.query_room,
            "passage_max_len": self.passage_room,
            "pair_max_len": self.pair_room,
        }
        for name, room in rooms.items():
            if room < 2:
                value = getattr(self.tokenization, name)
                raise ValueError(
                    f"{name} = {value} leaves {room} tokens beside the {value - room} special "
                    f"tokens: raise it to {value - room + 2} or more"
                )
        return self

    @property
    def passage_layout(self) -> Layout:
        """Layout of a passage input: title and text, or the text alone."""
        return self.pair if self.tokenization.title else self.single

    @property
    def joined_layout(self) -> Layout:
        """Layout of a query input and a passage input laid end to end."""
        return self.single.followed_by(self.passage_layout)

    @property
    def query_room(self) -> int:
        """Tokens of the query in a query input."""
        return self.tokenization.query_max_len - self.single.special_count

    @property
    def passage_room(self) -> int:
        """Tokens of title and text in a passage input."""
        return self.tokenization.passage_max_len - self.passage_layout.special_count

    @property
    def pair_room(self) -> int:
        """Tokens of query and passage in a pair input."""
        return self.tokenization.pair_max_len - self.pair.special_count

    @property
    def query_limit(self) -> int:
        """Query tokens beyond this one are never read by any input."""
        return max(self.query_room, self.pair_room)

    @property
    def passage_limit(self) -> int:
        """Tokens of a title, or of a text, beyond this one are never read by any input."""
        return max(self.passage_room, self.pair_room)

    def cut_queries(self, queries: ArrayLike) -> Lengths:
        """Kept lengths of queries in query inputs."""
        return np.minimum(np.asarray(queries, dtype=np.int64), self.query_room)

    def cut_passages(self, titles: ArrayLike, texts: ArrayLike) -> tuple[Lengths, Lengths]:
        """Kept lengths of titles and texts in passage inputs; a missing title has length 0."""
        shown = np.asarray(titles, dtype=np.int64)
        shown = np.where(shown == 0, len(self.missing_title_ids), shown)
        return longest_first(shown, texts, self.passage_room)

    def cut_pairs(self, queries: ArrayLike, passages: ArrayLike) -> tuple[Lengths, Lengths]:
        """Kept lengths of queries and of passages (title and text together) in pair inputs."""
        return longest_first(queries, passages, self.pair_room)
