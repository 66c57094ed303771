"""Formats whose records hold a query together with its passages."""

from __future__ import annotations

import csv
import gzip
import json

import pytest

from pipeline.sources.content import passage_id_of, query_id_of
from pipeline.sources.records import DataError

DUAL = (
    "one?\tT\tgood text\t-\tbad text\t0\n"
    "one?\tT\tgood text\t-\tworse text\t0\n"
    "two?\t-\tother text\tT\tgood text\t0\n"
)


def test_rocketqa_lines_without_a_corpus(write, read):
    write({"de.tsv": DUAL, "ce.tsv": "three?\t\tbad text\t1\nthree?\tT\tgood text\t0\n"})
    found = read(format="rocketqa_lines", dual={"train": "de.tsv"}, cross={"dev": "ce.tsv"})
    good, bad = passage_id_of("T", "good text"), passage_id_of("-", "bad text")
    worse, other = passage_id_of("", "worse text"), passage_id_of("", "other text")
    assert found.passages == {
        good: ("T", "good text"),
        bad: ("", "bad text"),
        worse: ("", "worse text"),
        other: ("", "other text"),
    }
    one, two, three = map(query_id_of, ("one?", "two?", "three?"))
    assert found.queries == {
        one: ("one?", "train"),
        two: ("two?", "train"),
        three: ("three?", "dev"),
    }
    assert found.pairs("qrels") == [(one, good, 1), (two, other, 1), (three, bad, 1)]
    assert found.pairs("negatives") == [(one, bad), (one, worse), (two, good), (three, good)]


def test_rocketqa_lines_are_found_in_a_corpus(write, read):
    corpus = "0\tunused\n1\tgood text\n2\tbad text\n3\tworse text\n4\tother text\n5\tbad text\n"
    write({"de.tsv.gz": DUAL, "para.txt": corpus, "para.title.txt": "1\tT\n"})
    options = {
        "format": "rocketqa_lines",
        "corpus": "para.txt",
        "titles": "para.title.txt",
        "dual": {"train": ["de.tsv"]},
    }
    found = read(**options)
    one, two = map(query_id_of, ("one?", "two?"))
    assert len(found.passages) == 6
    assert found.pairs("qrels") == [(one, "1", 1), (two, "4", 1)]
    assert found.pairs("negatives") == [(one, "2"), (one, "3"), (two, "1")]

    write({"para.txt": corpus.replace("other text", "another text")})
    with pytest.raises(
        DataError, match=r"de.tsv.gz:3: no passage of the corpus reads 'other text'"
    ):
        read(**options)
    found = read(**options, on_problem="skip")
    assert found.problems.counts == {"passage not in the corpus": 1}
    assert found.tables.report.dropped["queries without a label"] == 1


def test_rocketqa_lines_query_in_two_splits_stays_in_the_evaluated_one(write, read):
    write({"de.tsv": DUAL, "ce.tsv": "one?\tT\tgood text\t1\n"})
    files = {"dual": {"train": "de.tsv"}, "cross": {"dev": "ce.tsv"}}
    found = read(format="rocketqa_lines", **files, on_problem="skip")
    one, two = map(query_id_of, ("one?", "two?"))
    assert found.queries == {two: ("two?", "train"), one: ("one?", "dev")}
    good, other = passage_id_of("T", "good text"), passage_id_of("", "other text")
    assert found.pairs("qrels") == [(two, other, 1), (one, good, 1)]
    assert found.problems.counts == {
        "repeated query id": 1,
        "judgement of another split": 2,
        "negative of another split": 2,
    }


@pytest.mark.parametrize(
    ("dual", "cross", "message"),
    [
        ("a\tb\tc\t0\n", "", r"de.tsv:1: 4 of 6 columns \(query, title of a positive"),
        ("", "a\tb\tc\t2\n", r"ce.tsv:1: label is '2'"),
        ("one?\tT\ta\tT\tb\t0\n", "one?\tT\ta\t1\n", r"de.tsv:1: query 'one\?' is used before;"),
    ],
)
def test_rocketqa_lines_malformed(write, read, dual, cross, message):
    write({"de.tsv": dual, "ce.tsv": cross})
    with pytest.raises(DataError, match=message):
        read(format="rocketqa_lines", dual={"train": "de.tsv"}, cross={"dev": "ce.tsv"})


