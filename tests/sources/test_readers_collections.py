"""Formats that keep passages, queries and judgements in files of their own."""

from __future__ import annotations

from pathlib import Path

import ir_datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from pipeline.sources import parquet_layout
from pipeline.sources.records import DataError

BEIR = {
    "corpus.jsonl": [
        {"_id": "d1", "title": "One", "text": "first text"},
        {"_id": "d2", "text": "second\ttext\nover lines"},
        {"_id": 3, "title": "-", "text": "third"},
    ],
    "queries.jsonl": [
        {"_id": "q1", "text": "one?"},
        {"_id": "q2", "text": "two?"},
        {"_id": "q3", "text": "three?"},
    ],
    "qrels/train.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t2\n",
    "qrels/test.tsv": "query-id\tcorpus-id\tscore\r\nq2\t3\t1\r\n",
}


def test_beir(write, read):
    write(BEIR)
    found = read(format="beir")
    assert found.passages == {
        "d1": ("One", "first text"),
        "d2": ("", "second text over lines"),
        "3": ("", "third"),
    }
    assert found.queries == {"q1": ("one?", "train"), "q2": ("two?", "test")}
    assert found.pairs("qrels") == [("q1", "d1", 1), ("q1", "d2", 2), ("q2", "3", 1)]
    assert found.tables.report.counts["queries in no judgement"] == 1


def test_beir_splits_are_overridable_and_extra_queries_unlabelled(write, read):
    write({**BEIR, "more.jsonl": [{"_id": "u1", "text": "what else?"}]})
    qrels = {"train": "qrels/train.tsv", "dev": "qrels/test.tsv"}
    found = read(format="beir", qrels=qrels, unlabelled_queries="more.jsonl")
    assert found.queries["q2"] == ("two?", "dev")
    assert found.queries["u1"] == ("what else?", "unlabelled")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("corpus.jsonl", [{"_id": "d1", "text": "a"}, {"_id": "d2"}], r"corpus.jsonl:2: no 'text'"),
        ("corpus.jsonl", [{"_id": "d1", "text": ["a"]}], r"corpus.jsonl:1: 'text' is a list"),
        ("qrels/train.tsv", "query-id\tcorpus-id\tscore\nq1\td1\tyes\n", r"train.tsv:2: relevance"),
        ("qrels/train.tsv", "q1\td1\t1\n", r"train.tsv:1: unknown layout.*3 columns"),
        (
            "qrels/test.tsv",
            "query-id\tcorpus-id\tscore\nq1\td1\t1\n",
            r"queries.jsonl:1: query id 'q1' is used before",
        ),
        ("corpus.jsonl", [{"_id": "d 1", "text": "a"}], r"corpus.jsonl:1: .* white space"),
        ("qrels/train.tsv", "q9\t0\td1\t1\n", r"train.tsv:1: judgement of query 'q9'"),
        ("qrels/train.tsv", "q1\t0\td9\t1\n", r"train.tsv:1: judgement of passage 'd9'"),
    ],
)
def test_beir_malformed(write, read, name, content, message):
    write({**BEIR, name: content})
    with pytest.raises(DataError, match=message):
        read(format="beir")


def test_beir_malformed_rows_can_be_left_out(write, read):
    corpus = [*BEIR["corpus.jsonl"], {"_id": "d4"}, {"_id": "d1", "text": "again"}]
    qrels = "query-id\tcorpus-id\tscore\nq1\td1\tyes\nq1\td2\t1\nq1\td9\t1\nq1\n"
    write({**BEIR, "corpus.jsonl": corpus, "qrels/train.tsv": qrels})
    found = read(format="beir", on_problem="skip")
    assert found.problems.counts == {
        "no text": 1,
        "repeated passage id": 1,
        "relevance is no number": 1,
        "judgement of an unknown passage": 1,
        "too few columns": 1,
    }
    assert found.pairs("qrels") == [("q1", "d2", 1), ("q2", "3", 1)]


def test_beir_query_in_two_splits_stays_in_the_evaluated_one(write, read):
    write({**BEIR, "qrels/test.tsv": "query-id\tcorpus-id\tscore\nq1\t3\t1\n"})
    found = read(format="beir", on_problem="skip")
    assert found.queries == {"q1": ("one?", "test")}
    assert found.pairs("qrels") == [("q1", "3", 1)]
    assert found.problems.counts == {"repeated query id": 1, "judgement of another split": 2}


