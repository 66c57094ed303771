from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from transformers import PreTrainedTokenizerFast

from pipeline.text.store import TokenBatch, TokenStore
from pipeline.text.template import InputTemplate, Tokenization
from pipeline.text.tokenizer import (
    input_template,
    load_tokenizer,
    tokenize_passages,
    tokenize_queries,
)

QUERIES = ["the quick fox", "a query", "the ranker reads query and passage", ""]
TITLES = ["a retriever", "", "lazy dog lazy dog lazy dog", "fox"]
BODIES = [
    "finds passages for a query",
    "- the text of a passage",
    "jumps over the lazy dog",
    "",
]


def build(folder: Path, tokenizer: PreTrainedTokenizerFast, template: InputTemplate) -> TokenStore:
    def query_tables() -> list[pa.Table]:
        return [
            tokenize_queries(tokenizer, template, part).table for part in (QUERIES[:1], QUERIES[1:])
        ]

    def passage_tables() -> list[pa.Table]:
        parts = ((TITLES[:3], BODIES[:3]), ([], []), (TITLES[3:], BODIES[3:]))
        return [tokenize_passages(tokenizer, template, *part).table for part in parts]

    return TokenStore.build(folder, query_tables(), passage_tables(), template)


def assert_equals_tokenizer(
    batch: TokenBatch, tokenizer: PreTrainedTokenizerFast, *texts: list[str]
) -> None:
    expected: Any = tokenizer(*texts, padding="longest", truncation=False, return_tensors="np")
    np.testing.assert_array_equal(batch.input_ids, expected["input_ids"])
    np.testing.assert_array_equal(batch.attention_mask, expected["attention_mask"])
    types = expected.get("token_type_ids", np.zeros_like(batch.input_ids))
    np.testing.assert_array_equal(batch.token_type_ids, types)
    for array in (batch.input_ids, batch.attention_mask, batch.token_type_ids):
        assert array.dtype == np.int64


