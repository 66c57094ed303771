"""Parameters of the `pydocs` source, and the packages it reads; light, for planning."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class PydocsParams(BaseModel):
    """Docstrings of the Python standard library and of installed packages.

    Attributes:
        format: names this source.
        packages: installed distributions to read beside the standard library.
        max_passages: passages to keep, drawn by a hash of their text; one-line docstrings are
            thinned by the same share. None keeps all.
        dev_share: part of the labelled pairs to put on the dev side.
        validation_share: part of the labelled pairs to put on the validation side.
        hidden_share: part of the training queries that lose their labels and become unlabelled.
        planted_share: part of the training queries, of those with a long enough passage, that get
            a second passage which answers them and whose label is hidden: false negatives to count.
        seed: of the draws.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    format: Literal["pydocs"] = "pydocs"
    packages: Annotated[tuple[str, ...], Field(strict=False)] = ("numpy", "pandas", "scipy")
    max_passages: Annotated[int, Field(gt=0)] | None = 4000
    dev_share: float = Field(default=0.15, ge=0, lt=1)
    validation_share: float = Field(default=0.06, ge=0, lt=1)
    hidden_share: float = Field(default=1 / 3, ge=0, lt=1)
    # Left out where nothing is planted, so that it is in no key of such a collection.
    planted_share: float = Field(default=0.0, ge=0, le=1, exclude_if=lambda value: value == 0)
    seed: int = 0

    @model_validator(mode="after")
    def _leaves_training_data(self) -> PydocsParams:
        if self.dev_share + self.validation_share >= 1:
            raise ValueError("dev_share and validation_share leave nothing to train on")
        return self


def package_names(params: PydocsParams) -> tuple[str, ...]:
    """The distributions whose versions decide what is read, beside Python's own version."""
    return tuple(sorted(set(params.packages)))
