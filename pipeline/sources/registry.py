"""From the parameters of a source to the reader that understands them."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias, cast

from pydantic import BeforeValidator, Field

from pipeline.sources import parameters
from pipeline.sources.pydocs_params import PydocsParams, package_names
from pipeline.sources.records import Problems, Source


def _spelled_out(value: Any) -> Any:
    """`pydocs` alone stands for that format with all its defaults."""
    return {"format": value} if isinstance(value, str) else value


SourceConfiguration: TypeAlias = Annotated[
    parameters.ParquetParams
    | parameters.BeirParams
    | parameters.MsMarcoPassageParams
    | parameters.MsMarcoDocumentParams
    | parameters.RocketqaParams
    | parameters.RocketqaLinesParams
    | parameters.DprParams
    | parameters.DureaderParams
    | parameters.TevatronParams
    | parameters.FlagEmbeddingParams
    | parameters.SquadParams
    | parameters.TrecParams
    | parameters.IrDatasetsParams
    | PydocsParams,
    Field(discriminator="format"),
    BeforeValidator(_spelled_out),
]
"""The parameters of any format, told apart by `format`."""

READERS = {
    "parquet": "pipeline.sources.parquet_layout:ParquetSource",
    "beir": "pipeline.sources.beir:BeirSource",
    "msmarco_passage": "pipeline.sources.msmarco_passage:MsMarcoPassageSource",
    "msmarco_document": "pipeline.sources.msmarco_document:MsMarcoDocumentSource",
    "rocketqa": "pipeline.sources.rocketqa_files:RocketqaSource",
    "rocketqa_lines": "pipeline.sources.rocketqa_files:RocketqaLinesSource",
    "dpr": "pipeline.sources.dpr:DprSource",
    "dureader": "pipeline.sources.dureader:DureaderSource",
    "tevatron": "pipeline.sources.tevatron:TevatronSource",
    "flag_embedding": "pipeline.sources.flag_embedding:FlagEmbeddingSource",
    "squad": "pipeline.sources.squad:SquadSource",
    "trec": "pipeline.sources.trec:TrecSource",
    "pydocs": "pipeline.sources.pydocs:PydocsSource",
    "ir_datasets": "pipeline.sources.ir_datasets_source:IrDatasetsSource",
}
"""format -> `module:class` of its reader, called with (parameters, problems)."""


class OutsideIdentity(NamedTuple):
    """What a source reads from outside: its result depends on nothing else but its parameters."""

    files: Sequence[Path]
    packages: Sequence[str]
    values: Mapping[str, str]


def open_source(configuration: SourceConfiguration, problems: Problems) -> Source:
    """The reader of a configured source; nothing is read before its streams are."""
    module, name = READERS[configuration.format].split(":")
    source = cast(Source, getattr(import_module(module), name)(configuration, problems))
    if not isinstance(configuration, PydocsParams):
        source.looked_for = configuration.looked_for()
    return source


def outside(configuration: SourceConfiguration) -> OutsideIdentity:
    """What a configured source reads from outside, found without importing its reader."""
    if isinstance(configuration, PydocsParams):
        python = {"python": platform.python_version()}
        return OutsideIdentity((), package_names(configuration), python)
    return OutsideIdentity(configuration.files(), configuration.packages(), configuration.values())
