"""What a pipeline file may say about each format: one strict parameter model per format.

Light on purpose: planning imports this, so neither pyarrow nor a reader is imported here.
File names are relative to `path`. A name that does not exist is also looked for with `.gz` and
`.zst` behind it. Files that the pipeline file names must be there; of the default names, those that
are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, cast

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import override

from pipeline.sources.records import LabelledSplit, Split, training_last

SplitFile: TypeAlias = tuple[Split, Path]
# Where files lie and what they are called says nothing about what is in them: names are left out
# when parameters are dumped to identify an artifact, and `values` says which part each file plays.
Folder: TypeAlias = Annotated[str, Field(exclude=True)]
Name: TypeAlias = Annotated[str, Field(exclude=True)]
OptionalName: TypeAlias = Annotated[str | None, Field(exclude=True)]
Names: TypeAlias = Annotated[str | list[str], Field(exclude=True)]
SplitNames: TypeAlias = Annotated[dict[LabelledSplit, str | list[str]], Field(exclude=True)]


def locate(folder: str, name: str) -> Path:
    """The file `name` in `folder`, or its compressed form where only that exists."""
    plain = Path(folder, name)
    for path in (plain, Path(f"{plain}.gz"), Path(f"{plain}.zst")):
        if path.is_file():
            return path
    return plain


class SourceParams(BaseModel):
    """Parameters of a source: frozen, no unknown keys, no silent conversions.

    A format names what it reads from outside, which makes up the identity of its artifact.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def files(self) -> Sequence[Path]:
        """Outside files, present or not."""
        return ()

    def packages(self) -> Sequence[str]:
        """Installed distributions whose contents are read."""
        return ()

    def values(self) -> Mapping[str, str]:
        """Other identities, as name -> value."""
        return {}

    def looked_for(self) -> Sequence[str]:
        """What is read or would be if it were there, for messages."""
        return list(self.values().values())


class FolderParams(SourceParams):
    """Parameters of a format of files in a folder.

    Attributes:
        path: the folder that file names are relative to.
        unlabelled_queries: files of queries without labels: `id, text` lines with a tab between,
            unless the format has a layout of its own for queries.
    """

    path: Folder
    unlabelled_queries: Names = []

    def paths_of(self, field: str) -> list[Path]:
        """The files under a field of names: all that were named, or the default ones that exist."""
        return [path for _, path in self._parts_of(field)]

    def splits_of(self, field: str) -> list[SplitFile]:
        """The files under a field of split -> names, like `paths_of`.

        Training files come last, see `training_last`; files of several fields have to be sorted
        again.
        """
        files = [(cast(Split, split), path) for split, path in self._parts_of(field)]
        return sorted(files, key=lambda file: training_last(file[0]))

    def required(self, field: str) -> Path:
        """The one file under a field, whether it exists or not."""
        return locate(self.path, cast(str, getattr(self, field)))

    def files(self) -> Sequence[Path]:
        """All files in the order of the fields, those of unlabelled queries last."""
        return [path for _, path in self._parts()]

    def values(self) -> Mapping[str, str]:
        """Which part each of `files` plays."""
        return {"parts": " ".join(part for part, _ in self._parts())}

    @override
    def looked_for(self) -> Sequence[str]:
        paths = [path for _, path in self._parts(every=True)]
        return [str(path) if path.is_file() else f"{path} (missing)" for path in paths]

    def _parts(self, every: bool = False) -> Iterator[tuple[str, Path]]:
        fields = type(self).model_fields
        names = [*(name for name in fields if name != "unlabelled_queries"), "unlabelled_queries"]
        for field in names:
            # What is left out of the parameters' identity is the folder and the names of files.
            if fields[field].exclude and field != "path":
                for split, path in self._parts_of(field, every):
                    yield f"{field}.{split}" if split else field, path

    def _parts_of(self, field: str, every: bool = False) -> Iterator[tuple[str, Path]]:
        names = cast("str | list[str] | dict[str, str | list[str]] | None", getattr(self, field))
        by_split = names if isinstance(names, dict) else {"": names or []}
        # One name or a corpus is never only a guess at what may be there.
        required = isinstance(names, str) or field == "corpus" or field in self.model_fields_set
        for split, given in by_split.items():
            for name in [given] if isinstance(given, str) else given:
                path = locate(self.path, name)
                if every or required or path.is_file():
                    yield split, path