WIKIPEDIA = (
    "id\ttext\ttitle\n"
    '1\t"He said ""yes"" then"\tAlpha\n'
    "2\tplain text\tBeta\n"
    '3\t"a tab\there"\t"The ""C"""\n'
)


def dpr_example(question: str, positives: list[str], negatives: list[str]) -> dict[str, object]:
    def contexts(ids: list[str]) -> list[dict[str, str]]:
        return [{"title": f"T{one}", "text": f"text {one}", "psg_id": one} for one in ids]

    return {
        "question": question,
        "answers": ["yes"],
        "positive_ctxs": contexts(positives),
        "negative_ctxs": [],
        "hard_negative_ctxs": contexts(negatives),
    }


def test_dpr(write, read):
    examples = [dpr_example("one?", ["1", "3"], ["2", "3"]), dpr_example("two?", ["2"], [])]
    write(
        {
            "psgs_w100.tsv.gz": WIKIPEDIA,
            "nq-train.json": json.dumps(examples, indent=2),
            "nq-test.csv": 'who is it?\t["It\'s me", \'I\']\nsaid ""what""?\t[]\n',
        }
    )
    found = read(format="dpr")
    assert found.passages == {
        "1": ("Alpha", 'He said "yes" then'),
        "2": ("Beta", "plain text"),
        "3": ('The "C"', "a tab here"),
    }
    one, two, who = map(query_id_of, ("one?", "two?", "who is it?"))
    assert found.pairs("qrels") == [(one, "1", 1), (one, "3", 1), (two, "2", 1)]
    assert found.pairs("negatives") == [(one, "2")]
    assert found.answers == {one: ["yes"], two: ["yes"], who: ["It's me", "I"]}

    first = read(format="dpr", positives="first")
    assert first.pairs("qrels") == [(one, "1", 1), (two, "2", 1)]
    assert first.pairs("excluded") == [(one, "3")]


def test_dpr_without_a_corpus(write, read):
    write({"nq-train.json": json.dumps([dpr_example("one?", ["1"], ["2"])])})
    found = read(format="dpr", corpus=None)
    assert found.passages == {"1": ("T1", "text 1"), "2": ("T2", "text 2")}


def test_dpr_question_in_two_splits_stays_in_the_evaluated_one(write, read):
    examples = [dpr_example("one?", ["1"], []), dpr_example("two?", ["2"], [])]
    write(
        {
            "psgs_w100.tsv": WIKIPEDIA,
            "nq-train.json": json.dumps(examples),
            "nq-test.csv": 'one?\t["no"]\n',
        }
    )
    found = read(format="dpr", on_problem="skip")
    one, two = map(query_id_of, ("one?", "two?"))
    assert found.queries == {two: ("two?", "train"), one: ("one?", "test")}
    assert found.pairs("qrels") == [(two, "2", 1)]
    assert found.answers == {two: ["yes"], one: ["no"]}


def test_dpr_context_ids_with_two_texts(write, read):
    examples = [dpr_example("one?", ["1"], ["2"]), dpr_example("two?", ["1", "3"], ["2"])]
    examples[1]["positive_ctxs"][0]["text"] = "another text"
    write({"nq-train.json": json.dumps(examples, indent=1)})
    with pytest.raises(
        DataError, match=r"train.json:\d+: passage id '1' is used before with another"
    ):
        read(format="dpr", corpus=None)
    found = read(format="dpr", corpus=None, on_problem="skip")
    assert found.pairs("qrels") == [(query_id_of("two?"), "3", 1)]
    excluded = [(query_id_of(text), "1") for text in ("one?", "two?")]
    assert sorted(found.pairs("excluded")) == sorted(excluded)
    assert found.problems.counts == {"repeated passage id": 1}


