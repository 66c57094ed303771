from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Iterator

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.artifacts.kinds import DATASET
from pipeline.sources.assemble import Assembly
from pipeline.sources.content import clean, clean_title, passage_id_of
from pipeline.sources.dataset_tables import DatasetTables
from pipeline.sources.records import (
    SPLITS,
    Answers,
    DataError,
    Judgement,
    Pair,
    Passage,
    Place,
    Problems,
    Query,
    Source,
)


class Lists(Source):
    """A source of records in memory."""

    def __init__(self, problems: Problems, **streams):
        super().__init__(problems)
        self.streams = streams

    def passages(self):
        return iter(self.streams.get("passages", [Passage("p", "", "text")]))

    def queries(self):
        return iter(self.streams.get("queries", [Query("q", "ask", "train")]))

    def judgements(self):
        return iter(self.streams.get("judgements", [Judgement("q", "p", 1)]))

    def answers(self):
        return iter(self.streams.get("answers", []))

    def negatives(self):
        return iter(self.streams.get("negatives", []))

    def excluded(self):
        return iter(self.streams.get("excluded", []))

    def hidden(self):
        return iter(self.streams.get("hidden", []))


def assemble(
    on_problem="fail", *, shard=100, share=0.0, seed=1, most=None, positives=None, **streams
) -> tuple[list[pa.Table], DatasetTables]:
    source = Lists(Problems(on_problem), **streams)
    assembly = Assembly(
        source,
        passages_per_shard=shard,
        validation_share=share,
        seed=seed,
        max_queries=most,
        training_positives=positives,
    )
    shards = list(assembly.passages())
    tables = assembly.finish()
    report = tables.report
    assert report.rows_in == report.rows_out + sum(report.dropped.values())
    assert pa.concat_tables(shards).schema == DATASET.schema("passages")
    for name in ("queries", "qrels", "answers", "excluded", "negatives", "hidden_qrels"):
        assert getattr(tables, name).schema == DATASET.schema(name)
    return shards, tables


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 60), shard=st.integers(1, 25))
def test_shards_are_full_but_the_last(count, shard):
    passages = [Passage(f"p{number}", "", "text") for number in range(count)]
    judgements = [Judgement("q", "p0", 1)]
    shards, _ = assemble(passages=passages, judgements=judgements, shard=shard)
    assert [table.num_rows for table in shards[:-1]] == [shard] * (len(shards) - 1)
    assert 1 <= shards[-1].num_rows <= shard
    ids = pa.concat_tables(shards)["passage_id"].to_pylist()
    assert ids == [f"p{number}" for number in range(count)]


def test_repeated_ids_across_shards():
    at = Place("corpus.tsv", 31)
    passages = [Passage(f"p{number % 30}", "", "text", at) for number in range(31)]
    judgements = [Judgement("q", "p29", 1)]
    with pytest.raises(DataError, match=r"corpus.tsv:31: passage id 'p0' is used before"):
        assemble(passages=passages, judgements=judgements, shard=4)
    shards, tables = assemble("skip", passages=passages, judgements=judgements, shard=4)
    assert sum(table.num_rows for table in shards) == 30
    assert tables.qrels.to_pylist() == [{"query_index": 0, "passage_index": 29, "relevance": 1}]
    assert tables.report.dropped == {"repeated passage id": 1}


def test_texts_are_cleaned_on_purpose():
    passages = [
        Passage("a", "-", "tab\there, line\r\nend\x00, no\u00a0break  kept\u2028x "),
        Passage("b", " \t", "\ufeffmark and e\u0301"),
        Passage("c", "title only", " \n"),
    ]
    shards, tables = assemble(passages=passages, judgements=[Judgement("q", "c", 1)])
    assert [tuple(row.values())[1:] for row in shards[0].to_pylist()] == [
        ("", "tab here, line end , no\u00a0break  kept x"),
        ("", "\ufeffmark and e\u0301"),
        ("title only", ""),
    ]
    assert tables.report.counts["passages without a title"] == 2
    assert tables.report.counts["passages without a text"] == 1