class ParquetParams(FolderParams):
    """Parquet files: `corpus.parquet`, then `{split}_queries`, `_qrels` and `_answers`."""

    format: Literal["parquet"]
    corpus: Names = ["corpus.parquet"]
    queries: SplitNames = {
        "train": "train_queries.parquet",
        "validation": "validation_queries.parquet",
        "dev": "dev_queries.parquet",
        "test": "test_queries.parquet",
    }
    qrels: SplitNames = {
        "train": "train_qrels.parquet",
        "validation": "validation_qrels.parquet",
        "dev": "dev_qrels.parquet",
        "test": "test_qrels.parquet",
    }
    answers: SplitNames = {
        "train": "train_answers.parquet",
        "validation": "validation_answers.parquet",
        "dev": "dev_answers.parquet",
        "test": "test_answers.parquet",
    }
    unlabelled_queries: Names = ["unlabelled_queries.parquet"]


class BeirParams(FolderParams):
    """BEIR: `corpus.jsonl`, `queries.jsonl`, `qrels/*.tsv`; the judgements divide the queries."""

    format: Literal["beir"]
    corpus: Name = "corpus.jsonl"
    queries: Name = "queries.jsonl"
    qrels: SplitNames = {
        "train": "qrels/train.tsv",
        "dev": "qrels/dev.tsv",
        "test": "qrels/test.tsv",
    }


class MsMarcoPassageParams(FolderParams):
    """MS MARCO passage ranking; `titles` are `pid, title` lines in the order of the collection."""

    format: Literal["msmarco_passage"]
    corpus: Name = "collection.tsv"
    titles: OptionalName = None
    queries: SplitNames = {"train": "queries.train.tsv", "dev": "queries.dev.small.tsv"}
    qrels: SplitNames = {"train": "qrels.train.tsv", "dev": "qrels.dev.small.tsv"}
    excluded: Names = []


class MsMarcoDocumentParams(FolderParams):
    """MS MARCO document ranking."""

    format: Literal["msmarco_document"]
    corpus: Name = "msmarco-docs.tsv"
    queries: SplitNames = {
        "train": "msmarco-doctrain-queries.tsv",
        "dev": "msmarco-docdev-queries.tsv",
    }
    qrels: SplitNames = {
        "train": "msmarco-doctrain-qrels.tsv",
        "dev": "msmarco-docdev-qrels.tsv",
    }


class RocketqaParams(FolderParams):
    """RocketQA's corpus files.

    Attributes:
        excluded: additional positives, in the layout of judgements.
        unlabelled_queries: files of unlabelled queries, for instance `orcas_yahoo_nq.query.txt`.
    """

    format: Literal["rocketqa"]
    corpus: Name = "para.txt"
    titles: OptionalName = "para.title.txt"
    queries: SplitNames = {
        "train": "train.query.txt",
        "dev": "dev.query.txt",
        "test": "test.query.txt",
    }
    qrels: SplitNames = {"train": "qrels.train.tsv", "dev": "qrels.dev.tsv"}
    answers: SplitNames = {"train": "train.answers.txt", "test": "test.answers.txt"}
    excluded: Names = ["qrels.train.addition.tsv"]


class RocketqaLinesParams(FolderParams):
    """RocketQA's training lines, whose passages and queries come without ids.

    Attributes:
        dual: six columns: query, title and text of a positive, title and text of a negative, 0.
        cross: four columns: query, title, text, label.
        corpus: `pid, text` lines in which the passages of the lines are looked up by their text;
            without it the passages of the lines are the corpus.
        titles: `pid, title` lines in the order of the corpus.
    """

    format: Literal["rocketqa_lines"]
    dual: SplitNames = {}
    cross: SplitNames = {}
    corpus: OptionalName = None
    titles: OptionalName = None


