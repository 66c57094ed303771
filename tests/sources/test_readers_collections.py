"""Formats that keep passages, queries and judgements in files of their own."""

from __future__ import annotations

from pathlib import Path

import ir_datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

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
    assert found.problems.counts == {"repeated query id": 1}


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


def test_ir_datasets_registered_id(write, read):
    folder = write({"d": "d1\tone\nd2\ttwo\n", "q": "1\task\n", "r": "1 0 d2 1\n"})
    name = "rocketqa-test-set"
    if name not in ir_datasets.registry:
        ir_datasets.registry.register(
            name,
            ir_datasets.create_dataset(
                docs_tsv=str(folder / "d"),
                queries_tsv=str(folder / "q"),
                qrels_trec=str(folder / "r"),
            ),
        )
    found = read(format="ir_datasets", splits={"dev": name})
    assert found.passages == {"d1": ("", "one"), "d2": ("", "two")}
    assert found.queries == {"1": ("ask", "dev")}
    assert found.pairs("qrels") == [("1", "d2", 1)]
    with pytest.raises(DataError, match="no such id in ir_datasets"):
        read(format="ir_datasets", splits={"dev": "no-such-set"})