@settings(max_examples=50, deadline=None)
@given(text=st.text())
def test_clean_texts_fit_on_a_line_and_stay_clean(text):
    cleaned = clean(text)
    assert clean(cleaned) == cleaned
    assert "\t" not in cleaned
    assert len(cleaned.splitlines()) <= 1


def test_titles():
    assert clean_title(" - ") == "" == clean_title("")
    assert clean_title("--") == "--"
    assert passage_id_of("-", " a\tb") == passage_id_of("", "a b") != passage_id_of("a", "b")


@pytest.mark.parametrize(
    ("streams", "message", "reason"),
    [
        ({"passages": [Passage("", "", "a")]}, "the id is empty", "passage without an id"),
        (
            {"queries": [Query("a b", "text", "train")]},
            "query id 'a b' holds white space",
            "query id with white space",
        ),
        ({"passages": [Passage("x", "-", "\r\n")]}, "'x' has no text", "empty passage"),
        (
            {"passages": [Passage("x", "", "\ud83d half")]},
            "lone surrogate",
            "passage with lone surrogates",
        ),
        ({"queries": [Query("x", " ", "train")]}, "'x' has no text", "empty query"),
        (
            {"queries": [Query("q", "ask", "dev")]},
            "query id 'q' is used before;",
            "repeated query id",
        ),
        (
            {"judgements": [Judgement("x", "p", 1)]},
            "judgement of query 'x'",
            "judgement of an unknown query",
        ),
        (
            {"judgements": [Judgement("q", "x", 1)]},
            "judgement of passage 'x'",
            "judgement of an unknown passage",
        ),
        (
            {"judgements": [Judgement("q", "p", 2)]},
            "relevance 2, which elsewhere is 1",
            "conflicting relevance",
        ),
        (
            {"judgements": [Judgement("u", "p", 1)]},
            "also given as unlabelled",
            "judgement of an unlabelled query",
        ),
        ({"negatives": [Pair("q", "x")]}, "negative of passage", "negative of an unknown passage"),
        (
            {"excluded": [Pair("x", "p")]},
            "excluded passage of query",
            "excluded passage of an unknown query",
        ),
        (
            {"hidden": [Pair("x", "p")]},
            "hidden label of query",
            "hidden label of an unknown query",
        ),
        ({"answers": [Answers("x", ("a",))]}, "answers of query", "answers of an unknown query"),
    ],
)
def test_every_problem_fails_with_its_place_or_is_counted(streams, message, reason):
    good = {
        "passages": [Passage("p", "", "text")],
        "queries": [Query("q", "ask", "train"), Query("u", "free", "unlabelled")],
        "judgements": [Judgement("q", "p", 1)],
    }
    placed = {
        name: [record._replace(place=Place("file", 7)) for record in records]
        for name, records in streams.items()
    }
    streams = {**good, **{name: good.get(name, []) + rows for name, rows in placed.items()}}
    with pytest.raises(DataError, match=f"^file:7: .*{message}.*on_problem: skip"):
        assemble(**streams)
    shards, tables = assemble("skip", **streams)
    assert tables.report.dropped == {reason: 1}
    assert tables.qrels.num_rows == 1
    assert shards[0].num_rows == 1


def test_nothing_usable():
    with pytest.raises(DataError, match="no usable passage"):
        assemble(passages=[])
    with pytest.raises(DataError, match="no usable query"):
        assemble(queries=[], judgements=[])