MARCO = {
    "collection.tsv.gz": "0\tfirst text\n1\tsecond text\n2\tthird text\n",
    "queries.train.tsv": "10\tone?\n11\ttwo?\n12\tnobody judged this\n",
    "queries.dev.small.tsv.zst": "20\tthree?\n",
    "qrels.train.tsv": "10\t0\t0\t1\n11\t0\t1\t1\n",
    "qrels.dev.small.tsv": "20 0 2 1\n",
}


def test_msmarco_passage(write, read):
    write({**MARCO, "titles.tsv": "0\tZero\n2\t-\n", "extra.tsv": "10\t1\n10\t0\n"})
    found = read(format="msmarco_passage", titles="titles.tsv", excluded=["extra.tsv"])
    assert found.passages == {
        "0": ("Zero", "first text"),
        "1": ("", "second text"),
        "2": ("", "third text"),
    }
    assert found.queries == {
        "10": ("one?", "train"),
        "11": ("two?", "train"),
        "20": ("three?", "dev"),
    }
    assert found.pairs("qrels") == [("10", "0", 1), ("11", "1", 1), ("20", "2", 1)]
    assert found.pairs("excluded") == [("10", "1")]
    assert found.tables.report.dropped == {
        "queries without a label": 1,
        "excluded passages that are relevant": 1,
    }


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"collection.tsv": "0\ta\tb\n"}, r"collection.tsv:1: 3 columns.*tabs inside texts"),
        ({"collection.tsv": "0 a\n"}, r"collection.tsv:1: 1 of 2 columns"),
        ({"collection.tsv": "0\ta\n1\t \n"}, r"collection.tsv:2: passage '1' has no text"),
        ({"collection.tsv": "\ta\n"}, r"collection.tsv:1: the id is empty"),
        ({"titles.tsv": "1\tA\n0\tB\n"}, r"titles.tsv:2: passage '0' has a title but"),
        ({"titles.tsv": ""}, "nowhere.tsv: no such file"),
        ({"qrels.train.tsv": "10\t0\t0\t1\n10\t0\t0\t2\n"}, r"train.tsv:2: relevance 2, which"),
    ],
)
def test_msmarco_passage_malformed(write, read, files, message):
    write({**MARCO, "titles.tsv": "", **files})
    queries = {"train": "nowhere.tsv"} if files == {"titles.tsv": ""} else {}
    options = {"queries": queries} if queries else {}
    with pytest.raises(DataError, match=message):
        read(format="msmarco_passage", titles="titles.tsv", **options)


def test_msmarco_ids_that_begin_anew_in_each_split(write, read):
    dev = {"queries.dev.small.tsv.zst": "10\tDIFFERENT dev question\n20\tthree?\n"}
    write({**MARCO, **dev})
    with pytest.raises(DataError, match=r"queries.train.tsv:1: query id '10' is used before with"):
        read(format="msmarco_passage")
    found = read(format="msmarco_passage", on_problem="skip")
    assert set(found.queries) == {"11", "20"}
    assert found.pairs("qrels") == [("11", "1", 1), ("20", "2", 1)]
    assert found.tables.report.dropped == {
        "conflicting query id": 2,
        "judgement of another split": 1,
        "queries without a label": 1,
    }
    write({"queries.train.tsv": "11\ttwo?\n"})
    found = read(format="msmarco_passage", on_problem="skip")
    assert found.pairs("qrels") == [("11", "1", 1), ("20", "2", 1)]
    assert found.tables.report.dropped["judgement of another split"] == 1


@pytest.mark.parametrize(
    ("bad", "reason"),
    [(b"1\ta tab\ttoo many\n", "too many columns"), (b"1\tcaf\xe9\n", "not UTF-8")],
)
def test_titles_go_on_behind_a_collection_line_that_is_left_out(write, read, bad, reason):
    del_gz = {name: content for name, content in MARCO.items() if name != "collection.tsv.gz"}
    corpus = b"0\tfirst text\n" + bad + b"2\tthird text\n3\tfourth\n" + bad.replace(b"1", b"4")
    titles = "0\tZero\n1\tOne\n3\tThree\n4\tFour\n"
    write({**del_gz, "collection.tsv": corpus, "titles.tsv": titles})
    found = read(format="msmarco_passage", titles="titles.tsv", on_problem="skip")
    assert found.passages == {
        "0": ("Zero", "first text"),
        "2": ("", "third text"),
        "3": ("Three", "fourth"),
    }
    assert found.problems.counts[reason] == 2
    write({"titles.tsv": titles + "5\tFive\n"})
    with pytest.raises(DataError, match=r"titles.tsv:4: passage '4' has a title but"):
        read(format="msmarco_passage", titles="titles.tsv", on_problem="skip")