def test_dpr_texts_beyond_the_limit_of_the_csv_module(write, read):
    long = "many words " * 20_000
    write(
        {
            "psgs_w100.tsv": f'id\ttext\ttitle\n1\t"He said ""yes"" {long}"\tAlpha\n',
            "nq-train.json": json.dumps([dpr_example("one?", ["1"], [])]),
        }
    )
    limit = csv.field_size_limit()
    assert read(format="dpr").passages["1"] == ("Alpha", f'He said "yes" {long}'.strip())
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"psgs_w100.tsv": WIKIPEDIA.split("\n", 1)[1]}, r"psgs_w100.tsv:1: the header is"),
        ({"psgs_w100.tsv": "id\ttext\ttitle\n1\ta\n"}, r"psgs_w100.tsv:2: 2 of 3 columns"),
        ({"nq-train.json": "{}"}, "no JSON array"),
        ({"nq-train.json": '[\n{"answers": []}]'}, r"nq-train.json:2: no 'question'"),
        (
            {"nq-train.json": '[{"question": "a", "positive_ctxs": [{"text": "b"}]}]'},
            "no 'passage_id' or 'psg_id'",
        ),
        (
            {"nq-train.json": json.dumps([dpr_example("b", ["9"], [])])},
            "judgement of passage '9'",
        ),
        ({"nq-test.csv": "a\tb\n"}, r"nq-test.csv:1: answers are 'b'"),
        ({"nq-test.csv": "a\t__import__('os')\n"}, r"nq-test.csv:1: answers are"),
        ({"nq-test.csv": "a\n"}, r"nq-test.csv:1: 1 of 2 columns"),
    ],
)
def test_dpr_malformed(write, read, files, message):
    good = {"psgs_w100.tsv": WIKIPEDIA, "nq-train.json": "[]", "nq-test.csv": "a\t[]\n"}
    write({**good, **files})
    with pytest.raises(DataError, match=message):
        read(format="dpr")


DUREADER = {
    "passage-collection/part-00": "-\t-\t第一 段\t0\n-\t-\t第二 段\t0\n",
    "passage-collection/part-01": "-\t标题\t第三 段\t0\n-\t-\t第四段\t0\n",
    "passage-collection/passage2id.map.json": json.dumps(
        {"0": "aa", "1": "bb", "2": "cc", "3": "dd"}
    ),
    "train/dual.train.tsv": "问题 一\t-\t第一段\t标题\t第三 段\t0\n",
    "dev/dev.json": [
        {
            "question_id": "q1",
            "question": "问 题",
            "answer_paragraphs": [{"paragraph_id": "dd", "paragraph_text": "第四段"}],
        }
    ],
}


PARTS = [name for name in DUREADER if "part-" in name]


def test_dureader(write, read):
    write(DUREADER)
    found = read(format="dureader", corpus=PARTS)
    assert found.passages == {
        "aa": ("", "第一段"),
        "bb": ("", "第二段"),
        "cc": ("标题", "第三段"),
        "dd": ("", "第四段"),
    }
    train = query_id_of("问题一")
    assert found.queries == {train: ("问题一", "train"), "q1": ("问题", "dev")}
    assert found.pairs("qrels") == [(train, "aa", 1), ("q1", "dd", 1)]
    assert found.pairs("negatives") == [(train, "cc")]