@pytest.mark.parametrize(
    ("streams", "message", "reason"),
    [
        (
            {"judgements": [Judgement("q", "r", 1, Place("f", 2), "dev")]},
            "f:2: judgement for the split 'dev' of query 'q', whose split is 'train'",
            "judgement of another split",
        ),
        (
            {"negatives": [Pair("q", "r", Place("f", 2), "unlabelled")]},
            "f:2: negative for the split 'unlabelled' of query 'q'",
            "negative of another split",
        ),
        (
            {"excluded": [Pair("q", "r", Place("f", 2), "test")]},
            "f:2: excluded passage for the split 'test' of query 'q'",
            "excluded passage of another split",
        ),
        (
            {"answers": [Answers("q", ("b",), Place("f", 2), "dev")]},
            "f:2: answers for the split 'dev' of query 'q'",
            "answers of another split",
        ),
        (
            {"answers": [Answers("q", ("half \ud83d",), Place("f", 2))]},
            r"f:2: the answer 'half .*ud83d' holds half a character",
            "answer with lone surrogates",
        ),
    ],
)
def test_rows_that_are_not_about_this_query_are_left_out(streams, message, reason):
    passages = [Passage("p", "", "text"), Passage("r", "", "other")]
    good = {"judgements": [Judgement("q", "p", 1, split="train")]}
    streams = {
        "passages": passages,
        **{name: good.get(name, []) + streams[name] for name in streams},
    }
    with pytest.raises(DataError, match=message):
        assemble(**streams)
    _, tables = assemble("skip", **streams)
    assert tables.report.dropped == {reason: 1}
    assert tables.qrels.num_rows == 1
    assert tables.negatives.num_rows == tables.excluded.num_rows == 0
    assert [row["answers"] for row in tables.answers.to_pylist()] in ([], [[]])


def test_a_query_id_with_two_texts_goes_with_its_labels():
    queries = [
        Query("q", "ask", "dev"),
        Query("10", "one", "dev"),
        Query("10", "another", "train"),
        Query("10", "one", "train"),
    ]
    judgements = [Judgement("q", "p", 1), Judgement("10", "p", 1, split="train")]
    answers = [Answers("10", ("a",), split="dev")]
    streams = {"queries": queries, "judgements": judgements, "answers": answers}
    with pytest.raises(DataError, match="query id '10' is used before with another text"):
        assemble(**streams)
    _, tables = assemble("skip", **streams)
    assert tables.queries["query_id"].to_pylist() == ["q"]
    assert tables.qrels.num_rows == 1 and tables.answers.num_rows == 0
    assert tables.report.dropped == {
        "conflicting query id": 2,
        "repeated query id": 1,
        "judgement of another split": 1,
        "rows of queries left out": 1,
    }


def test_labels_of_a_passage_id_with_two_texts_are_left_out():
    passages = [
        Passage("p", "", "text"),
        Passage("same", "T", "text"),
        Passage("same", "T", "text"),
        Passage("r", "", "one"),
        Passage("r", "", "another"),
    ]
    judgements = [Judgement("q", "p", 1), Judgement("q", "same", 1), Judgement("q", "r", 2)]
    with pytest.raises(DataError, match="passage id 'same' is used before;"):
        assemble(passages=passages, judgements=judgements)
    with pytest.raises(DataError, match="passage id 'r' is used before with another text"):
        assemble(passages=[*passages[:2], *passages[3:]], judgements=judgements)
    _, tables = assemble(
        "skip",
        passages=passages,
        queries=[Query("q", "ask", "train"), Query("s", "ask more", "train")],
        judgements=[
            *judgements,
            Judgement("q", "r", 1),
            Judgement("s", "r", 0),
            Judgement("s", "p", 1),
        ],
        excluded=[Pair("s", "r")],
        negatives=[Pair("q", "r")],
    )
    assert tables.qrels["passage_index"].to_pylist() == [0, 1, 0]
    assert tables.report.dropped == {
        "repeated passage id": 2,
        "judgement of a passage with two texts": 1,
        "negative of a passage with two texts": 1,
        "repeated pair": 1,
    }
    # Whichever text was meant, it must not become a negative.
    assert [tuple(row.values()) for row in tables.excluded.to_pylist()] == [(0, 2), (1, 2)]
    assert tables.report.counts["positives of a passage with two texts, excluded"] == 2


@pytest.mark.parametrize("relevance", [2**31 - 1, -(2**31)])
def test_relevance_is_kept_up_to_its_bounds(relevance):
    judgements = [Judgement("q", "p", 1), Judgement("q", "r", relevance)]
    passages = [Passage("p", "", "text"), Passage("r", "", "other")]
    _, tables = assemble(passages=passages, judgements=judgements)
    assert tables.qrels["relevance"].to_pylist() == [1, relevance]


