"""Encoding and scoring against sentence-transformers: same weights, texts, lengths and device.

Both sides start from texts in memory and end with arrays in memory. Ours tokenises into a token
store first, as the pipeline does; since the pipeline does that once and reads the tokens many
times, the time from stored tokens is shown as well. sentence-transformers runs as it comes
(float32, its own batches), and once more in the number format that the pipeline takes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from sentence_transformers import CrossEncoder as PeerRanker
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedTokenizerFast

from benchmarks import measuring, texts
from pipeline.models.base import DEFAULT_MODEL, find
from pipeline.models.cross_encoder import CrossEncoder, CrossEncoderConfig
from pipeline.models.device import (
    Precision,
    choose_device,
    describe,
    resolve_precision,
    torch_dtype,
)
from pipeline.models.dual_encoder import DualEncoder, DualEncoderConfig
from pipeline.models.encoder import quiet
from pipeline.models.inference import embed, prepare, score
from pipeline.text.batches import token_budget_batches
from pipeline.text.store import TokenStore
from pipeline.text.template import Tokenization
from pipeline.text.tokenizer import (
    input_template,
    load_tokenizer,
    tokenize_passages,
    tokenize_queries,
)

TOKENIZATION = Tokenization(title=False)
ENCODER = DualEncoderConfig(pooling="mean", normalize=True, temperature=0.05, shared=True)
# (against float32, against our format)
GOALS = {"cpu": (1.5, 1.0), "cuda": (3.0, 1.5)}
FROM_TEXT, FROM_TOKENS = "pipeline", "pipeline, from stored tokens"
PEER_DEFAULT, PEER_ALIKE = "sentence-transformers", "sentence-transformers, our format"

Vectors = NDArray[np.float32]


class Ours:
    """The pipeline's path from texts to vectors or logits."""

    def __init__(self, base: Path, folder: Path, token_budget: int, wanted: Any) -> None:
        self.device = choose_device()
        self.precision: Precision = resolve_precision(wanted, self.device)
        self.tokenizer: PreTrainedTokenizerFast = load_tokenizer(base)
        self.template = input_template(self.tokenizer, TOKENIZATION)
        self.folder = folder
        self.budget = token_budget

    def tokenize(self, data: texts.Documentation) -> TokenStore:
        """The token store of all texts."""
        queries = tokenize_queries(self.tokenizer, self.template, data.queries).table
        titles = [""] * len(data.passages)
        found = tokenize_passages(self.tokenizer, self.template, titles, data.passages)
        return TokenStore.build(self.folder, [queries], [found.table], self.template)

    def encode(self, model: DualEncoder, store: TokenStore) -> Vectors:
        """Vectors of all passages."""
        lengths = store.passage_lengths(np.arange(store.passages))
        batches = token_budget_batches(lengths, self.budget)
        return embed(
            model.encode_passages,
            store.passage_batch,
            batches,
            width=model.width,
            device=self.device,
        )

    def score(self, model: CrossEncoder, store: TokenStore) -> Vectors:
        """Logits of each query with its own passage."""
        rows = np.arange(store.queries)
        batches = token_budget_batches(store.pair_lengths(rows, rows), self.budget)
        return score(model, lambda at: store.pair_batch(at, at), batches, device=self.device)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--texts", type=int, default=2000, help="passages, and pairs")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of torch (default: torch's own choice)")
    parser.add_argument("--token-budget", type=int, default=16384)
    parser.add_argument("--peer-batch-size", type=int, default=32, help="its own default is 32")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    measuring.machine()
    torch.manual_seed(0)
    base = find(DEFAULT_MODEL).folder
    data = texts.documentation(options.texts)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        ours = Ours(base, folder / "tokens", options.token_budget, options.precision)
        print(
            f"{describe(ours.device)}, {ours.precision}, {torch.get_num_threads()} torch threads, "
            f"{options.texts:,} texts of pydocs, {DEFAULT_MODEL}"
        )
        measure_encoding(ours, base, data, folder / "retriever", options)
        measure_scoring(ours, base, data, folder / "ranker", options)
    print(measuring.load())