def test_dureader_left_out_lines_keep_their_number(write, read):
    write({**DUREADER, "passage-collection/part-00": b"-\t-\t\xe7\xac\xac\xe4\xb8\x80\t0\n\xff\n"})
    found = read(format="dureader", corpus=PARTS, on_problem="skip")
    assert found.passages["cc"] == ("标题", "第三段")
    assert found.problems.counts == {"not UTF-8": 1, "passage not in the corpus": 1}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("passage-collection/part-01", "-\t段\t0\n", r"part-01:1: 3 of 4 columns"),
        (
            "passage-collection/passage2id.map.json",
            '{"0": "aa", "1": "bb", "2": "cc"}',
            r"map.json: no id for line 3 of the collection \(.*part-01:2\)",
        ),
        ("passage-collection/part-01", "-\t-\t段\t0\n", "has an id for line 3, but the parts end"),
        (
            "passage-collection/passage2id.map.json",
            '{"1": "bb", "0": "aa", "2": "cc", "3": "dd"}',
            "no id for line 0",
        ),
        ("dev/dev.json", [{"question_id": "q", "question": "a"}], "no 'answer_paragraphs'"),
        (
            "passage-collection/passage2id.map.json",
            '{"0": "aa",\n"1": 17}',
            r"map.json:2: the id of line 1 is a int",
        ),
        (
            "passage-collection/passage2id.map.json",
            '{"0": "aa",\n"one": "bb"}',
            r"map.json:2: 'one' is no line number",
        ),
        (
            "passage-collection/passage2id.map.json",
            b'{"0": "aa",\n"1": "\xff"}',
            r"map.json:2: the file cannot be read any further",
        ),
        (
            "passage-collection/passage2id.map.json",
            gzip.compress(DUREADER["passage-collection/passage2id.map.json"].encode())[:-9],
            r"map.json:1: the file cannot be read any further",
        ),
    ],
)
def test_dureader_malformed(write, read, name, content, message):
    write({**DUREADER, name: content})
    with pytest.raises(DataError, match=message):
        read(format="dureader", corpus=PARTS)


def test_dureader_map_with_escapes(write, read):
    ids = '{"0": "\\u0061a", "1": "b\\/b", "2": "c\\"c", "3": "dd"}'
    write({**DUREADER, "passage-collection/passage2id.map.json": ids})
    assert list(read(format="dureader", corpus=PARTS).passages) == ["aa", "b/b", 'c"c', "dd"]


def test_tevatron_version_1(write, read):
    row = {
        "query_id": "q1",
        "query": "one?",
        "positive_passages": [{"docid": "a", "title": "A", "text": "good"}],
        "negative_passages": [{"docid": "b", "text": "bad"}],
    }
    write({"train.jsonl": [row, {**row, "query_id": "q2", "query": "two?"}]})
    found = read(format="tevatron")
    assert found.passages == {"a": ("A", "good"), "b": ("", "bad")}
    assert found.pairs("qrels") == [("q1", "a", 1), ("q2", "a", 1)]
    assert found.pairs("negatives") == [("q1", "b"), ("q2", "b")]


def test_tevatron_version_2(write, read):
    row = {
        "query_id": 1,
        "query_text": "one?",
        "query_image": None,
        "positive_document_ids": ["a"],
        "negative_document_ids": ["b"],
    }
    write(
        {
            "train.jsonl": [row],
            "corpus.jsonl": [
                {"docid": "a", "document_text": "good", "document_image": None},
                {"docid": "b", "document_text": "bad"},
                {"docid": "c", "title": "C", "text": "unused"},
            ],
        }
    )
    found = read(format="tevatron", corpus="corpus.jsonl")
    assert found.passages == {"a": ("", "good"), "b": ("", "bad"), "c": ("C", "unused")}
    assert found.pairs("qrels") == [("1", "a", 1)]
    assert found.pairs("negatives") == [("1", "b")]
    with pytest.raises(DataError, match=r"train.jsonl:1: 'positive_document_ids' name documents"):
        read(format="tevatron")


def test_tevatron_ids_may_be_numbers(write, read):
    row = {"query_id": 1, "query_text": "one?", "positive_document_ids": [7]}
    write({"train.jsonl": [row], "corpus.jsonl": [{"docid": 7, "text": "good"}]})
    assert read(format="tevatron", corpus="corpus.jsonl").pairs("qrels") == [("1", "7", 1)]
    write({"train.jsonl": [{**row, "positive_document_ids": [7.0]}]})
    with pytest.raises(DataError, match=r"train.jsonl:1: 'positive_document_ids' is a float"):
        read(format="tevatron", corpus="corpus.jsonl")


