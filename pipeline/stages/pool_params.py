"""Parameters of the stage `pool`: samplers and filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from pipeline.dag.contract import Params, Resources, unused_input
from pipeline.sources.records import LabelledSplit

Sampler = Literal[
    "uniform",
    "top",
    "nearest",
    "softmax",
    "simans",
    "simans_laplace",
    "doc_sim",
    "trisampler_query",
    "trisampler_positive",
    "trisampler",
]

# What each sampler reads beside its name.
_READS: Mapping[str, tuple[str, ...]] = {
    "nearest": ("b", "standardised"),
    "softmax": ("temperature",),
    "simans": ("a", "b", "standardised"),
    "simans_laplace": ("a", "b", "standardised"),
    "doc_sim": ("a", "b", "standardised"),
    "trisampler_query": ("standardised",),
    "trisampler": ("standardised",),
}
_WITHOUT_POSITIVE = ("uniform", "top", "softmax")
_DENSITIES: Mapping[str, float] = {"simans_laplace": 3.0}


class SamplerParams(Params):
    """How likely each candidate is drawn.

    Attributes:
        name: `uniform`; `top`, the best-ranked ones; `nearest`, those whose score is nearest to the
            peak; `softmax` of the retriever's scores; `simans`, a Gaussian around the peak;
            `simans_laplace`, the kernel released for MS MARCO passages; `doc_sim`, SimANS on the
            similarity to the positive in place of the query; `trisampler_query`,
            `trisampler_positive` and their product `trisampler`.
        a: density: the Gaussian's standard deviation is sqrt(1 / 2a). SimANS has 0.5, its released
            Laplace kernel 3.
        b: the peak lies at the positive's score + b. The code released for NQ adds its b = 1, which
            is -1 here.
        standardised: a and b in units of the standard deviation of the list's scores, instead of
            the scores' own: for vectors of length one, whose scores differ
            so little that without it the draw is almost uniform. TriSampler's a is 1/4 either way.
        temperature: of `softmax`.
    """

    name: Sampler = "simans"
    a: float | None = Field(default=None, gt=0)
    b: float = 0.0
    standardised: bool = False
    temperature: float = Field(default=1.0, gt=0)

    @property
    def density(self) -> float:
        """a, or the paper's."""
        return _DENSITIES.get(self.name, 0.5) if self.a is None else self.a

    @property
    def needs_positive(self) -> bool:
        """Whether it compares with the positive's score."""
        return self.name not in _WITHOUT_POSITIVE

    def unread(self) -> list[str]:
        """Parameters that were given and that this sampler does not read."""
        read = ("name", *_READS.get(self.name, ()))
        return [f"sampler '{self.name}' has no `{key}`" for key in self.given() if key not in read]

    def given(self) -> Sequence[str]:
        """Names of the parameters that differ from their defaults."""
        fields = type(self).model_fields
        return [key for key in fields if getattr(self, key) != fields[key].default]


class FilterParams(Params):
    """Which candidates may be drawn at all; they apply in this order.

    Attributes:
        first_rank: ranks before this one are left out (a shift by N is N + 1).
        below: only scores below this.
        margin: only scores that lie more than this below the positive's.
        share_of_positive: only scores below this share of the positive's; NV-Retriever has 0.95.
        angle: only candidates whose angle to the query differs from the positive's by at most so
            many degrees; TriSampler has 60. For vectors of length one.
        ranker_below: only where the ranker's probability lies below this.
        without_answer: leave out passages that contain an answer of the query.
        near_copies: leave out passages that share at least this part of their runs of five tokens
            with a positive.
    """

    first_rank: int = Field(default=1, ge=1)
    below: float | None = None
    margin: float | None = None
    share_of_positive: float | None = Field(default=None, gt=0, le=2)
    angle: float | None = Field(default=None, gt=0, le=180)
    ranker_below: float | None = Field(default=None, ge=0, le=1)
    without_answer: bool = False
    near_copies: float | None = Field(default=None, gt=0, le=1)

    @property
    def needs_positive(self) -> Sequence[str]:
        """The chosen filters that compare with the positive's score."""
        names = ("margin", "share_of_positive", "angle")
        return [name for name in names if getattr(self, name) is not None]


class PoolParams(Params):
    """What negatives are drawn from, and how.

    Attributes:
        split: whose labelled queries get pools.
        depth: K, how many of the best candidates a pool holds at most, before the filters. Known
            positives are never among them, and are not counted.
        num_negatives: how many will be drawn, as many as training asks for; a pool of fewer is
            starved.
        sampler: how they are drawn.
        filters: what is never drawn.
        positive: `random` trains on one positive of a query, another one in each epoch, and
            compares with its score; `mean` too, but compares with the mean score of all; `each`
            makes a row of every positive.
        starved: pools with fewer candidates than `num_negatives` are left out (`drop`), get random
            passages of the whole corpus (`fill`), or stay as they are (`fewer`). What a filter has
            refused for the query is not filled in, but filters look at no other passage: where a
            random one may be a false negative, choose `fewer` or `drop`.
    """

    split: LabelledSplit = "train"
    depth: int = Field(default=100, ge=1)
    num_negatives: int = Field(default=15, ge=1)
    sampler: SamplerParams = SamplerParams()
    filters: FilterParams = FilterParams()
    positive: Literal["random", "mean", "each"] = "random"
    starved: Literal["drop", "fill", "fewer"] = "fill"

    def mismatches(self, wired: Mapping[str, int], resources: Resources) -> Sequence[str]:
        """Embeddings where the positive's score is needed, a calibration only where it is read."""
        found = self.sampler.unread()
        candidates, embeddings = wired.get("candidates", 0), wired.get("embeddings", 0)
        needed = [f"filter '{name}'" for name in self.filters.needs_positive]
        if self.sampler.needs_positive:
            needed.insert(0, f"sampler '{self.sampler.name}'")
        if self.positive == "mean" and not needed:
            found.append("`positive: mean` is read by no sampler or filter that is chosen")
        if needed and not embeddings:
            found.append(f"{needed[0]} compares with the positive's score: wire `embeddings`")
        if embeddings and embeddings != candidates:
            found.append(
                f"{embeddings} embeddings for {candidates} candidates: wire one for each, in the "
                "same order"
            )
        if wired.get("calibration") and self.filters.ranker_below is None:
            found.append(unused_input("calibration", "without `ranker_below` no ranker is asked"))
        if self.filters.first_rank > self.depth:
            found.append(f"first_rank {self.filters.first_rank} lies beyond depth {self.depth}")
        elif self.depth - self.filters.first_rank + 1 < self.num_negatives:
            found.append(
                f"ranks {self.filters.first_rank} to {self.depth} are fewer than num_negatives "
                f"{self.num_negatives}: every pool would be starved"
            )
        return found