def measure_encoding(
    ours: Ours, base: Path, data: texts.Documentation, folder: Path, options: argparse.Namespace
) -> None:
    """Vectors of the passages."""
    model = DualEncoder.from_base(base, ENCODER)
    lengths = TOKENIZATION
    model.save(
        folder,
        tokenizer=base,
        query_max_len=lengths.query_max_len,
        passage_max_len=lengths.passage_max_len,
    )
    prepare(model, ours.device, ours.precision)

    def peer(dtype: torch.dtype) -> Callable[[list[str]], Vectors]:
        other = SentenceTransformer(
            str(folder), device=str(ours.device), model_kwargs={"dtype": dtype}
        )
        return lambda passages: other.encode(
            passages, batch_size=options.peer_batch_size, show_progress_bar=False
        )

    _measure(
        f"encode {len(data.passages):,} passages of up to {lengths.passage_max_len} tokens",
        ours,
        data,
        lambda store: ours.encode(model, store),
        peer,
        data.passages,
        options.rounds,
    )


def measure_scoring(
    ours: Ours, base: Path, data: texts.Documentation, folder: Path, options: argparse.Namespace
) -> None:
    """Relevance of each query's own passage."""
    model = CrossEncoder.from_base(base, CrossEncoderConfig())
    model.save(folder, tokenizer=base, pair_max_len=TOKENIZATION.pair_max_len)
    prepare(model, ours.device, ours.precision)

    def peer(dtype: torch.dtype) -> Callable[[list[tuple[str, str]]], Vectors]:
        other = PeerRanker(str(folder), device=str(ours.device), model_kwargs={"dtype": dtype})
        return lambda pairs: other.predict(
            pairs, batch_size=options.peer_batch_size, show_progress_bar=False
        )

    pairs = list(zip(data.queries, data.passages, strict=True))
    _measure(
        f"score {len(pairs):,} pairs of up to {TOKENIZATION.pair_max_len} tokens",
        ours,
        data,
        lambda store: _probabilities(ours.score(model, store)),
        peer,
        pairs,
        options.rounds,
    )


def _probabilities(logits: Vectors) -> Vectors:
    found: Vectors = expit(logits)
    return found


def _measure(
    title: str,
    ours: Ours,
    data: texts.Documentation,
    compute: Callable[[TokenStore], Vectors],
    peer: Callable[[torch.dtype], Callable[[Any], Vectors]],
    inputs: list[Any],
    rounds: int,
) -> None:
    print(f"\n{title}", flush=True)
    store = ours.tokenize(data)
    with quiet():
        plain, alike = peer(torch.float32), peer(torch_dtype(ours.precision))
    few = inputs[:64]
    expected = plain(few)
    gap = float(np.abs(compute(store)[: len(few)] - expected).max())
    peer_gap = float(np.abs(alike(few).astype(np.float32) - expected).max())
    print(f"  largest difference from float32: ours {gap:.1e}, theirs in our format {peer_gap:.1e}")
    timings = measuring.alternate(
        {
            PEER_DEFAULT: lambda: measuring.timed(lambda: plain(inputs)),
            FROM_TEXT: lambda: measuring.timed(lambda: compute(ours.tokenize(data))),
            PEER_ALIKE: lambda: measuring.timed(lambda: alike(inputs)),
            FROM_TOKENS: lambda: measuring.timed(lambda: compute(store)),
        },
        rounds,
    )
    measuring.medians(timings, len(inputs), "texts")
    against_default, against_alike = GOALS[ours.device.type]
    for other, goal in ((PEER_DEFAULT, against_default), (PEER_ALIKE, against_alike)):
        verdict = measuring.ratios(timings, other, FROM_TEXT)
        measuring.verdict(f"speed against {other}", verdict, at_least=goal)
        stored = measuring.ratios(timings, other, FROM_TOKENS)
        measuring.verdict("  from stored tokens", stored)


if __name__ == "__main__":
    main()
