"""A pipeline of three small stages, the last of them on Ray workers."""

from __future__ import annotations

import json
from pathlib import Path

PIPELINE = """\
name: tiny
root: results
stages:
  data:
    uses: ingest
    params: {{source: {{format: beir, path: {folder}}}, passages_per_shard: 1}}
  base:
    uses: base_model
    inputs: {{dataset: data}}
    params:
      model: scratch
      scratch: {{vocab_size: 110, hidden_size: 8, num_hidden_layers: 1, num_attention_heads: 1,
                 intermediate_size: 8}}
  tokens:
    uses: tokenize
    inputs: {{dataset: data, base: base}}
    resources: {{workers: {workers}}}
"""


def write_pipeline(folder: Path, workers: int, passages: int) -> Path:
    """The pipeline file, and the collection that it reads; a shard for each passage."""
    texts = [f"number {n} of many words that say little" for n in range(passages)]
    rows = [{"_id": f"p{n}", "title": "", "text": text} for n, text in enumerate(texts)]
    _write(folder / "corpus.jsonl", rows)
    _write(folder / "queries.jsonl", [{"_id": f"q{n}", "text": texts[n]} for n in range(10)])
    (folder / "qrels").mkdir()
    for split, numbers in {"train": range(8), "dev": range(8, 10)}.items():
        lines = "".join(f"q{n}\tp{n}\t1\n" for n in numbers)
        (folder / f"qrels/{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{lines}")
    file = folder / "tiny.yaml"
    file.write_text(PIPELINE.format(folder=folder, workers=workers))
    return file


def result_of(root: Path) -> dict[str, object]:
    """What the only run below a root says about itself."""
    (file,) = root.glob("runs/*/result.json")
    found: dict[str, object] = json.loads(file.read_text())
    return found


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
