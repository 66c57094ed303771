"""How ingest, tokenise and encode grow when the corpus grows tenfold: time and memory.

Each stage runs in a process of its own (`run_pipeline.py --only STAGE`, `workers: 0`) on a corpus
of N passages and on one of 10 N. What a process costs before it reads the first passage (imports,
the model) is taken from both by subtracting a run on ten passages.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import measuring, texts
from pipeline.artifacts.cache import CACHE_VARIABLE
from pipeline.distributed.cluster import PROJECT_ROOT

PIPELINE = """\
name: growth
root: {root}
stages:
  data:
    uses: ingest
    params: {{source: {{format: beir, path: {source}}}, passages_per_shard: {shard}}}
  base: {{uses: base_model}}
  tokens:
    uses: tokenize
    inputs: {{dataset: data, base: base}}
    resources: {{workers: 0}}
  retriever:
    uses: initial_retriever
    inputs: {{base: base, tokens: tokens}}
    params: {{shared: true, pooling: mean, normalize: true, temperature: 0.05}}
  vectors:
    uses: encode
    inputs: {{retriever: retriever, tokens: tokens, dataset: data}}
    resources: {{workers: 0}}
"""
# Stage type -> its name in the pipeline, and the stages that it needs.
STAGES = {
    "ingest": ("data", ""),
    "tokenize": ("tokens", "data,base"),
    "encode": ("vectors", "tokens,retriever"),
}
TINY = 10
GROWTH = 10
# Of CPU time beyond the start: with less the small corpus drowns in the noise.
LEAST_SECONDS = 0.5
GOAL_TIME = 10.5
GOAL_MEMORY = 1.2


@dataclass(frozen=True)
class Corpus:
    """A generated collection and the pipeline file over it."""

    passages: int
    folder: Path
    file: Path

    @classmethod
    def write(cls, folder: Path, passages: int, queries: int, shard: int) -> Corpus:
        """Generate it; each query has one relevant passage."""
        source = folder / "beir"
        texts.write_beir(source, passages, queries)
        file = folder / "pipeline.yaml"
        text = PIPELINE.format(root=folder / "artifacts", source=source, shard=shard)
        file.write_text(text, encoding="utf-8")
        return cls(passages, folder, file)

    def run(self, *arguments: str) -> measuring.Ran:
        """Run some of its stages."""
        command = [sys.executable, str(PROJECT_ROOT / "jobs" / "run_pipeline.py"), "run"]
        path = os.pathsep.join(filter(None, [str(PROJECT_ROOT), os.environ.get("PYTHONPATH")]))
        return measuring.run_command(
            [*command, str(self.file), *arguments],
            {CACHE_VARIABLE: str(self.folder / "cache"), "PYTHONPATH": path},
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ingest-passages", type=int, default=50_000, help="N of ingest, tokenise")
    parser.add_argument("--encode-passages", type=int, default=500, help="N of encode")
    parser.add_argument("--passages-per-shard", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    measuring.machine()
    sizes = {
        "ingest": options.ingest_passages,
        "tokenize": options.ingest_passages,
        "encode": options.encode_passages,
    }
    with tempfile.TemporaryDirectory() as scratch:
        corpora = {
            # The corpus grows, its queries do not: those are held in memory.
            passages: Corpus.write(
                Path(scratch, str(passages)), passages, min(passages, small) // 10, shard
            )
            for shard in [options.passages_per_shard]
            for small in sizes.values()
            for passages in (TINY, small, GROWTH * small)
        }
        for name, small in sizes.items():
            _measure(name, [corpora[n] for n in (TINY, small, GROWTH * small)], options.rounds)
    print(measuring.load())


def _measure(name: str, corpora: list[Corpus], rounds: int) -> None:
    """Run one stage on all sizes in turn, after what it depends on."""
    stage, needed = STAGES[name]
    print(f"\n{name}, {corpora[1].passages:,} and {corpora[2].passages:,} passages", flush=True)
    peaks: dict[int, list[int]] = {corpus.passages: [] for corpus in corpora}
    for corpus in corpora if needed else []:
        corpus.run("--until", needed)
    # The first process pays for files that nothing has read yet.
    corpora[0].run("--only", stage, "--force", stage)

    def side(corpus: Corpus) -> measuring.Timing:
        ran = corpus.run("--only", stage, "--force", stage)
        peaks[corpus.passages].append(ran.peak)
        return ran.timing

    timings = measuring.alternate(
        {f"{corpus.passages:,}": partial(side, corpus) for corpus in corpora}, rounds
    )
    measuring.medians(timings)
    tiny, small, large = timings.values()
    beyond = [one.cpu - start.cpu for one, start in zip(small, tiny, strict=True)]
    if statistics.median(beyond) < LEAST_SECONDS:
        print("  growth of time: too little work to tell, take more passages")
    else:
        verdict = measuring.ratios(
            {"small": _beyond(small, tiny), "large": _beyond(large, tiny)}, "large", "small"
        )
        measuring.verdict("growth of time", verdict, at_most=GOAL_TIME)
    before, after = (statistics.median(peaks[c.passages]) for c in corpora[1:])
    per_passage = (after - before) / (corpora[2].passages - corpora[1].passages)
    print(
        f"  peak memory {before / 1e6:,.0f} MB and {after / 1e6:,.0f} MB: "
        f"{per_passage:,.0f} bytes for each further passage"
    )
    measuring.limit("growth of memory", after / before, "x", GOAL_MEMORY)


def _beyond(
    taken: Sequence[measuring.Timing], start: Sequence[measuring.Timing]
) -> list[measuring.Timing]:
    """What runs took beyond the cost of starting."""
    return [
        measuring.Timing(max(one.wall - other.wall, 1e-3), max(one.cpu - other.cpu, 1e-3))
        for one, other in zip(taken, start, strict=True)
    ]


if __name__ == "__main__":
    main()