def test_the_files_that_were_looked_for_are_named(write, read):
    write({"collection.tsv": "0\tfirst text\n"})
    with pytest.raises(
        DataError, match=r"no usable query .*collection.tsv, .*train.tsv \(missing\)"
    ):
        read(format="msmarco_passage")


def test_msmarco_document(write, read):
    write(
        {
            "msmarco-docs.tsv.gz": "D1\thttp://a\tTitle\tbody text\nD2\thttp://b\tOnly\t\n",
            "msmarco-doctrain-queries.tsv": "1\tone?\n",
            "msmarco-doctrain-qrels.tsv": "1 0 D2 1\n",
        }
    )
    found = read(format="msmarco_document")
    assert found.passages == {"D1": ("Title", "body text"), "D2": ("Only", "")}
    assert found.pairs("qrels") == [("1", "D2", 1)]
    write({"msmarco-docs.tsv.gz": "D1\thttp://a\tbody text\n"})
    with pytest.raises(DataError, match=r"tsv.gz:1: 3 of 4 columns"):
        read(format="msmarco_document")


def test_rocketqa(write, read):
    write(
        {
            "para.txt": "0\tfirst\n1\tsecond\n",
            "para.title.txt": "0\tZero\n1\t-\n",
            "train.query.txt": "7\tone?\n",
            "qrels.train.tsv": "7\t0\n",
            "test.query.txt": "8\ttwo?\n",
            "test.answers.txt": "8\tan answer\tanother\t\n",
            "web.query.txt": "u1\tfree?\n",
        }
    )
    found = read(format="rocketqa", unlabelled_queries=["web.query.txt"])
    assert found.passages == {"0": ("Zero", "first"), "1": ("", "second")}
    assert found.queries == {
        "7": ("one?", "train"),
        "8": ("two?", "test"),
        "u1": ("free?", "unlabelled"),
    }
    assert found.answers == {"8": ["an answer", "another"]}
    assert found.pairs("qrels") == [("7", "0", 1)]
    write({"test.answers.txt": "9\tx\n"})
    with pytest.raises(DataError, match=r"answers.txt:1: answers of query '9'"):
        read(format="rocketqa")


CORPUS = pa.table({"passage_id": ["a", "b"], "title": ["A", None], "text": ["one", "two"]})
QUERIES = pa.table({"query_id": ["q"], "text": ["ask"]})
QRELS = pa.table({"query_id": ["q"], "passage_id": ["b"], "relevance": pa.array([3], pa.int32())})


@pytest.fixture
def parquet(tmp_path: Path):
    def write(**tables: pa.Table) -> None:
        for name, table in tables.items():
            pq.write_table(table, tmp_path / f"{name}.parquet", compression="zstd")

    write(corpus=CORPUS, train_queries=QUERIES, train_qrels=QRELS)
    return write


def test_parquet(parquet, read):
    parquet(
        unlabelled_queries=pa.table({"query_id": ["u"], "text": ["free"]}),
        outside_queries=pa.table({"query_id": ["o"], "text": ["far"]}),
        train_answers=pa.table({"query_id": ["q"], "answers": [["x", "x", " y"]]}),
    )
    unlabelled = ["unlabelled_queries.parquet", "outside_queries.parquet"]
    found = read(format="parquet", unlabelled_queries=unlabelled)
    assert found.passages == {"a": ("A", "one"), "b": ("", "two")}
    assert found.queries == {
        "q": ("ask", "train"),
        "u": ("free", "unlabelled"),
        "o": ("far", "unlabelled"),
    }
    assert found.pairs("qrels") == [("q", "b", 3)]
    assert found.answers == {"q": ["x", "y"]}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (CORPUS.drop_columns(["text"]), r"no column 'text' \(found: passage_id, title\)"),
        (
            CORPUS.set_column(0, "passage_id", pa.array([1, 2])),
            "column 'passage_id' is int64, wanted text",
        ),
        (
            CORPUS.set_column(2, "text", pa.array(["one", None])),
            r"corpus.parquet:2: text is null",
        ),
        (
            CORPUS.set_column(0, "passage_id", pa.array(["a", "a"])),
            r"corpus.parquet:2: passage id 'a' is used before",
        ),
    ],
)
def test_parquet_malformed(parquet, read, table, message):
    parquet(corpus=table)
    with pytest.raises(DataError, match=message):
        read(format="parquet")


