"""Asks the trained models a question: `python jobs/search.py "question" [FILE]`."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Mapping, Sequence

from pipeline.artifacts.manifest import ArtifactError
from pipeline.dag.contract import StageType
from pipeline.dag.roots import UnusableRoot, open_root, root_errors
from pipeline.dag.specification import read_pipeline
from pipeline.dag.yaml_nodes import SpecificationError
from pipeline.stages.question_search import Found, Hit, NothingTrained, QuestionSearch

DESCRIPTION = """\
Prints the best passages that a pipeline's trained models find for a question: by the retriever, and
re-ranked by the ranker. Run the pipeline first.

exit codes: 0 done, 2 the question, the configuration or the root is wrong, 3 nothing is trained yet
"""
SHOWN_CHARACTERS = 200


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="search.py",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("question")
    add("file", nargs="?", default="pipeline.yaml", metavar="FILE", help="the pipeline's file")
    add("--root", metavar="URI", help="where artifacts live, in place of the file's root")
    add("--set", metavar="PATH=VALUE", action="append", default=[], help="override the file")
    add("--retriever", metavar="STAGE", help="by default the last one with encoded passages")
    add("--ranker", metavar="STAGE", help="by default the last one that has run")
    add("--top", type=_positive, default=10, metavar="N", help="passages to print (10)")
    add("--depth", type=_positive, default=50, metavar="N", help="passages to re-rank (50)")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def main(
    arguments: Sequence[str] | None = None, registry: Mapping[str, StageType] | None = None
) -> int:
    """Carry out a command line; `registry` replaces the project's own stages."""
    given = _parser().parse_intermixed_args(arguments)
    if registry is None:
        from pipeline.stages import registry as own

        registry = own()
    try:
        pipeline = read_pipeline(given.file, registry, given.set)
        store = open_root(given.root or pipeline.root)
        with root_errors(store):
            search = QuestionSearch(pipeline, store, given.retriever, given.ranker)
            found = search.search(given.question, max(given.depth, given.top))
    except (SpecificationError, UnusableRoot, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    except (NothingTrained, ArtifactError) as error:
        print(error, file=sys.stderr)
        return 3
    print("\n".join(_lines(search, found, given.top)))
    return 0


def _lines(search: QuestionSearch, found: Found, top: int) -> list[str]:
    lines = [f"retrieved by {search.retriever_name}"]
    lines += [line for rank, hit in enumerate(found.retrieved[:top], 1) for line in _hit(rank, hit)]
    if not search.ranker_name:
        return [*lines, "", "no ranker is trained yet"]
    lines += ["", f"the first {len(found.retrieved)} re-ranked by {search.ranker_name}"]
    for rank, hit in enumerate(found.reranked[:top], 1):
        lines += _hit(rank, hit, f"  (was {hit.retrieved_rank})")
    return lines


def _hit(rank: int, hit: Hit, note: str = "") -> list[str]:
    title = f"  {hit.title}" if hit.title else ""
    text = textwrap.shorten(hit.text, SHOWN_CHARACTERS, placeholder=" …")
    body = textwrap.fill(text, 96, initial_indent="      ", subsequent_indent="      ")
    return [f"{rank:3}. {hit.score:8.3f}  [{hit.passage_id}]{title}{note}", body]


if __name__ == "__main__":
    sys.exit(main())