def test_tevatron_id_of_two_queries(write, read):
    def row(query: str, docid: str) -> dict[str, object]:
        passage = {"docid": docid, "title": "", "text": f"text {docid}"}
        return {"query_id": "q1", "query": query, "positive_passages": [passage]}

    write({"train.jsonl": [row("one?", "a")], "dev.jsonl": [row("one?", "b")]})
    found = read(format="tevatron", on_problem="skip")
    assert found.queries == {"q1": ("one?", "dev")}
    assert found.pairs("qrels") == [("q1", "b", 1)]
    other = {**row("two?", "c"), "query_id": "q2"}
    write({"dev.jsonl": [row("another?", "b"), other]})
    found = read(format="tevatron", on_problem="skip")
    assert found.queries == {"q2": ("two?", "dev")}
    assert found.pairs("qrels") == [("q2", "c", 1)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "a"}, "no 'query_id'"),
        ({"query_id": "a"}, "no 'query' or 'query_text'"),
        ({"query_id": "a", "query": "b", "positive_passages": {}}, "is a dict"),
        ({"query_id": "a", "query": "b", "positive_passages": ["c"]}, "holds"),
        ({"query_id": "a", "query": "b", "positive_passages": [{"text": "c"}]}, "no 'docid'"),
    ],
)
def test_tevatron_malformed(write, read, row, message):
    write({"train.jsonl": [row]})
    with pytest.raises(DataError, match=f"train.jsonl:1: .*{message}"):
        read(format="tevatron")


def test_flag_embedding(write, read):
    write(
        {
            "train.jsonl": [
                {"query": "one?", "pos": ["good"], "neg": ["bad", "worse"], "pos_scores": [1.0]},
                {
                    "query": "one?",
                    "pos": ["better"],
                    "neg": ["bad"],
                    "prompt": "",
                    "type": "normal",
                },
            ],
            "pool.jsonl": [{"text": "good"}, {"text": "fresh"}],
        }
    )
    found = read(format="flag_embedding", corpus="pool.jsonl")
    one = query_id_of("one?")
    ids = {text: passage_id_of("", text) for text in ("good", "bad", "worse", "better", "fresh")}
    assert found.passages == {one: ("", text) for text, one in ids.items()}
    assert found.pairs("qrels") == [(one, ids["good"], 1), (one, ids["better"], 1)]
    assert found.pairs("negatives") == [(one, ids["bad"]), (one, ids["worse"])]
    assert found.tables.report.dropped == {"repeated pair": 1}
    write({"train.jsonl": [{"query": "a", "neg": []}]})
    with pytest.raises(DataError, match=r"train.jsonl:1: no 'pos'"):
        read(format="flag_embedding")


def squad(**changes: object) -> str:
    question = {"id": "1", "question": "who?", "answers": [{"text": "me"}, {"text": "me"}]}
    impossible = {"id": "2", "question": "why?", "answers": [], "is_impossible": True}
    paragraphs = [
        {"context": "It was me.", "qas": [question, impossible]},
        {"context": "Nothing here.", "qas": []},
    ]
    article = {"title": "Some_Title", "paragraphs": paragraphs, **changes}
    return json.dumps({"version": "2.0", "data": [article]})


def test_squad(write, read):
    write({"train-v1.1.json": squad()})
    found = read(format="squad")
    first = passage_id_of("Some Title", "It was me.")
    assert list(found.passages.values()) == [
        ("Some Title", "It was me."),
        ("Some Title", "Nothing here."),
    ]
    assert found.queries == {"1": ("who?", "train")}
    assert found.pairs("qrels") == [("1", first, 1)]
    assert found.answers == {"1": ["me"]}
    assert found.tables.report.counts["questions without an answer"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "no list of articles under 'data'"),
        ('{"data": [', "no valid JSON"),
        ('{"data":\n["caf\xe9"]}', r"json:2: the file cannot be read"),
        (squad(paragraphs={}), r"json, article 1: 'paragraphs' is a dict"),
        (squad(paragraphs=[{"qas": []}]), r"json, article 1: no 'context'"),
        (
            squad(paragraphs=[{"context": "a", "qas": [{"id": "1"}]}]),
            r"json, article 1: no 'question'",
        ),
    ],
)
def test_squad_malformed(write, read, text, message):
    write({"train-v1.1.json": text.encode("latin-1")})
    with pytest.raises(DataError, match=message):
        read(format="squad")