@pytest.mark.parametrize("relevance", [2**31, 2**32, 2**32 - 1, -(2**31) - 1])
def test_parquet_relevance_out_of_range(parquet, read, relevance):
    qrels = pa.table({"query_id": ["q"], "passage_id": ["a"], "relevance": [relevance]})
    parquet(train_qrels=pa.concat_tables([QRELS.cast(qrels.schema), qrels]))
    with pytest.raises(DataError, match=rf"train_qrels.parquet:2: relevance is {relevance}"):
        read(format="parquet")
    found = read(format="parquet", on_problem="skip")
    assert found.pairs("qrels") == [("q", "b", 3)]
    assert found.problems.counts == {"relevance is out of range": 1}


@pytest.mark.parametrize(
    "kind", [pa.string_view(), pa.dictionary(pa.int32(), pa.string()), pa.large_string()]
)
def test_parquet_kinds_of_text(parquet, read, kind):
    parquet(corpus=pa.table({name: CORPUS[name].cast(kind) for name in CORPUS.column_names}))
    assert read(format="parquet").passages == {"a": ("A", "one"), "b": ("", "two")}


def test_parquet_titles_that_are_all_missing(parquet, read):
    parquet(corpus=CORPUS.set_column(1, "title", pa.nulls(2)))
    assert read(format="parquet").passages == {"a": ("", "one"), "b": ("", "two")}
    parquet(corpus=CORPUS.set_column(2, "text", pa.nulls(2)))
    with pytest.raises(DataError, match=r"corpus.parquet:1: text is null"):
        read(format="parquet")


def test_parquet_rows_that_are_not_utf8(parquet, read, monkeypatch):
    monkeypatch.setattr(parquet_layout, "BATCH_ROWS", 2)
    texts = [b"one", b"two", b"three", b"caf\xe9", b"five"]
    # Only a cast between texts is checked, so the bad one gets past as raw buffers.
    binary = pa.array(texts, pa.binary())
    text = pa.Array.from_buffers(pa.string(), len(texts), binary.buffers())
    parquet(corpus=pa.table({"passage_id": ["a", "b", "c", "d", "e"], "text": text}))
    with pytest.raises(DataError, match=r"corpus.parquet:4: a text is not UTF-8 .*0xe9"):
        read(format="parquet")
    found = read(format="parquet", on_problem="skip")
    assert [text for _, text in found.passages.values()] == ["one", "two", "three", "five"]
    assert found.problems.counts == {"not UTF-8": 1}


def test_parquet_title_column_may_be_missing(parquet, read):
    parquet(corpus=CORPUS.drop_columns(["title"]))
    assert read(format="parquet").passages["a"] == ("", "one")


def test_parquet_damaged_file(parquet, read, tmp_path):
    data = (tmp_path / "corpus.parquet").read_bytes()
    (tmp_path / "corpus.parquet").write_bytes(data[:-20])
    with pytest.raises(DataError, match=r"corpus.parquet: the file cannot be read"):
        read(format="parquet", on_problem="skip")


QRELS_FILE = "1 0 d1 2\n1 0 d2 0\n"


