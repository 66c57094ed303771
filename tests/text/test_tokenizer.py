from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.text.sentencepiece_model import save_as_fast_tokenizer, train_sentencepiece
from pipeline.text.statistics import Truncation, passage_truncation, query_truncation
from pipeline.text.template import InputTemplate, Tokenization
from pipeline.text.tokenizer import (
    content_hash,
    input_template,
    load_tokenizer,
    tokenize_passages,
    tokenize_queries,
    tokenizer_digest,
)
from tests.text.conftest import FAMILIES, SENTENCES, save_bert, save_ernie

TEXTS = ["the quick fox", "", "a retriever  finds passages for a query", "[SEP] 你好 </s>"]


def test_ids_equal_the_tokenizers_own_and_lengths_are_full(tokenizer_folder: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    template = input_template(tokenizer, Tokenization(query_max_len=5, pair_max_len=8))
    tokens = tokenize_queries(tokenizer, template, TEXTS)
    for text, ids, length in zip(
        TEXTS, tokens.table["ids"].to_pylist(), tokens.lengths, strict=True
    ):
        own = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert length == len(own)
        assert ids == own[: template.query_limit]


def test_tables_are_cut_to_the_longest_use_and_missing_titles_are_empty(bert_folder: Path) -> None:
    tokenizer = load_tokenizer(bert_folder)
    template = input_template(
        tokenizer, Tokenization(query_max_len=8, passage_max_len=12, pair_max_len=7)
    )
    passages = tokenize_passages(
        tokenizer, template, ["fox " * 20, " - ", ""], ["dog " * 30, "the dog", "a dog"]
    )
    assert template.passage_limit == 9
    assert passages.table["title_ids"].combine_chunks().value_lengths().to_pylist() == [9, 0, 0]
    assert passages.title_lengths.tolist() == [20, 0, 0]
    assert passages.text_lengths.tolist() == [30, 2, 2]


def test_titles_can_be_left_out(bert_folder: Path) -> None:
    tokenizer = load_tokenizer(bert_folder)
    template = input_template(tokenizer, Tokenization(title=False))
    passages = tokenize_passages(tokenizer, template, ["fox", "dog"], ["the text", "the text"])
    assert passages.title_lengths.tolist() == [0, 0]
    hashes = passages.table["content_hash"].to_pylist()
    assert hashes[0] == hashes[1]


def test_truncation_statistics_count_what_the_inputs_lose(bert_folder: Path) -> None:
    tokenizer = load_tokenizer(bert_folder)
    template = input_template(tokenizer, Tokenization(query_max_len=6, passage_max_len=13))
    # Four query tokens fit, and ten of title and text together; the tie goes to the title.
    assert query_truncation(template, [3, 4, 7]) == Truncation(3, 1, 14, 3)
    titles, texts = passage_truncation(template, [8, 2, 0], [6, 9, 9])
    assert titles == Truncation(2, 1, 10, 3)
    assert texts == Truncation(3, 2, 24, 2)
    assert texts.lost_share == pytest.approx(2 / 24)
    assert titles + titles == Truncation(4, 2, 20, 6)
    assert Truncation().cut_share == Truncation().lost_share == 0.0


def test_content_hash_ignores_form_and_keeps_content() -> None:
    assert content_hash("A Title", "some  Text\n") == content_hash("a title", "some text")
    assert content_hash("", "\ufb01ne") == content_hash("", "fine")
    assert content_hash("", "fine") != content_hash("", "wine")
    # Stored in artifacts: the value must never change.
    assert content_hash("title", "text") == -2475798374109243519
    many = [content_hash("", str(number)) for number in range(1000)]
    assert len(set(many)) == 1000
    assert np.array(many, dtype=np.int64).min() < 0


def test_template_survives_json(tokenizer_folder: Path) -> None:
    template = input_template(load_tokenizer(tokenizer_folder), Tokenization(missing_title=""))
    assert InputTemplate.model_validate_json(template.model_dump_json()) == template


def digest_of(folder: Path) -> str:
    return tokenizer_digest(load_tokenizer(folder))


def changed(folder: Path, file: str, **changes: object) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_equal_vocabularies_and_rules_have_equal_digests(tmp_path: Path) -> None:
    """As two sizes of one model have them: other files, other settings, the same ids."""
    save_bert(tmp_path / "base")
    save_ernie(tmp_path / "vocabulary")
    ids = load_tokenizer(tmp_path / "base").get_vocab()
    words = sorted(ids, key=lambda word: ids[word])
    (tmp_path / "vocabulary" / "vocab.txt").write_text("\n".join(words) + "\n")
    assert digest_of(tmp_path / "vocabulary") == digest_of(tmp_path / "base")
    wanted = digest_of(tmp_path / "base")
    changed(tmp_path / "base", "tokenizer.json", truncation=None, padding=None, decoder=None)
    changed(tmp_path / "base", "tokenizer_config.json", model_max_length=512, name="large")
    assert digest_of(tmp_path / "base") == wanted
    load_tokenizer(tmp_path / "vocabulary").save_pretrained(tmp_path / "written")
    assert digest_of(tmp_path / "written") == wanted


def test_other_ids_have_other_digests(tmp_path: Path) -> None:
    digests = set()
    for name, save in FAMILIES.items():
        save(tmp_path / name)
        digests.add(digest_of(tmp_path / name))
    vocabulary = tmp_path / "ernie" / "vocab.txt"
    words = vocabulary.read_text().split()
    vocabulary.write_text("\n".join([*words[:-2], words[-1], words[-2]]))
    digests.add(digest_of(tmp_path / "ernie"))
    normalizer = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
    normalizer |= {"strip_accents": None, "lowercase": False}
    changed(tmp_path / "bert", "tokenizer.json", normalizer=normalizer)
    digests.add(digest_of(tmp_path / "bert"))
    for size in (50, 60):
        save_as_fast_tokenizer(train_sentencepiece(SENTENCES * 9, size), tmp_path / str(size))
        digests.add(digest_of(tmp_path / str(size)))
    assert len(digests) == len(FAMILIES) + 4


def test_lengths_without_room_for_text_are_refused(bert_folder: Path) -> None:
    with pytest.raises(ValidationError, match="raise it to 5"):
        input_template(load_tokenizer(bert_folder), Tokenization(passage_max_len=4))


def test_a_folder_without_a_fast_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "xlm-roberta"}))
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "spiece.model").write_bytes(b"")
    with pytest.raises(ValueError, match=r"only as spiece\.model"):
        load_tokenizer(tmp_path)


def test_code_of_a_checkpoint_does_not_run(bert_folder: Path) -> None:
    witness = bert_folder / "ran"
    (bert_folder / "own.py").write_text(f"open({str(witness)!r}, 'w')\nclass Own: pass\n")
    path = bert_folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["auto_map"] = {"AutoTokenizer": ["own.Own", "own.Own"]}
    config["tokenizer_class"] = "Own"
    path.write_text(json.dumps(config))
    with contextlib.suppress(ValueError, OSError):
        load_tokenizer(bert_folder)
    assert not witness.exists()