def test_queries_are_numbered_by_split_and_labels_follow():
    queries = [
        Query("u", "free", "unlabelled"),
        Query("t", "later", "test"),
        Query("d", "dev", "dev"),
        Query("lost", "without label", "train"),
        Query("b", "b", "train"),
        Query("answered", "by answer only", "dev"),
        Query("v", "v", "validation"),
        Query("a", "a", "train"),
    ]
    passages = [Passage(str(number), "", "text") for number in range(9)]
    judgements = [
        Judgement("d", "3", 2),
        Judgement("a", "2", 1),
        Judgement("a", "1", 0),
        Judgement("b", "5", 1),
        Judgement("v", "6", 1),
        Judgement("a", "2", 1),
        Judgement("lost", "1", 0),
    ]
    _, tables = assemble(
        queries=queries,
        passages=passages,
        judgements=judgements,
        answers=[
            Answers("answered", ("x ", "x", "")),
            Answers("a", ()),
            Answers("lost", ("",)),
            Answers("answered", ("y",)),
        ],
        negatives=[Pair("a", "8"), Pair("a", "4"), Pair("a", "2"), Pair("b", "7"), Pair("a", "7")],
        excluded=[Pair("b", "7"), Pair("b", "5"), Pair("lost", "4")],
        hidden=[Pair("u", "8")],
        share=0.5,
    )
    rows = tables.queries.to_pylist()
    assert [(row["query_id"], row["split"]) for row in rows] == [
        ("b", "train"),
        ("a", "train"),
        ("v", "validation"),
        ("d", "dev"),
        ("answered", "dev"),
        ("t", "test"),
        ("u", "unlabelled"),
    ]
    assert [tuple(row.values()) for row in tables.qrels.to_pylist()] == [
        (0, 5, 1),
        (1, 2, 1),
        (1, 1, 0),
        (2, 6, 1),
        (3, 3, 2),
    ]
    assert tables.answers.to_pylist() == [
        {"query_index": 1, "answers": []},
        {"query_index": 4, "answers": ["x", "y"]},
    ]
    # Given negatives stay in the order read, which may be a ranking.
    assert [tuple(row.values()) for row in tables.negatives.to_pylist()] == [(1, 8), (1, 4), (1, 7)]
    assert [tuple(row.values()) for row in tables.excluded.to_pylist()] == [(0, 7)]
    assert [tuple(row.values()) for row in tables.hidden_qrels.to_pylist()] == [(6, 8)]
    assert tables.report.dropped == {
        "queries without a label": 1,
        "rows of queries left out": 3,
        "repeated pair": 1,
        "repeated answers of a query": 1,
        "negatives that are relevant": 1,
        "negatives that are excluded": 1,
        "excluded passages that are relevant": 1,
    }


def training_world(count: int) -> dict[str, list]:
    """Queries in fours: two share a passage, a third its title, a fourth the text of the third."""
    passages, queries, judgements = [], [], []
    for number in range(count):
        for part in "abc":
            title = f"Title {number}" if part != "c" else ""
            passages.append(Passage(f"{number}{part}", title, f"text {number}{part}"))
        for name, passage, text in (
            ("w", "a", "one"),
            ("x", "a", "two"),
            ("y", "b", "three"),
            ("z", "c", "THREE"),
        ):
            queries.append(Query(f"{number}{name}", f"{text} {number}", "train"))
            judgements.append(Judgement(f"{number}{name}", f"{number}{passage}", 1))
    return {"passages": passages, "queries": queries, "judgements": judgements}


