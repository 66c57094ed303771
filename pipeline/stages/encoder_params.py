"""The shape of a dual encoder, as parameters that several stages share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.dag.contract import Params


class EncoderParams(Params):
    """How vectors and scores are made.

    Attributes:
        shared: one tower for queries and passages, or one for each (the paper).
        pooling: the first token's state (the paper), or the mean over all tokens.
        normalize: vectors of length one; the score is then the cosine.
        temperature: divides scores in the loss (1 in the paper, about 0.05 with `normalize`).
    """

    shared: bool = False
    pooling: Literal["cls", "mean"] = "cls"
    normalize: bool = False
    temperature: float = Field(default=1.0, gt=0)