@pytest.mark.parametrize(
    ("layout", "corpus"),
    [
        (
            "jsonl",
            '{"id": "d1", "contents": "one"}\n{"docid": "d2", "text": "two", "title": "T"}\n',
        ),
        ("tsv", "d1\tone\nd2\tT\ttwo\n"),
        (
            "sgml",
            "<DOC>\n<DOCNO> d1 </DOCNO>\n<TEXT>\none\n</TEXT>\n</DOC>\n\n"
            "<DOC>\n<DOCNO>d2</DOCNO>\n<HEADLINE>\nT\n</HEADLINE>\n"
            "<TEXT><P>two</P></TEXT>\n</DOC>\n",
        ),
        (
            "sgml",
            "<!-- two documents -->\n<DOC>\n<DOCNO>d1</DOCNO>\n<TEXT>one</TEXT></DOC><DOC id=2>\n"
            "<DOCNO>d2</DOCNO><HEADLINE><P>T</P></HEADLINE><TEXT part=1>two\n</DOC>",
        ),
    ],
)
def test_trec_corpora(write, read, layout, corpus):
    write({"corpus": corpus, "topics": "1\task\n", "qrels": QRELS_FILE})
    found = read(
        format="trec",
        corpus="corpus",
        corpus_layout=layout,
        topics={"dev": "topics"},
        qrels={"dev": "qrels"},
    )
    assert found.passages == {"d1": ("", "one"), "d2": ("T", "two")}
    assert found.pairs("qrels") == [("1", "d1", 2), ("1", "d2", 0)]


@pytest.mark.parametrize(
    "topics",
    [
        "301\tinternational crime\n302\ta & b\n",
        "<top>\n\n<num> Number: 301\n<title> international\ncrime\n\n"
        "<desc> Description:\nIt <b>is\n"
        "</top>\n<top>\n<num> Number: 302 <title> a &amp; b\n<narr> none\n</top>\n",
        "<?xml version='1.0'?>\n<topics>\n"
        "<top>\n<num>301</num>\n<title>international<br>crime</title>\n</top><top id='2'>\n"
        "<num>302</num><title>a &amp; b</title></top></topics>\n",
        "<top><num> 301 <title> international<b>crime</b>\n<desc> x\n</top>"
        "<top><num> 302 <title lang='en'> a &amp; b\n</top>",
        "<top>\n<num>301</num>\n<title>international crime</title>\n</top>\n"
        "<top><num>302</num><title>a &amp; b</title></top>\n",
    ],
)
def test_trec_topics_and_runs(write, read, topics):
    run = "301 Q0 d1 1 9.0 bm25\n301 Q0 d2 2 8.0 bm25\n301 Q0 d3 3 7.0 bm25\n"
    corpus = [{"id": f"d{number}", "contents": "text"} for number in (1, 2, 3)]
    write({"corpus": corpus, "topics": topics, "qrels": "301 0 d1 1\n302 0 d2 1\n", "run": run})
    found = read(
        format="trec",
        corpus=["corpus"],
        topics={"train": "topics"},
        qrels={"train": "qrels"},
        runs={"train": "run"},
        run_depth=2,
    )
    assert found.queries == {"301": ("international crime", "train"), "302": ("a & b", "train")}
    assert found.pairs("negatives") == [("301", "d2")]
    assert found.tables.report.dropped == {"negatives that are relevant": 1}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"topics": "<top>\n<num> Number: 1\n</top>\n"}, r"topics:1: <top> without <title>"),
        ({"topics": "<top>\n<num> 1 <title> a\n"}, r"topics:1: <top> without </top>"),
        ({"corpus": "<DOC>\n<TEXT>a</TEXT>\n</DOC>\n"}, r"corpus:1: <DOC> without <DOCNO>"),
        (
            {"corpus": "<DOC>\n<DOCNO>d1</DOCNO><TEXT>a</TEXT>\n</DOC>\n<DOCNO>d2</DOCNO> lost\n"},
            r"corpus:4: '<DOCNO>d2</DOCNO> lost' stands outside <DOC>",
        ),
        ({"corpus": "<DOC>\n<DOCNO>d1</DOCNO>\n</DOC></DOC>\n"}, r"corpus:3: '</DOC>' stands"),
        ({"run": "1 Q0 d1 first 9.0 x\n"}, r"run:1: rank is 'first'"),
        ({"run": "1 d1 1 9.0\n"}, r"run:1: 4 of 6 columns"),
        ({"run": "1 Q0 d7 1 9.0 x\n"}, r"run:1: negative of passage 'd7'"),
    ],
)
def test_trec_malformed(write, read, files, message):
    good = {
        "corpus": "<DOC>\n<DOCNO>d1</DOCNO><TEXT>a</TEXT>\n</DOC>\n",
        "topics": "1\task\n",
        "qrels": "1 0 d1 1\n",
        "run": "",
    }
    write({**good, **files})
    with pytest.raises(DataError, match=message):
        read(
            format="trec",
            corpus="corpus",
            corpus_layout="sgml",
            topics={"train": "topics"},
            qrels={"train": "qrels"},
            runs={"train": "run"},
        )