def test_validation_is_carved_in_whole_groups():
    world = training_world(50)
    _, tables = assemble(share=0.1, **world)
    rows = tables.queries.to_pylist()
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row["query_id"][:-1], set()).add(row["split"])
    assert all(len(side) == 1 for side in sides.values())
    carved = sum(row["split"] == "validation" for row in rows)
    assert carved == 20 == tables.report.counts["validation queries carved out"]
    assert tables.report.warnings == ()
    codes = [SPLITS.index(row["split"]) for row in rows]
    assert codes == sorted(codes)

    again = assemble(share=0.1, **world)[1]
    other = assemble(share=0.1, seed=2, **world)[1]
    assert again.queries == tables.queries
    assert other.queries != tables.queries


def test_what_was_trained_on_under_another_id_is_not_carved():
    """Passages twice, under two ids and without titles, each relevant to a query of its own."""
    passages, queries, judgements = [], [], []
    for number in range(40):
        for copy in "ab":
            passages.append(Passage(f"{copy}{number}", "", f"text {number}"))
            queries.append(Query(f"q{copy}{number}", f"{copy} asks for {number}", "train"))
            judgements.append(Judgement(f"q{copy}{number}", f"{copy}{number}", 1))
    streams = {"passages": passages, "queries": queries, "judgements": judgements}
    _, tables = assemble(share=0.2, **streams)
    rows = tables.queries.to_pylist()
    sides = {row["query_id"]: row["split"] for row in rows}
    assert Counter(sides.values()) == {"train": 64, "validation": 16}
    assert all(sides[f"qa{number}"] == sides[f"qb{number}"] for number in range(40))


def test_a_source_with_validation_queries_is_not_carved():
    world = training_world(5)
    world["queries"].append(Query("v", "v", "validation"))
    world["judgements"].append(Judgement("v", "0a", 1))
    _, tables = assemble(share=0.3, **world)
    assert tables.report.counts["validation queries"] == 1
    assert tables.report.counts["train queries"] == 20


def test_warnings():
    queries = [Query("q", "Ask", "train"), Query("d", "ask", "dev")]
    judgements = [Judgement("q", "p", 1), Judgement("d", "p", 1)]
    _, tables = assemble(queries=queries, judgements=judgements)
    assert len(tables.report.warnings) == 2
    assert "1 training or unlabelled" in tables.report.warnings[0]
    assert "no validation queries" in tables.report.warnings[1]


def test_memory_stays_flat_when_the_corpus_grows():
    def peak(count: int) -> int:
        def passages() -> Iterator[Passage]:
            for number in range(count):
                yield Passage(f"passage-{number}", f"title {number}", f"{number} " * 100)

        source = Lists(Problems(), judgements=[Judgement("q", "passage-7", 1)])
        source.passages = passages
        assembly = Assembly(source, passages_per_shard=2000, validation_share=0.1, seed=0)
        tracemalloc.start()
        written = sum(table.nbytes for table in assembly.passages())
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert written > count * 300
        assert assembly.finish().qrels.num_rows == 1
        return highest

    small, large = peak(4_000), peak(24_000)
    # 20,000 passages more are 10 MB of text, but only their hashes stay.
    assert large - small < 20_000 * 60


def test_fewer_queries_are_a_part_of_more_and_keep_their_rows():
    world = training_world(40)
    ids, labels = {}, {}
    for most in (None, 50, 20, 0):
        capped = None if most is None else {"train": most}
        _, tables = assemble(share=0.2, most=capped, **world)
        queries = tables.queries.to_pylist()
        ids[most] = {row["query_id"] for row in queries if row["split"] == "train"}
        others = {row["query_id"] for row in queries if row["split"] != "train"}
        labels[most] = {
            (queries[row["query_index"]]["query_id"], row["passage_index"])
            for row in tables.qrels.to_pylist()
        }
        assert len(ids[most]) == min(most if most is not None else 1000, len(ids[None]))
        assert labels[most] == {pair for pair in labels[None] if pair[0] in ids[most] | others}
        left_out = tables.report.dropped.get("train queries beyond max_queries", 0)
        assert left_out == len(ids[None]) - len(ids[most])
    assert ids[0] < ids[20] < ids[50] < ids[None]