class DprParams(FolderParams):
    """DPR's Wikipedia passages, training JSON and question files.

    Attributes:
        corpus: `id, text, title` with a header; null takes the contexts of the examples.
        examples: JSON arrays of questions with contexts.
        questions: `question, [answers]` tables: questions that are judged by their answers only.
        positives: `first` takes a question's first positive context, as DPR trains, and excludes
            the others from negatives; `all` takes all.
    """

    format: Literal["dpr"]
    corpus: OptionalName = "psgs_w100.tsv"
    examples: SplitNames = {"train": "nq-train.json", "dev": "nq-dev.json"}
    questions: SplitNames = {"test": "nq-test.csv"}
    positives: Literal["first", "all"] = "all"


class DureaderParams(FolderParams):
    """The DuReader-retrieval baseline archive.

    Attributes:
        corpus: parts of the collection, lines `-, title, text, 0`, numbered on through all parts.
        passage_ids: JSON object, line number (from 0) -> passage id.
        dual: training lines with six columns, whose passages are found in the corpus by their text.
        dev: JSON lines of questions with `answer_paragraphs`.
        remove_spaces: take all white space out of texts, as the baseline does for Chinese.
    """

    format: Literal["dureader"]
    corpus: Names = [f"passage-collection/part-0{part}" for part in range(4)]
    passage_ids: Name = "passage-collection/passage2id.map.json"
    dual: SplitNames = {"train": "train/dual.train.tsv"}
    examples: SplitNames = {"dev": "dev/dev.json"}
    remove_spaces: bool = True


class TevatronParams(FolderParams):
    """Tevatron JSONL: version 1 (passages inside) and version 2 (document ids, with a corpus)."""

    format: Literal["tevatron"]
    corpus: Names = []
    examples: SplitNames = {"train": "train.jsonl", "dev": "dev.jsonl", "test": "test.jsonl"}


class FlagEmbeddingParams(FolderParams):
    """FlagEmbedding JSONL: `query`, `pos`, `neg`; `corpus` adds passages from `text` lines."""

    format: Literal["flag_embedding"]
    corpus: Names = []
    examples: SplitNames = {"train": "train.jsonl", "dev": "dev.jsonl"}


class SquadParams(FolderParams):
    """SQuAD JSON: paragraphs become passages titled with their article."""

    format: Literal["squad"]
    examples: SplitNames = {"train": "train-v1.1.json", "dev": "dev-v1.1.json"}


class TrecParams(FolderParams):
    """A TREC collection.

    Attributes:
        corpus_layout: `jsonl` (id and contents), `tsv` (id, text or id, title, text) or `sgml`.
        topics: per split: `id, text` lines, or `<top>` topics, of which the title is taken.
        runs: per split: TREC runs, whose passages become given negatives down to `run_depth`.
    """

    format: Literal["trec"]
    corpus: Names
    corpus_layout: Literal["jsonl", "tsv", "sgml"] = "jsonl"
    topics: SplitNames
    qrels: SplitNames = {}
    runs: SplitNames = {}
    run_depth: int = Field(default=100, ge=1)


class IrDatasetsParams(SourceParams):
    """Sets of the `ir_datasets` package.

    Attributes:
        splits: split -> registered id, for instance `{dev: msmarco-passage/dev/small}`.
        documents: the id whose documents are the corpus; by default the first of `splits`.
        unlabelled: an id whose queries are taken without labels.
    """

    format: Literal["ir_datasets"]
    splits: dict[LabelledSplit, str] = Field(min_length=1)
    documents: str | None = None
    unlabelled: str | None = None

    @override
    def packages(self) -> Sequence[str]:
        return ("ir_datasets",)

    @override
    def values(self) -> Mapping[str, str]:
        named = {f"ir_datasets {split}": one for split, one in self.splits.items()}
        others = {"documents": self.documents, "unlabelled": self.unlabelled}
        return named | {f"ir_datasets {name}": one for name, one in others.items() if one}