def test_uncut_inputs_equal_the_tokenizers_own(tokenizer_folder: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    store = build(tmp_path / "store", tokenizer, input_template(tokenizer, Tokenization()))
    rows = [2, 0, 3, 1]
    assert_equals_tokenizer(store.query_batch(rows), tokenizer, [QUERIES[row] for row in rows])
    assert_equals_tokenizer(
        store.passage_batch(rows),
        tokenizer,
        [TITLES[row] or "-" for row in rows],
        [BODIES[row] for row in rows],
    )
    if tokenizer_folder.name == "roberta":
        # Byte-level tokens carry the space before a word, which the joined text has at the joint:
        # only a passage without title reads the same.
        rows = [1]
    assert_equals_tokenizer(
        store.pair_batch(rows, rows),
        tokenizer,
        [QUERIES[row] for row in rows],
        [f"{TITLES[row]} {BODIES[row]}".strip() for row in rows],
    )


@pytest.mark.parametrize("title", [True, False])
def test_joined_inputs_are_a_query_input_and_a_passage_input_end_to_end(
    tokenizer_folder: Path, tmp_path: Path, title: bool
) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    tokenization = Tokenization(query_max_len=6, passage_max_len=11, title=title)
    store = build(tmp_path / "store", tokenizer, input_template(tokenizer, tokenization))
    queries, passages = [0, 1, 2, 3, 0], [2, 3, 0, 1, 1]
    batch = store.pair_batch(queries, passages, "joined")
    lengths = store.pair_lengths(queries, passages, "joined")
    np.testing.assert_array_equal(lengths, batch.attention_mask.sum(axis=1))
    assert batch.query_lengths is not None
    for row, (query, passage) in enumerate(zip(queries, passages, strict=True)):
        parts = store.query_batch([query]), store.passage_batch([passage])
        assert batch.query_lengths[row] == parts[0].tokens
        for name in ("input_ids", "token_type_ids"):
            wanted = np.concatenate([getattr(part, name)[0] for part in parts])
            np.testing.assert_array_equal(getattr(batch, name)[row, : len(wanted)], wanted)


@pytest.mark.parametrize("missing_title", ["-", ""])
def test_cut_inputs_equal_removing_tokens_one_by_one(
    tokenizer_folder: Path, tmp_path: Path, missing_title: str
) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    tokenization = Tokenization(
        query_max_len=6,
        passage_max_len=11,
        pair_max_len=13,
        missing_title="-" if missing_title else "",
    )
    template = input_template(tokenizer, tokenization)
    store = build(tmp_path / "store", tokenizer, template)

    def ids(text: str) -> list[int]:
        own: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return own

    def cut(first: list[int], second: list[int], longest: int) -> list[int]:
        special = tokenizer("a", "a")["input_ids"]
        a = ids("a")[0]
        at = special.index(a)
        end = len(special) - 1 - special[::-1].index(a)
        width = len(ids("a"))
        assert width == 1
        while len(first) + len(second) + len(special) - 2 > longest:
            if len(first) > len(second):
                first = first[:-1]
            else:
                second = second[:-1]
        return special[:at] + first + special[at + 1 : end] + second + special[end + 1 :]

    for row in range(4):
        batch = store.passage_batch([row])
        expected = cut(ids(TITLES[row] or missing_title), ids(BODIES[row]), 11)
        assert batch.input_ids.tolist() == [expected]
        for passage in range(4):
            batch = store.pair_batch([row], [passage])
            second = ids(TITLES[passage]) + ids(BODIES[passage])
            assert batch.input_ids.tolist() == [cut(ids(QUERIES[row]), second, 13)]


def test_lengths_are_those_of_the_assembled_inputs(tokenizer_folder: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    template = input_template(
        tokenizer, Tokenization(query_max_len=5, passage_max_len=10, pair_max_len=12)
    )
    store = build(tmp_path / "store", tokenizer, template)
    queries, passages = [0, 1, 2, 3, 2], [3, 2, 1, 0, 2]
    for lengths, batch, longest in (
        (store.query_lengths(queries), store.query_batch(queries), 5),
        (store.passage_lengths(passages), store.passage_batch(passages), 10),
        (store.pair_lengths(queries, passages), store.pair_batch(queries, passages), 12),
    ):
        np.testing.assert_array_equal(lengths, batch.attention_mask.sum(axis=1))
        assert batch.rows == 5
        assert batch.tokens == lengths.sum()
        assert batch.input_ids.shape[1] == lengths.max() == longest


def test_without_titles_a_passage_is_a_single_sequence(bert_folder: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(bert_folder)
    template = input_template(tokenizer, Tokenization(title=False))
    store = build(tmp_path / "store", tokenizer, template)
    assert_equals_tokenizer(store.passage_batch([0, 1]), tokenizer, BODIES[:2])
    assert_equals_tokenizer(store.pair_batch([0, 1], [0, 1]), tokenizer, QUERIES[:2], BODIES[:2])


def test_store_reopens_and_travels_as_its_folder(bert_folder: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(bert_folder)
    folder = tmp_path / "store"
    store = build(folder, tokenizer, input_template(tokenizer, Tokenization()))
    assert (store.queries, store.passages) == (4, 4)
    payload = pickle.dumps(store)
    assert len(payload) < 1000
    again = pickle.loads(payload)
    np.testing.assert_array_equal(
        again.pair_batch([0, 1], [1, 2]).input_ids, store.pair_batch([0, 1], [1, 2]).input_ids
    )
    assert np.load(folder / "passage_ids.npy").dtype == np.uint16
    # A build cut short leaves no store behind.
    (folder / "template.json").unlink()
    with pytest.raises(FileNotFoundError, match="build it again"):
        TokenStore.open(folder)


def test_an_empty_store_has_empty_batches(bert_folder: Path, tmp_path: Path) -> None:
    template = input_template(load_tokenizer(bert_folder), Tokenization())
    store = TokenStore.build(tmp_path / "store", [], [], template)
    assert (store.queries, store.passages) == (0, 0)
    assert store.pair_batch([], []).rows == 0


def test_wrong_ids_and_indices_are_errors(bert_folder: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(bert_folder)
    template = input_template(tokenizer, Tokenization())
    foreign = pa.table({"ids": pa.array([[1, 2], [3, 30000]], pa.list_(pa.int32()))})
    with pytest.raises(ValueError, match="belongs to another tokeniser"):
        TokenStore.build(tmp_path / "foreign", [foreign], [], template)
    store = build(tmp_path / "store", tokenizer, template)
    with pytest.raises(IndexError, match="passage index 4 to 4"):
        store.passage_batch([4])
