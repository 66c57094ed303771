from __future__ import annotations

import gzip
import os

import pytest
import zstandard

from pipeline.sources.lines import BadRow, all_lines, integer, lines, tsv
from pipeline.sources.records import DataError, Problems

TEXT = "one\ntwo äöü\r\n\nfour\n"


def texts(path, **options):
    return [(where.line, text) for where, text in lines(path, Problems(), **options)]


@pytest.mark.parametrize(
    "pack",
    [
        lambda data: data,
        gzip.compress,
        zstandard.ZstdCompressor().compress,
        lambda data: gzip.compress(data[:5]) + gzip.compress(data[5:]),
        lambda data: (
            zstandard.ZstdCompressor().compress(data[:5])
            + zstandard.ZstdCompressor().compress(data[5:])
        ),
    ],
    ids=["plain", "gzip", "zstd", "gzip in members", "zstd in frames"],
)
def test_compression_is_recognised_whatever_the_name(tmp_path, pack):
    path = tmp_path / "corpus.tsv"
    path.write_bytes(pack(TEXT.encode()))
    assert texts(path) == [(1, "one"), (2, "two äöü"), (4, "four")]


def test_byte_order_mark_windows_ends_and_missing_last_end(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\rhalf\r\n\r\nlast")
    assert texts(path) == [(1, "one"), (2, "two\rhalf"), (4, "last")]


def test_empty_file_has_no_lines(tmp_path):
    (tmp_path / "a").touch()
    assert texts(tmp_path / "a") == []


def test_bad_utf8_names_line_and_byte_or_is_counted(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"good\nca\xe9 au lait\nend\n")
    with pytest.raises(DataError, match=r"a:2: byte 3 of the line \(0xe9\) is not UTF-8.*iconv"):
        texts(path)
    problems = Problems("skip")
    assert [text for _, text in lines(path, problems)] == ["good", "end"]
    assert problems.counts == {"not UTF-8": 1}


def test_utf16_is_named(tmp_path):
    (tmp_path / "a").write_bytes("text\n".encode("utf-16"))
    with pytest.raises(DataError, match="UTF-16"):
        texts(tmp_path / "a")


def test_long_lines_pass_up_to_the_bound(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10 + b"\r\n" + b"y" * 11 + b"\n" + b"z" * 100_000 + b"\nend\n")
    problems = Problems("skip")
    found = [(where.line, text) for where, text in lines(path, problems, max_line_bytes=10)]
    assert found == [(1, "x" * 10), (4, "end")]
    assert problems.counts == {"line too long": 2}
    with pytest.raises(DataError, match="a:2: the line is longer than 10 bytes"):
        texts(path, max_line_bytes=10)


def test_all_lines_keeps_the_place_of_bad_ones(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"one\n\xff\n\nfour\n\n")
    found = [text for _, text in all_lines(path, Problems("skip"))]
    assert found == ["one", None, "", "four", ""]


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.ZstdCompressor().compress])
def test_cut_off_files_fail_even_when_skipping(tmp_path, compress):
    path = tmp_path / "a"
    path.write_bytes(compress(os.urandom(50_000).hex().encode())[:20_000])
    with pytest.raises(DataError, match="cut off or damaged"):
        list(lines(path, Problems("skip")))


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such file"):
        texts(tmp_path / "nowhere")


def test_columns_are_exact(tmp_path):
    path = tmp_path / "a"
    path.write_text("1\tone\n2\ttwo\ttabbed\n3\n4\t\n")
    problems = Problems("skip")
    assert [row for _, row in tsv(path, ["id", "text"], problems)] == [["1", "one"], ["4", ""]]
    assert problems.counts == {"too many columns": 1, "too few columns": 1}
    with pytest.raises(DataError, match=r"a:2: 3 columns instead of 2 columns \(id, text\)"):
        list(tsv(path, ["id", "text"], Problems()))


def test_integers_are_plain_and_fit_into_32_bits():
    for text, value in (("0", 0), ("-1", -1), ("2147483647", 2**31 - 1), (" 7", 7), ("007", 7)):
        assert integer(text, "relevance") == value
    for text in ("", "1_0", "1.0", "+1", "٣", "9" * 5000, "one"):
        with pytest.raises(BadRow, match="relevance is"):
            integer(text, "relevance")
    for text in ("2147483648", "4294967296", "-2147483649", "99999999999999999999"):
        with pytest.raises(BadRow) as caught:
            integer(text, "relevance")
        assert caught.value.reason == "relevance is out of range"