def several_positives(count: int) -> dict[str, list]:
    """Training queries with five positives each of relevance 3, 1, 2, 2, 2, and one irrelevant."""
    world: dict[str, list] = {"passages": [], "queries": [], "judgements": []}
    for number in range(count):
        world["queries"].append(Query(f"q{number}", f"question {number}", "train"))
        for place, relevance in enumerate([3, 1, 2, 2, 2, 0]):
            name = f"p{number}-{place}"
            world["passages"].append(Passage(name, "", f"text of {name}"))
            world["judgements"].append(Judgement(f"q{number}", name, relevance))
    return world


def labels_by_id(shards, tables, name: str) -> dict[str, set[str]]:
    queries = tables.queries["query_id"].to_pylist()
    passages = pa.concat_tables(shards)["passage_id"].to_pylist()
    found: dict[str, set[str]] = {}
    for row in getattr(tables, name).to_pylist():
        found.setdefault(queries[row["query_index"]], set()).add(passages[row["passage_index"]])
    return found


def test_positives_beyond_the_most_relevant_are_hidden():
    world = several_positives(20)
    whole = assemble(share=0.2, **world)
    given = labels_by_id(*whole, "qrels")
    shards, tables = assemble(share=0.2, positives=3, **world)
    # The division is that of the whole data: a hidden label holds groups together as well.
    assert tables.queries == whole[1].queries
    splits = {row["query_id"]: row["split"] for row in tables.queries.to_pylist()}
    kept, hidden = (labels_by_id(shards, tables, name) for name in ("qrels", "hidden_qrels"))
    places = set()
    for query, split in splits.items():
        if split == "validation":
            assert kept[query] == given[query] and query not in hidden
            continue
        assert kept[query] | hidden[query] == given[query]
        assert not kept[query] & hidden[query]
        left_out = {name.split("-")[1] for name in hidden[query]}
        # The irrelevant one stays, 3 is kept, 1 goes, of the three with 2 one goes.
        assert len(left_out) == 2 and left_out - {"2", "3", "4"} == {"1"}
        places |= left_out
    assert places == {"1", "2", "3", "4"}
    train = sum(split == "train" for split in splits.values())
    assert 0 < train < 20
    assert tables.report.counts["training positives held back"] == 2 * train
    assert tables.report.counts["hidden_qrels"] == 2 * train


def test_what_is_hidden_depends_on_texts_and_not_on_ids_or_order():
    world = several_positives(8)
    once = labels_by_id(*assemble(positives=2, **world), "hidden_qrels")
    renamed = {
        "passages": [p._replace(passage_id="x" + p.passage_id) for p in world["passages"][::-1]],
        "queries": world["queries"][::-1],
        "judgements": [
            j._replace(passage_id="x" + j.passage_id) for j in world["judgements"][::-1]
        ],
    }
    again = labels_by_id(*assemble(positives=2, **renamed), "hidden_qrels")
    assert again == {query: {"x" + name for name in names} for query, names in once.items()}
    other = labels_by_id(*assemble(positives=2, seed=9, **world), "hidden_qrels")
    assert other != once


def test_a_hidden_positive_may_be_a_negative_and_is_never_known():
    """Whoever hides a label must not know it elsewhere: neither as given nor as suspected."""
    world = several_positives(2)
    given = {
        "negatives": [Pair("q0", "p0-0"), Pair("q0", "p0-1"), Pair("q1", "p1-5")],
        "excluded": [Pair("q0", "p0-1"), Pair("q0", "p1-0")],
        "hidden": [Pair("u", "p1-1")],
    }
    world["queries"].append(Query("u", "without labels", "unlabelled"))
    found = assemble(positives=1, **world, **given)
    assert labels_by_id(*found, "negatives") == {"q0": {"p0-1"}, "q1": {"p1-5"}}
    assert labels_by_id(*found, "excluded") == {"q0": {"p1-0"}}
    hidden = labels_by_id(*found, "hidden_qrels")
    assert hidden["u"] == {"p1-1"} and "p0-1" in hidden["q0"] and len(hidden["q0"]) == 4
