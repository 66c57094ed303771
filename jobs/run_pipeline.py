"""Runs pipelines: `python jobs/run_pipeline.py [VERB] [FILE]`.

Verbs: run (the default), plan, status, why STAGE, graph, verify, gc, doctor.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.dag.commands import DEFAULT_FILE, VERBS, Options, execute
from pipeline.dag.contract import StageType
from pipeline.dag.selection import Selection
from pipeline.dag.yaml_nodes import nearest

DESCRIPTION = """\
Runs a pipeline file (pipeline.yaml by default): every stage whose result is not there yet.

verbs:
  run          run what has no result yet (the default)
  plan         every stage: cached, to run or partly done, and why
  status       every stage: where its last result stands
  why STAGE    what differs from the stage's last result, field by field
  graph        the stages as text and as a Mermaid flowchart
  verify       hash the artifacts again (--apply: set damaged ones aside)
  gc           what no pipeline needs any more (--apply: delete it)
  doctor       check Python, torch, CUDA, faiss, Ray, disk and models

exit codes: 0 done, 2 the configuration is wrong, 3 a stage failed, 4 locked by another run
Every verb takes --set and --root; the other options only those that they make sense for.
"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run_pipeline.py",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("words", nargs="*", metavar="[VERB] [FILE]")
    for option, name, text in (
        ("--only", "only", "these stages and no others"),
        ("--from", "start", "these stages and all that depend on them"),
        ("--until", "until", "these stages and all that they depend on"),
        ("--force", "force", "run these again, and all that depends on them"),
    ):
        add(option, dest=name, metavar="STAGE", action="append", default=[], help=text)
    add("--set", metavar="PATH=VALUE", action="append", default=[], help="override the file")
    add("--root", metavar="URI", help="where artifacts live, in place of the file's root")
    add("--keep-going", action="store_true", help="after a failure, run what does not need it")
    add("--strict-code", action="store_true", help="re-run stages whose code changed")
    add("--apply", action="store_true", help="gc, verify: do it, do not only show it")
    return parser


def options_of(arguments: Sequence[str]) -> Options:
    """The options; where they make no sense, their `mistakes` say so."""
    parser = _parser()
    given, unknown = parser.parse_known_intermixed_args(arguments)
    words: list[str] = given.words
    if len(words) > 1 and words[0] not in VERBS and words[1] in VERBS:
        words = [*words[1:], words[0]]
    verb = words.pop(0) if words and words[0] in VERBS else "run"
    stage = words.pop(0) if verb == "why" and words else ""
    mistakes = [*_stray(parser, unknown), *_empty(given)]
    if verb == "why" and not stage:
        mistakes.append("why: name a stage")
    if words and verb == "run" and not Path(words[0]).exists():
        mistakes.append(f"'{words[0]}' is neither a verb nor a file{nearest(words[0], VERBS)}")
    elif len(words) > 1:
        mistakes.append(f"one pipeline file at a time, not {' '.join(words)}")
    return Options(
        verb=verb,
        file=words[0] if words else DEFAULT_FILE,
        stage=stage,
        selection=Selection(
            only=_split(given.only),
            start=_split(given.start),
            until=_split(given.until),
            force=_split(given.force),
        ),
        settings=tuple(given.set),
        root=given.root,
        keep_going=given.keep_going,
        strict_code=given.strict_code,
        apply=given.apply,
        mistakes=tuple(mistakes),
    )


def _stray(parser: argparse.ArgumentParser, unknown: Sequence[str]) -> list[str]:
    known = [option for action in parser._actions for option in action.option_strings]
    return [f"unknown option '{word}'{nearest(word, known)}" for word in unknown]


def _empty(given: argparse.Namespace) -> list[str]:
    """Stage options that name no stage, from an unset shell variable perhaps."""
    values = {
        "--only": given.only,
        "--from": given.start,
        "--until": given.until,
        "--force": given.force,
    }
    return [f"{o} names no stage" for o, value in values.items() if value and not _split(value)]


def _split(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for value in values for name in value.split(",") if name)


def main(
    arguments: Sequence[str] | None = None, registry: Mapping[str, StageType] | None = None
) -> int:
    """Carry out a command line; `registry` replaces the project's own stages."""
    options = options_of(sys.argv[1:] if arguments is None else arguments)
    if registry is None:
        from pipeline.stages import registry as own

        registry = own()
    return int(execute(options, registry))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:
        # The reader of our output (`| head`) has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
