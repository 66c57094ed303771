"""A sentencepiece vocabulary of one's own corpus, as a Hugging Face fast tokeniser."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
WORD_START = "\u2581"

# The trainer skips longer lines without an error; longer texts are cut into pieces of this size.
LONGEST_LINE = 2000


def train_sentencepiece(
    texts: Iterable[str],
    vocab_size: int,
    *,
    lowercase: bool = True,
    character_coverage: float = 0.9995,
    max_sentences: int = 2_000_000,
    seed: int = 0,
) -> bytes:
    """Train a unigram model whose ids begin with [PAD], [UNK], [CLS], [SEP], [MASK].

    Args:
        texts: read once, in order; nothing is kept beyond `max_sentences` lines.
        vocab_size: upper bound; a small corpus yields fewer pieces.
        lowercase: fold case in the normalisation (NFKC either way).
        character_coverage: share of the characters that get pieces; the rest is unknown. Lower it
            for languages with many characters only if the vocabulary is too small for them.
        max_sentences: lines sampled for training.
        seed: of that sample.

    Returns:
        The model file's bytes.

    Raises:
        ValueError: the texts hold nothing to train on.
    """
    lines = _lines(texts)
    first = next(lines, None)
    if first is None:
        raise ValueError("no text to train a sentencepiece model on")
    model = io.BytesIO()
    sentencepiece.set_random_generator_seed(seed)
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=_chain(first, lines),
        model_writer=model,
        model_type="unigram",
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc_cf" if lowercase else "nmt_nfkc",
        character_coverage=character_coverage,
        input_sentence_size=max_sentences,
        max_sentence_length=LONGEST_LINE * 4,
        # Sums of the expectation step depend on how lines are dealt to threads.
        num_threads=1,
        pad_id=0,
        pad_piece=PAD,
        unk_id=1,
        unk_piece=UNKNOWN,
        bos_id=2,
        bos_piece=CLS,
        eos_id=3,
        eos_piece=SEP,
        control_symbols=[MASK],
        minloglevel=1,
    )
    return model.getvalue()


def save_as_fast_tokenizer(model: bytes, folder: Path) -> PreTrainedTokenizerFast:
    """Write a unigram sentencepiece model as a Hugging Face fast tokeniser.

    Ids stay those of the model. The model itself is kept beside it as `sentencepiece.model`.

    Raises:
        ValueError: not a unigram model, or one with options that the conversion does not know.
    """
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    _check_convertible(proto)
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    ids = {piece: index for index, (piece, _) in enumerate(pieces)}
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=ids[UNKNOWN], byte_fallback=False))
    # sentencepiece drops outer spaces, joins inner ones and marks the start of every word.
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap),
            normalizers.Replace(Regex(" {2,}"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
        replacement=WORD_START, prepend_scheme="always", split=True
    )
    tokenizer.decoder = decoders.Metaspace(replacement=WORD_START, prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS}:0 $A:0 {SEP}:0",
        pair=f"{CLS}:0 $A:0 {SEP}:0 $B:1 {SEP}:1",
        special_tokens=[(CLS, ids[CLS]), (SEP, ids[SEP])],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        cls_token=CLS,
        sep_token=SEP,
        mask_token=MASK,
        # Without this list transformers would leave the segment ids out.
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    fast.save_pretrained(str(folder))
    (folder / "sentencepiece.model").write_bytes(model)
    return fast


def _check_convertible(proto: sentencepiece_model_pb2.ModelProto) -> None:
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    if trainer.model_type != trainer.UNIGRAM:
        raise ValueError("only unigram sentencepiece models can be converted")
    plain = (
        normalizer.add_dummy_prefix
        and normalizer.remove_extra_whitespaces
        and normalizer.escape_whitespaces
        and trainer.split_by_whitespace
        and not trainer.treat_whitespace_as_suffix
        and not trainer.byte_fallback
    )
    if not plain:
        raise ValueError(
            "the sentencepiece model was trained with other whitespace or byte options than "
            "train_sentencepiece's: train it again with that function"
        )
    missing = {PAD, UNKNOWN, CLS, SEP, MASK}.difference(piece.piece for piece in proto.pieces)
    if missing:
        raise ValueError(f"the sentencepiece model lacks the pieces {', '.join(sorted(missing))}")


def _lines(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for line in text.splitlines():
            for start in range(0, len(line), LONGEST_LINE):
                piece = line[start : start + LONGEST_LINE].strip()
                if piece:
                    yield piece


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest
