from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sources import json_rows
from pipeline.sources.json_rows import (
    ids_of,
    json_array,
    json_document,
    json_entries,
    jsonl,
    text_of,
    texts_of,
)
from pipeline.sources.lines import BadRow
from pipeline.sources.records import DataError, Problems

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


def test_json_lines_good_and_bad(tmp_path):
    path = tmp_path / "a.jsonl"
    long = "1" * 5000
    path.write_text(f'{{"a": 1}}\n{{"a": \n[1]\n\n{{"a": 2}}\n{{"a": {long}}}\n')
    problems = Problems("skip")
    assert [(where.line, row) for where, row in jsonl(path, problems)] == [
        (1, {"a": 1}),
        (5, {"a": 2}),
    ]
    assert problems.counts == {"not JSON": 1, "not a JSON object": 1, "number too long": 1}
    with pytest.raises(DataError, match=r"a.jsonl:2: no valid JSON"):
        list(jsonl(path, Problems()))


@pytest.fixture(scope="module")
def array(tmp_path_factory):
    return tmp_path_factory.mktemp("json") / "a.json"


@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=6),
    indent=st.sampled_from([None, 2]),
    chunk=st.integers(1, 40),
)
def test_array_equals_json_load_for_any_chunk(array, rows, indent, chunk):
    array.write_text(json.dumps(rows, indent=indent, ensure_ascii=False), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "CHUNK_BYTES", chunk)
        assert [row for _, row in json_array(array, Problems())] == rows


def test_array_tells_lines(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"a": 1}, {"b": 2}], indent=1))
    assert [where.line for where, _ in json_array(path, Problems())] == [2, 5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}', "no JSON array"),
        ('[{"a": 1} {"b": 2}]', "no `,` or `]`"),
        ('[{"a": 1},\n{"b": }]', r"a.json:2: no valid JSON"),
        ('[{"a": 1}', "no `,` or `]`"),
        ('[{"a": 1},', "no valid JSON"),
        ('[{"a": 1}]\n[{"b": 2}]', r"a.json:2: the file goes on behind the closing `]`"),
        ('[{"a": 1}]\n\n, {"b": 2}', r"a.json:3: the file goes on behind the closing `]`"),
        ('[{"a": 1},\n {"b": ' + "1" * 5000 + "}]", r"a.json:2: a whole number with thousands"),
    ],
)
def test_broken_arrays(tmp_path, text, message):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        list(json_array(path, Problems("skip")))


def test_white_space_may_follow_an_array(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[{"a": 1}]\r\n \t\n')
    assert [row for _, row in json_array(path, Problems())] == [{"a": 1}]


def test_bad_utf8_in_an_array_names_its_line(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    rows = [b'{"a": "%d"}' % number for number in range(50)]
    rows[38] = b'{"a": "caf\xe9"}'
    path.write_bytes(b"\xef\xbb\xbf[" + b",\n".join(rows) + b"]")
    for chunk in (7, 100, 1 << 20):
        monkeypatch.setattr(json_rows, "CHUNK_BYTES", chunk)
        with pytest.raises(DataError, match=r"a.json:39: the file cannot be read any further"):
            list(json_array(path, Problems("skip")))


def test_array_skips_other_values(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[1, {"a": 2}, "x", 34]')
    problems = Problems("skip")
    assert [row for _, row in json_array(path, problems)] == [{"a": 2}]
    assert problems.counts == {"not a JSON object": 3}


def test_array_is_streamed(tmp_path):
    path = tmp_path / "a.json"
    row = {"text": "x" * 1000}
    path.write_text("[" + ",\n".join([json.dumps(row)] * 30_000) + "]")
    tracemalloc.start()
    count = sum(1 for _ in json_array(path, Problems()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 30_000
    assert peak < path.stat().st_size / 3


def test_document_errors(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{\n"a": ]')
    with pytest.raises(DataError, match=r"a.json:2: no valid JSON"):
        json_document(path)
    path.write_bytes(b'{\n"a":\n"\xe9"}')
    with pytest.raises(DataError, match=r"a.json:3: the file cannot be read .*UTF-8"):
        json_document(path)
    path.write_text("1" * 5000)
    with pytest.raises(DataError, match=r"a.json: a whole number with thousands of digits"):
        json_document(path)


@settings(max_examples=25, deadline=None)
@given(
    entries=st.dictionaries(st.text(), JSON, max_size=6),
    indent=st.sampled_from([None, 2]),
    escaped=st.booleans(),
    chunk=st.integers(1, 40),
)
def test_entries_equal_json_load_for_any_chunk(array, entries, indent, escaped, chunk):
    array.write_text(json.dumps(entries, indent=indent, ensure_ascii=escaped), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "CHUNK_BYTES", chunk)
        assert {name: value for _, name, value in json_entries(array)} == entries


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "a.json:1: no JSON object"),
        ('{"a": 1,\n"b" 2}', "a.json:2: no `:` after a name"),
        ('{"a": 1\n"b": 2}', "a.json:2: no `,` or `}` after a record"),
        ('{"a": 1,\n2: 3}', "a.json:2: 2 is no name"),
        ('{"a": 1}\n{"b": 2}', "a.json:2: the file goes on behind the closing `}`"),
        ('{"a": 1, "b": ', "a.json:1: no valid JSON"),
    ],
)
def test_broken_entries(tmp_path, text, message):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        list(json_entries(path))


def test_fields():
    row = {"id": 7, "text": "t", "list": ["a"], "mixed": ["a", 1], "flag": True, "none": None}
    assert text_of(row, "missing", "id") == "7"
    assert text_of(row, "none", default="") == ""
    assert texts_of(row, "list") == ("a",)
    assert texts_of(row, "none") == ()
    assert ids_of(row, "mixed") == ("a", "1")
    for bad in (
        lambda: text_of(row, "missing"),
        lambda: text_of(row, "list"),
        lambda: text_of(row, "flag"),
        lambda: texts_of(row, "mixed"),
        lambda: texts_of(row, "text"),
        lambda: ids_of({"a": [True]}, "a"),
        lambda: ids_of({"a": [None]}, "a"),
        lambda: texts_of(row, "missing", required=True),
    ):
        with pytest.raises(BadRow):
            bad()