def test_squad_leaves_out_no_more_than_what_is_bad(write, read):
    def question(number: int) -> dict[str, object]:
        return {"id": f"q{number}", "question": f"what is {number}?", "answers": []}

    paragraphs = [
        {"context": "first", "qas": [question(1), {"id": "q2"}, 3, question(4)]},
        {"qas": [question(5), question(6)]},
        {"context": "third", "qas": None},
        "fourth",
        {"context": "fifth", "qas": [question(7)]},
    ]
    write({"train-v1.1.json": squad(paragraphs=paragraphs)})
    found = read(format="squad", on_problem="skip")
    assert set(found.queries) == {"q1", "q4", "q7"}
    assert [text for _, text in found.passages.values()] == ["first", "fifth"]
    assert found.problems.counts == {
        "no question": 1,
        "question is no object": 1,
        "no context": 1,
        "question of a bad paragraph": 2,
        "no qas": 1,
        "paragraph is no object": 1,
    }


def test_squad_question_of_two_splits_keeps_one_paragraph(write, read):
    dev = squad(
        paragraphs=[
            {
                "context": "Elsewhere.",
                "qas": [{"id": "1", "question": "who?", "answers": [{"text": "you"}]}],
            }
        ]
    )
    write({"train-v1.1.json": squad(), "dev-v1.1.json": dev})
    found = read(format="squad", on_problem="skip")
    assert found.queries == {"1": ("who?", "dev")}
    assert found.pairs("qrels") == [("1", passage_id_of("Some Title", "Elsewhere."), 1)]
    assert found.answers == {"1": ["you"]}
    write({"dev-v1.1.json": dev.replace("who?", "who else?")})
    with pytest.raises(DataError, match="no usable query"):
        read(format="squad", on_problem="skip")


UNLABELLED = ["how many", "which one"]


@pytest.mark.parametrize(
    ("files", "configuration"),
    [
        ({"de.tsv": DUAL}, {"format": "rocketqa_lines", "dual": {"train": "de.tsv"}}),
        (
            {"nq-train.json": json.dumps([dpr_example("one?", ["1"], ["2"])])},
            {"format": "dpr", "corpus": None},
        ),
        (DUREADER, {"format": "dureader", "corpus": PARTS}),
        (
            {"train.jsonl": [{"query": "a", "pos": ["b"], "neg": ["c"]}]},
            {"format": "flag_embedding"},
        ),
        ({"train-v1.1.json": squad()}, {"format": "squad"}),
        (
            {
                "train.jsonl": [
                    {
                        "query_id": "q1",
                        "query": "one?",
                        "positive_passages": [{"docid": "1", "title": "", "text": "b"}],
                        "negative_passages": [],
                    }
                ]
            },
            {"format": "tevatron"},
        ),
    ],
    ids=lambda value: value.get("format", "") if isinstance(value, dict) else "",
)
def test_queries_without_labels_beside_examples(write, read, files, configuration):
    write(files)
    before = read(**configuration)
    write({"more.tsv.gz": "u1\thow many\r\nu2\twhich one\n"})
    after = read(**configuration, unlabelled_queries="more.tsv")
    # Spaces are taken out of Chinese texts.
    texts = ["howmany", "whichone"] if configuration["format"] == "dureader" else UNLABELLED
    added = {f"u{number}": (text, "unlabelled") for number, text in enumerate(texts, start=1)}
    assert after.queries == {**before.queries, **added}
    assert after.pairs("qrels") == before.pairs("qrels")
    write({"more.tsv.gz": "u1\thow many\nu1 without a tab\n"})
    with pytest.raises(DataError, match=r"more.tsv.gz:2: "):
        read(**configuration, unlabelled_queries="more.tsv")
