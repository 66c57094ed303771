"""What an artifact can hold: one `Kind` per noun of the pipeline, with the columns of its tables.

Types are spelled as short strings, so that planning needs no pyarrow; `Kind.schema` makes them one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Kind:
    """The contract of an artifact's contents.

    Attributes:
        name: how messages and manifests call it.
        tables: table name -> {column: type}; a table is a sequence of Parquet shards.
        folders: names of folders of files (checkpoints in the Hugging Face layout).
        documents: names of JSON or text files.
        refines: a kind that this one can stand in for, since it holds all that the other holds.
    """

    name: str
    tables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()
    refines: Kind | None = None

    def __str__(self) -> str:
        return self.name

    def serves_as(self, wanted: Kind) -> bool:
        """Whether an artifact of this kind may be given where `wanted` is asked for."""
        kind: Kind | None = self
        while kind is not None:
            if kind.name == wanted.name:
                return True
            kind = kind.refines
        return False

    def schema(self, table: str) -> pa.Schema:
        """The Arrow schema of a table; vector columns (`vector`) take their width from the data."""
        import pyarrow as pa

        fields = []
        for column, spelled in self.tables[table].items():
            if spelled == "vector":
                raise ValueError(f"{self.name}.{table}.{column} has no fixed width")
            if spelled.startswith("list<"):
                fields.append(pa.field(column, pa.list_(pa.type_for_alias(spelled[5:-1]))))
            else:
                fields.append(pa.field(column, pa.type_for_alias(spelled)))
        return pa.schema(fields)


PAIR_COLUMNS = {"query_index": "int32", "passage_index": "int32"}
CANDIDATE_COLUMNS = {
    "query_index": "int32",
    "passage_index": "list<int32>",
    "score": "list<float32>",
}

DATASET = Kind(
    "Dataset",
    tables={
        "passages": {"passage_id": "string", "title": "string", "text": "string"},
        "queries": {"query_id": "string", "text": "string", "split": "string"},
        "qrels": {**PAIR_COLUMNS, "relevance": "int32"},
        "answers": {"query_index": "int32", "answers": "list<string>"},
        # Known or suspected positives beside the qrels: never to be drawn as negatives.
        "excluded": PAIR_COLUMNS,
        # Negatives that came with the data (training lines, DPR's hard negatives).
        "negatives": PAIR_COLUMNS,
        # Labels held back from training, to measure pseudo-labels and false negatives against.
        "hidden_qrels": PAIR_COLUMNS,
    },
)

BASE_MODEL = Kind("BaseModel", folders=("model",))

TOKENS = Kind(
    "Tokens",
    tables={
        "queries": {"ids": "list<int32>"},
        "passages": {
            "title_ids": "list<int32>",
            "text_ids": "list<int32>",
            "content_hash": "int64",
        },
    },
    folders=("tokenizer",),
    documents=("template.json",),
)

# `moments`: the optimizers' state, where another part of the training is to go on from it.
RETRIEVER = Kind("Retriever", folders=("model", "moments"), documents=("training.jsonl",))
RANKER = Kind("Ranker", folders=("model", "moments"), documents=("training.jsonl",))
# Folders `retriever` and `ranker` inside `model`.
JOINT_MODELS = Kind("JointModels", folders=("model", "moments"), documents=("training.jsonl",))

EMBEDDINGS = Kind(
    "Embeddings",
    tables={
        "queries": {"query_index": "int32", "embedding": "vector"},
        "passages": {"passage_index": "int32", "embedding": "vector"},
    },
)

CANDIDATES = Kind("Candidates", tables={"candidates": CANDIDATE_COLUMNS})

SCORED_CANDIDATES = Kind(
    "ScoredCandidates",
    tables={"candidates": {**CANDIDATE_COLUMNS, "ranker_score": "list<float32>"}},
    refines=CANDIDATES,
)

TRAINING_LISTS = Kind(
    "TrainingLists",
    tables={
        "lists": {
            "query_index": "int32",
            "positives": "list<int32>",
            "negatives": "list<int32>",
        }
    },
)

NEGATIVE_POOLS = Kind(
    "NegativePools",
    tables={
        "pools": {
            "query_index": "int32",
            "positive": "int32",
            "positive_score": "float32",
            # How many candidates score above it, and one; 0 where its score is not known.
            "positive_rank": "int32",
            "passage_index": "list<int32>",
            "score": "list<float32>",
            "log_weight": "list<float32>",
        }
    },
    documents=("pools.json",),
)

GRADIENT_STUDY = Kind(
    "GradientStudy",
    tables={
        # Rank 0: the random passages of all queries.
        "ranks": {
            "rank": "int32",
            "queries": "int32",
            "mean_norm": "float64",
            "variance_norm": "float64",
            "trace_covariance": "float64",
            "mean_cosine": "float64",
        }
    },
    documents=("gradients.json",),
)

CALIBRATION = Kind("Calibration", documents=("calibration.json",))

EVALUATION = Kind(
    "Evaluation",
    tables={
        "per_query": {
            "query_index": "int32",
            "run": "string",
            "measure": "string",
            "value": "float64",
        }
    },
    documents=("metrics.json",),
    folders=("runs",),
)

# What samplers draw: `judge`, `epochs` and a summary of each system in the document.
DRAW_STUDY = Kind(
    "DrawStudy",
    tables={
        "shares": {
            "system": "string",
            "query_index": "int32",
            "drawn": "int32",
            "false_negatives": "int32",
        },
        # Of some queries: how likely each rank of the pool is, where one candidate is drawn and
        # where `num_negatives` are.
        "probabilities": {
            "system": "string",
            "query_index": "int32",
            "rank": "int32",
            "probability": "float64",
            "inclusion": "float64",
            # On the scale of the pool's ranks; 0 where its score is not known.
            "positive_rank": "int32",
        },
    },
    documents=("draws.json",),
)

REPORT = Kind("Report", documents=("report.html", "report.md", "report.json"), folders=("figures",))
