from __future__ import annotations

import random
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from pipeline.text.sentencepiece_model import save_as_fast_tokenizer, train_sentencepiece
from pipeline.text.template import Tokenization
from pipeline.text.tokenizer import input_template, load_tokenizer

ENGLISH = "the retriever finds a passage for each query and the ranker reads them both together"
CHINESE = "检索 模型 问题 段落 北京 是 中国 的 首都"
OTHERS = "naïve café Straße привет мир いろは 한국어 3.14 state-of-art"
WORDS = f"{ENGLISH} {CHINESE} {OTHERS}".split()

SAMPLES = [
    "The Retriever finds a passage.",
    "北京是中国的首都。检索模型",
    "北京 是 中国 的 首都",
    "ﬁne ＦＵＬＬ ｗｉｄｔｈ ① ½ ﷺ",
    "Straße CAFÉ cafe\u0301 naïve",
    "привет Мир いろは 한국어",
    "unknown: 𓀀𓀁 𓀀 x𓀀y 😀 👩‍👩‍👧 ☃️",
    "  outer   and \t inner\u00a0\u3000 spaces \n lines  ",
    "zero\u200bwidth soft\u00adhyphen bell\x07 \ufeffbom",
    "\u2581 underline \u2581\u2581a",
    "3.14 state-of-the-art 1,000.00 (x)",
    "",
    " ",
]


@pytest.fixture(scope="module")
def model() -> bytes:
    generator = random.Random(0)
    lines = [" ".join(generator.choices(WORDS, k=9)) for _ in range(400)]
    joined = ["".join(generator.choices(WORDS, k=5)) for _ in range(200)]
    return train_sentencepiece([*lines, *joined], vocab_size=300)


@pytest.fixture(scope="module")
def processor(model: bytes) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=model)


@pytest.fixture(scope="module")
def tokenizer(model: bytes, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    folder = tmp_path_factory.mktemp("sentencepiece")
    save_as_fast_tokenizer(model, folder)
    return load_tokenizer(folder)


def test_special_tokens_have_the_same_ids_in_both(
    processor: sentencepiece.SentencePieceProcessor, tokenizer: PreTrainedTokenizerFast
) -> None:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert tokenizer.convert_tokens_to_ids(specials) == list(range(5))
    assert [processor.IdToPiece(index) for index in range(5)] == specials
    assert len(tokenizer) == processor.GetPieceSize()


@pytest.mark.parametrize("text", SAMPLES)
def test_pieces_equal_sentencepieces_own(
    processor: sentencepiece.SentencePieceProcessor, tokenizer: PreTrainedTokenizerFast, text: str
) -> None:
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == processor.EncodeAsIds(text)


def test_text_is_not_all_unknown(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer("the retriever 北京是首都", add_special_tokens=False)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == "the retriever 北京是首都"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([*WORDS, *SAMPLES[:8], "Ａ", "é", "你", "!"]), max_size=8))
def test_pieces_of_mixed_text_equal_sentencepieces_own(
    processor: sentencepiece.SentencePieceProcessor,
    tokenizer: PreTrainedTokenizerFast,
    words: list[str],
) -> None:
    for text in (" ".join(words), "".join(words)):
        own = processor.EncodeAsIds(text)
        found = tokenizer(text, add_special_tokens=False)["input_ids"]
        # Of two divisions that are equally likely, rounding decides.
        assert found == own or equally_likely(processor, found, own)


def equally_likely(
    processor: sentencepiece.SentencePieceProcessor, first: list[int], second: list[int]
) -> bool:
    """Whether two divisions are of one text and have the same log-probability."""
    texts = ["".join(map(processor.IdToPiece, ids)) for ids in (first, second)]
    scores = [sum(map(processor.GetScore, ids)) for ids in (first, second)]
    return texts[0] == texts[1] and abs(scores[0] - scores[1]) < 1e-4


def test_a_tie_between_divisions_is_told_from_a_mistake(
    processor: sentencepiece.SentencePieceProcessor, tokenizer: PreTrainedTokenizerFast
) -> None:
    word = "北京是中国的首都。检索模型"
    text = f"{word}北京北京{word}"
    own = processor.EncodeAsIds(text)
    found = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert equally_likely(processor, found, own)
    assert not equally_likely(processor, found, own[:-1])
    single = [processor.PieceToId(letter) for letter in "北京是"]
    assert not equally_likely(processor, single, processor.EncodeAsIds("北京是"))


def test_layout_is_that_of_bert(tokenizer: PreTrainedTokenizerFast) -> None:
    template = input_template(tokenizer, Tokenization())
    assert template.pair.specials == ((2,), (3,), (3,))
    assert template.pair.sequence_types == (0, 1)
    assert template.pad_id == 0


def test_training_is_repeatable_and_reads_long_lines() -> None:
    words = random.Random(1)
    text = " ".join(words.choices(WORDS, k=2000))
    first = train_sentencepiece([text], vocab_size=120)
    assert train_sentencepiece([text], vocab_size=120) == first
    pieces = sentencepiece.SentencePieceProcessor(model_proto=first)
    assert pieces.EncodeAsPieces("retriever") != ["▁", "[UNK]"]


def test_nothing_to_train_on_and_foreign_models_are_errors(model: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no text"):
        train_sentencepiece([" \n"], vocab_size=100)
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    proto.trainer_spec.model_type = proto.trainer_spec.BPE
    with pytest.raises(ValueError, match="only unigram"):
        save_as_fast_tokenizer(proto.SerializeToString(), tmp_path)