def test_trec_records_with_bad_lines_are_left_out_whole(write, read):
    def record(number: int, line: bytes) -> bytes:
        return b"<DOC>\n<DOCNO>d%d</DOCNO>\n<TEXT>a\n%sb\n</TEXT>\n</DOC>\n" % (number, line)

    corpus = [
        record(1, b""),
        record(2, b"caf\xe9\n"),
        record(3, b"\xe9</TEXT></DOC>\n"),
        record(4, b""),
    ]
    corpus[2] = corpus[2].split(b"b\n")[0]
    write({"corpus": b"".join(corpus), "topics": "1\task\n", "qrels": "1 0 d1 1\n1 0 d2 1\n"})
    found = read(
        format="trec",
        corpus="corpus",
        corpus_layout="sgml",
        topics={"train": "topics"},
        qrels={"train": "qrels"},
        on_problem="skip",
    )
    assert found.passages == {"d1": ("", "a b"), "d4": ("", "a b")}
    assert found.problems.counts == {"not UTF-8": 2, "judgement of an unknown passage": 1}


def register(name: str, folder: Path) -> None:
    """Make a set of `ir_datasets` of the files `d`, `q` and `r`."""
    made = ir_datasets.create_dataset(
        docs_tsv=str(folder / "d"), queries_tsv=str(folder / "q"), qrels_trec=str(folder / "r")
    )
    ir_datasets.registry.register(name, made)


def test_ir_datasets_registered_id(write, read):
    folder = write({"d": "d1\tone\nd2\ttwo\n", "q": "1\task\n", "r": "1 0 d2 1\n"})
    name = "rocketqa-test-set"
    if name not in ir_datasets.registry:
        register(name, folder)
    found = read(format="ir_datasets", splits={"dev": name})
    assert found.passages == {"d1": ("", "one"), "d2": ("", "two")}
    assert found.queries == {"1": ("ask", "dev")}
    assert found.pairs("qrels") == [("1", "d2", 1)]
    with pytest.raises(DataError, match="no such id in ir_datasets"):
        read(format="ir_datasets", splits={"dev": "no-such-set"})


def test_ir_datasets_query_in_two_splits_stays_in_the_evaluated_one(write, read):
    folder = write(
        {
            **{"a/d": "d1\tone\nd2\ttwo\n", "b/d": "d1\tone\nd2\ttwo\n"},
            **{"a/q": "1\task\n2\tmore\n", "b/q": "1\task\n"},
            **{"a/r": "1 0 d1 1\n2 0 d1 1\n", "b/r": "1 0 d2 1\n"},
        }
    )
    splits = {}
    for split, part in (("train", "a"), ("dev", "b")):
        splits[split] = f"rocketqa-two-splits-{part}-{folder.name}"
        register(splits[split], folder / part)
    found = read(format="ir_datasets", splits=splits, on_problem="skip")
    assert found.queries == {"2": ("more", "train"), "1": ("ask", "dev")}
    assert found.pairs("qrels") == [("2", "d1", 1), ("1", "d2", 1)]


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("qrels", {"r": "1 0 d1 1\n1 0 d2 x\n"}, ":2: ir_datasets cannot read the qrels"),
        ("qrels-columns", {"r": "1 0 d1 1\n1 d2\n"}, ":2: ir_datasets cannot read the qrels"),
        ("relevance", {"r": "1 0 d1 1\n1 0 d2 4294967296\n"}, ":2: relevance is 4294967296"),
        ("docs", {"d": b"d1\tone\nd2\tcaf\xe9\n"}, ": ir_datasets cannot read the docs .*utf-8"),
    ],
)
def test_ir_datasets_that_cannot_be_read(write, read, name, files, message):
    folder = write({"d": "d1\tone\nd2\ttwo\n", "q": "1\task\n", "r": "1 0 d2 1\n", **files})
    name = f"rocketqa-broken-{name}-{folder.name}"
    register(name, folder)
    with pytest.raises(DataError, match=f"{name}(:1)?{message}"):
        read(format="ir_datasets", splits={"dev": name})


def test_ir_datasets_needs_a_split(read):
    with pytest.raises(ValidationError, match="splits"):
        read(format="ir_datasets", splits={}, documents="beir/scifact")
