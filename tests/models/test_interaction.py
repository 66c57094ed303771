"""The interaction head against the dual encoder and literal sums, and in sentence-transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder as TheirCrossEncoder
from torch.nn import functional as F

from pipeline.models.cross_encoder import CrossEncoder, CrossEncoderConfig, JoinedInputs
from pipeline.models.dual_encoder import DualEncoder, DualEncoderConfig
from pipeline.models.encoder import TensorBatch, TextEncoder
from pipeline.models.interaction import SIMILARITY_SCALE, SPEED, USUAL_SIMILARITY, InteractionHead
from pipeline.models.joined_pairs import JoinedPairs

Batch = Callable[..., TensorBatch]
QUERIES = ["w1 w2", "w3", "w4 w5 w6 w7"]
TITLES = ["w9", "-", "w11 w12"]
TEXTS = ["w9 w2", "w8 w7 w6 w5", "w10 " * 40]
JOINED = JoinedInputs(query_max_len=6, passage_max_len=14, title=True, missing_title="-")


def built(folder: Path) -> CrossEncoder:
    torch.manual_seed(5)
    return CrossEncoder.from_base(folder, CrossEncoderConfig(head="interaction")).eval()


def head_of(model: CrossEncoder) -> InteractionHead:
    assert isinstance(model.head, InteractionHead)
    return model.head


def joined(queries: TensorBatch, passages: TensorBatch, extra: int = 0) -> TensorBatch:
    """The rows of two batches end to end, with `extra` columns of padding."""
    first, second = (batch.attention_mask.sum(dim=1) for batch in (queries, passages))
    width = int((first + second).max()) + extra
    shape = (len(first), width)
    found = {name: torch.zeros(shape, dtype=torch.long) for name in ("ids", "mask", "types")}
    for row, (middle, length) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        for batch, start, count in ((queries, 0, middle), (passages, middle, length)):
            at = slice(start, start + count)
            found["ids"][row, at] = batch.input_ids[row, :count]
            found["mask"][row, at] = 1
            found["types"][row, at] = batch.token_type_ids[row, :count]
    return TensorBatch(found["ids"], found["mask"], found["types"], True, first)


@pytest.fixture
def inputs(batch: Batch) -> Callable[[str], tuple[TensorBatch, TensorBatch]]:
    def make(kind: str) -> tuple[TensorBatch, TensorBatch]:
        return (
            batch(kind, JOINED.query_max_len, QUERIES),
            batch(kind, JOINED.passage_max_len, TITLES, TEXTS),
        )

    return make


def open_by(model: CrossEncoder, bias: float) -> None:
    with torch.no_grad():
        head_of(model).gates.fill_(bias / SPEED)


def test_with_attention_closed_it_is_the_retrievers_cosine_and_maxsim(
    checkpoints: dict[str, Path], inputs: Callable[[str], tuple[TensorBatch, ...]], kind: str
) -> None:
    queries, passages = inputs(kind)
    model = built(checkpoints[kind])
    open_by(model, -1e4)
    config = DualEncoderConfig(pooling="mean", normalize=True, shared=True)
    retriever = DualEncoder.from_base(checkpoints[kind], config).eval()
    encoder = TextEncoder.load(checkpoints[kind]).eval()
    with torch.inference_mode():
        cosine = (retriever.encode_queries(queries) * retriever.encode_passages(passages)).sum(1)
        states = [F.normalize(encoder(part), dim=-1) for part in (queries, passages)]
        lengths = [part.attention_mask.sum(dim=1).tolist() for part in (queries, passages)]
        matched = [
            float((q[:m] @ p[:n].T).max(dim=1).values.mean())
            for q, p, m, n in zip(*states, *lengths, strict=True)
        ]
        wanted = SIMILARITY_SCALE * (cosine + torch.tensor(matched) - 2 * USUAL_SIMILARITY)
        torch.testing.assert_close(model(joined(queries, passages)), wanted, rtol=1e-4, atol=1e-3)


def test_open_attention_changes_the_logits_and_padding_does_not(
    checkpoints: dict[str, Path], inputs: Callable[[str], tuple[TensorBatch, ...]], kind: str
) -> None:
    queries, passages = inputs(kind)
    model = built(checkpoints[kind])
    with torch.inference_mode():
        logits = {}
        for bias in (-1e4, -3.0, 0.0):
            open_by(model, bias)
            logits[bias] = model(joined(queries, passages))
        padded = model(joined(queries, passages, extra=7))
    torch.testing.assert_close(padded, logits[0.0], rtol=1e-4, atol=1e-3)
    near, far = ((logits[bias] - logits[-1e4]).abs().max() for bias in (-3.0, 0.0))
    assert 1e-3 < near < far


def test_a_step_of_training_reaches_encoder_gates_scales_and_classifier(
    checkpoints: dict[str, Path], inputs: Callable[[str], tuple[TensorBatch, ...]]
) -> None:
    queries, passages = inputs("bert")
    model = built(checkpoints["bert"])
    logits = model(joined(queries, passages))
    F.binary_cross_entropy_with_logits(logits, torch.tensor([1.0, 0.0, 0.0])).backward()  # type: ignore[no-untyped-call]
    still = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    # Attention does not see a constant added to all keys.
    assert [name for name in still if not name.endswith("key.bias")] == []


@pytest.mark.parametrize("fused", [True, False])
def test_bfloat16_attention_gives_nearly_the_same(
    checkpoints: dict[str, Path], inputs: Callable[[str], tuple[TensorBatch, ...]], fused: bool
) -> None:
    pairs = joined(*inputs("bert"))
    model = built(checkpoints["bert"])
    model.encoder.use_fused_attention(fused)
    with torch.inference_mode():
        exact = model(pairs)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(pairs)
        model.encoder.to(torch.bfloat16)
        stored = model(pairs)
    assert exact.dtype == rounded.dtype == stored.dtype == torch.float32
    assert (exact - rounded).abs().max() < 0.05 * SIMILARITY_SCALE
    assert (exact - stored).abs().max() < 0.05 * SIMILARITY_SCALE


def test_saved_and_loaded_it_scores_alike_here_and_in_sentence_transformers(
    checkpoints: dict[str, Path],
    inputs: Callable[[str], tuple[TensorBatch, ...]],
    tmp_path: Path,
    kind: str,
) -> None:
    model = built(checkpoints[kind])
    open_by(model, -1.0)
    with torch.no_grad():
        head_of(model).classifier.weight.normal_()
        head_of(model).classifier.bias.sub_(model(joined(*inputs(kind))).mean())
    model.save(tmp_path, tokenizer=checkpoints[kind], pair_max_len=20, joined=JOINED)
    with torch.inference_mode():
        logits = model(joined(*inputs(kind)))
        again = CrossEncoder.load(tmp_path).eval()(joined(*inputs(kind)))
    assert torch.equal(logits, again)
    titles = [title if title != "-" else "" for title in TITLES]
    texts = [f"{title}\t{text}" for title, text in zip(titles, TEXTS, strict=True)]
    theirs = TheirCrossEncoder(modules=[JoinedPairs.load(str(tmp_path))], device="cpu")
    pairs = list(zip(QUERIES, texts, strict=True))
    found = theirs.predict(pairs, activation_fn=torch.nn.Identity())
    np.testing.assert_allclose(found, logits.numpy(), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(theirs.predict(pairs), logits.sigmoid().numpy(), atol=1e-4)


def test_the_card_shows_how_it_is_loaded(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    built(checkpoints["bert"]).save(
        tmp_path, tokenizer=checkpoints["bert"], pair_max_len=20, joined=JOINED
    )
    shown = (tmp_path / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert "JoinedPairs" in shown
    exec(shown.replace("path/to/this/folder", str(tmp_path)), {})


def test_it_says_what_it_needs(checkpoints: dict[str, Path], tmp_path: Path, batch: Batch) -> None:
    model = built(checkpoints["bert"])
    with pytest.raises(ValueError, match="joined inputs: query_lengths"):
        model(batch("bert", 20, QUERIES, TEXTS))
    with pytest.raises(ValueError, match="how its inputs are cut"):
        model.save(tmp_path, tokenizer=checkpoints["bert"], pair_max_len=20)
    plain = CrossEncoder.from_base(checkpoints["bert"], CrossEncoderConfig(head="cls_logit"))
    plain.save(tmp_path, tokenizer=checkpoints["bert"], pair_max_len=20)
    with pytest.raises(ValueError, match="not a ranker over joined inputs"):
        JoinedPairs.load(str(tmp_path))
