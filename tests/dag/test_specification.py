from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dag.contract import Input
from pipeline.dag.specification import read_pipeline
from pipeline.dag.yaml_nodes import SpecificationError, parse
from pipeline.stages import registry
from tests.dag import toys

HEAD = "name: toy\nroot: artifacts\nstages:\n  data: {uses: numbers}\n"


def read(tmp_path, text, *settings):
    file = tmp_path / "pipeline.yaml"
    file.write_text(text)
    return read_pipeline(file, toys.registry(), settings)


def test_every_mistake_is_reported_at_once_with_its_line(mistakes):
    found = mistakes(
        "name: toy\n"
        "sed: 13\n"
        "stages:\n"
        "  data: {uses: numbers, params: {cuont: 4}}\n"
        "  left: {uses: scal, inputs: {numbers: data}}\n"
        "  right: {uses: scale, inputs: {numbers: dta}, param: {}}\n"
        "  wrong: {uses: scale, inputs: {numbers: sum}}\n"
        "  sum: {uses: total, inputs: {parts: [left, right], ofset: left}}\n"
        "  bad:\n"
        "    uses: scale\n"
        "    inputs: {numbers: data}\n"
        "    params:\n"
        "      factor: 0\n"
        "      mode: tims\n"
        "      fail: 1\n"
        "    resources: {wrokers: 2}\n"
        "  lonely: {uses: scale}\n"
    )
    expected = [
        ("2:1:", "unknown key 'sed' (did you mean 'seed'?)"),
        ("4:34:", "unknown key 'cuont' (did you mean 'count'?)"),
        ("5:16:", "unknown stage type 'scal' (did you mean 'scale'?)"),
        ("6:42:", "no stage is called 'dta' (did you mean 'data'?)"),
        ("6:48:", "unknown key 'param' in 'right' (did you mean 'params'?)"),
        ("7:42:", "takes Numbers, but 'sum' (total) makes Total; made by data, right"),
        ("8:53:", "stage type 'total' has no input 'ofset' (did you mean 'offset'?)"),
        ("13:15:", "'factor': factor must be at least 1, got 0"),
        ("14:13:", "(did you mean 'times'?)"),
        ("15:13:", "'fail': input should be a valid boolean, got 1"),
        ("16:17:", "unknown key 'wrokers' (did you mean 'workers'?)"),
        ("17:3:", "needs input 'numbers', Numbers; made by data, right"),
    ]
    assert len(found) == len(expected), "\n".join(found)
    for line, (place, message) in zip(found, expected, strict=True):
        assert line.startswith(place) and message in line, line


def test_a_circle_is_spelled_out(mistakes):
    (line,) = mistakes(
        "stages:\n"
        "  a: {uses: scale, inputs: {numbers: c}}\n"
        "  b: {uses: scale, inputs: {numbers: a}}\n"
        "  c: {uses: scale, inputs: {numbers: b}}\n"
    )
    names = line.rpartition(": ")[2].split(" → ")
    assert "in a circle" in line and len(names) == 4 and names[0] == names[-1] == "a"


def test_every_circle_is_told(mistakes):
    found = mistakes(
        "stages:\n"
        "  a: {uses: scale, inputs: {numbers: b}}\n"
        "  b: {uses: scale, inputs: {numbers: a}}\n"
        "  c: {uses: scale, inputs: {numbers: c}}\n"
        "  d: {uses: total, inputs: {parts: [e, f]}}\n"
        "  e: {uses: total, inputs: {parts: d}}\n"
        "  f: {uses: total, inputs: {parts: d}}\n"
    )
    circles = [line.rpartition(": ")[2] for line in found if "in a circle" in line]
    assert circles == ["a → b → a", "c → c", "d → e → d", "d → f → d"]


def test_duplicate_keys_are_mistakes(mistakes):
    found = mistakes(HEAD + "  data: {uses: numbers, params: {count: 1, count: 2}}\n")
    assert found[0].startswith("5:3: key 'data' stands twice; first at line 4")
    found = mistakes("stages:\n  data: {uses: numbers, params: {count: 1, count: 2}}\n")
    assert found == ["2:44: key 'count' stands twice; first at line 2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: [", "not YAML: while parsing a flow node"),
        ("stages:\n  a_{x}: {inputs: {n: b_{x}}}\n", "names with braces need quotes inside {…}"),
        ("- a\n", "a pipeline is a mapping"),
        ("name: x\n", "needs `stages`"),
        (HEAD + "seed: 1.5\n", "seed is a number without fraction, not 1.5"),
        (HEAD + "  a b: {uses: numbers}\n", "use letters, digits, _ and -"),
        (HEAD + "  x: {uses: scale, inputs: {numbers: [data]}}\n", "takes one stage, no list"),
        (HEAD + "  x: {uses: total, inputs: {parts: []}}\n", "is an empty list"),
        (HEAD + "  x: {uses: total, inputs: {parts: 'zzz*'}}\n", "no stage is called 'zzz*'"),
        (HEAD + "  x:\n", "stage 'x' is a mapping"),
        (HEAD + f"seed: {'9' * 5000}\n", "5:7: a number of 5000 digits: more than 100 are not"),
        ("a: " + "[" * 3000 + "]" * 3000, "1:103: nested more than 100 deep"),
        ('extends: "a\\0b"\n', "1:10: extends: the name of a file cannot hold U+0000"),
        ("stages: [a]\nrepeat: {}\n", "1:9: stages is a mapping of names to stages, not a list"),
        ("stages: oops\nrepeat: {}\n", "1:9: stages is a mapping of names to stages, not a sin"),
        (HEAD + "  x: {uses: draw}\n  y: a\x07\n", "6:7: not YAML: character U+0007 cannot"),
        (HEAD + "  é: {uses: draw}\n  yé: a\x01\n", "6:8: not YAML: character U+0001 cannot"),
        ("root: s3:/b/x\n" + HEAD[10:], "1:7: root 's3:/b/x' is no folder and no address: write"),
        ("root: s3:b/x\n" + HEAD[10:], "write s3://b/x"),
        ("root: ''\n" + HEAD[10:], "1:7: root '' is empty: name a folder"),
        ("root: s3:///x\n" + HEAD[10:], "names no bucket: write s3://BUCKET/PREFIX"),
        (HEAD + "  x: !!python/object:os.system {uses: numbers}\n", "tag "),
        (HEAD + "  x: &x {uses: numbers, params: {path: *x}}\n", "refers to something it is part"),
    ],
)
def test_other_mistakes(mistakes, text, message):
    assert any(message in line for line in mistakes(text)), mistakes(text)


def test_scalars_are_those_of_yaml_1_2():
    tree, _ = parse("[1e-5, 5E3, on, no, true, ~, 0.5, -3, '7', 1:30, .5, 2024-01-01]", "x")
    assert tree.plain() == [
        1e-5, 5e3, "on", "no", True, None, 0.5, -3, "7", "1:30", 0.5, "2024-01-01"
    ]  # fmt: skip


def test_order_follows_the_wiring_and_else_the_file(tmp_path):
    pipeline = read(
        tmp_path,
        "stages:\n"
        "  last: {uses: total, inputs: {parts: [b, a]}}\n"
        "  z: {uses: draw}\n"
        "  b: {uses: scale, inputs: {numbers: a}}\n"
        "  a: {uses: numbers}\n",
    )
    assert pipeline.names == ["z", "a", "b", "last"]
    assert pipeline["last"].inputs == {"parts": ("b", "a")}
    assert pipeline.below(["a"]) == {"a", "b", "last"}
    assert pipeline.above(["b"]) == {"a", "b"}
    assert pipeline.name == "pipeline"


def test_defaults_nested_models_and_tuples(tmp_path):
    text = "stages: {d: {uses: numbers, params: {options: {rate: 1}, paths: [a, b]}}}"
    params = read(tmp_path, text)["d"].params
    assert params.options.rate == 1.0 and params.options.deep and params.paths == ("a", "b")


def test_nested_mistakes_have_their_line(mistakes):
    found = mistakes(
        "stages:\n  d:\n    uses: numbers\n    params:\n      options:\n        dep: 1\n"
    )
    assert found[0].startswith("6:9:") and "'options.dep' (did you mean 'deep'?)" in found[0]


def test_set_overrides(tmp_path):
    text = HEAD + "  x: {uses: scale, inputs: {numbers: data}}\n"
    pipeline = read(
        tmp_path,
        text,
        "stages.data.params.count=9",
        "stages.data.params.options.rate=1e-3",
        "seed=7",
        "stages.*.resources.workers=0",
        "stages.x.params.mode=plus",
    )
    assert pipeline["data"].params.count == 9 and pipeline["data"].params.options.rate == 1e-3
    assert pipeline.seed == 7 and pipeline["x"].params.mode == "plus"
    assert {stage.resources.workers for stage in pipeline.stages} == {0}
    assert read(tmp_path, text, "stages.x=null").names == ["data"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("stages.dta.params.count=1", "no stage is called 'dta' (did you mean 'data'?)"),
        ("stages.data.params.cuont=1", "unknown key 'cuont' (did you mean 'count'?)"),
        ("stages.data.parms.count=1", "a stage has no 'parms' (did you mean 'params'?)"),
        ("sed=1", "nothing called 'sed' can be set (did you mean 'seed'?)"),
        ("stages.data.params.count", "write --set path.to.value=VALUE"),
        ("stages.data.params.count=[", "not YAML"),
        ("stages.data.params.count=x", "'count': input should be a valid integer"),
        ("stages.data.uses.x=1", "'x' cannot be set below a single value"),
        ("stages.data.params.options.rate=.inf", "'options.rate': input should be a finite"),
        ("stages.data.inputs.numbers=null", "no input 'numbers' to remove"),
        ("stages.data.resources.workers=atuo", "or 'auto', got \"atuo\" (did you mean 'auto'?)"),
        ("stages.data.resources.workers=-3", "greater than or equal to 0, or 'auto', got -3"),
        ("stages.data.resources.gpus_per_worker=none", "a valid number, or 'auto', got \"none\""),
        ("stages.data.resources.max_failures=-2", "greater than or equal to 0, got -2"),
        ("stages.data.resources.cpus_per_worker=0", "should be greater than 0, got 0"),
    ],
)
def test_set_mistakes_name_the_option(mistakes, setting, message):
    found = mistakes(HEAD, setting)
    assert any(line.startswith(f"--set {setting}: ") and message in line for line in found), found


def test_a_setting_that_is_no_text_is_a_mistake(bench, capsys):
    assert bench.run("stages.data.params.path=\udcff") == (2, [])
    expected = "--set stages.data.params.path=\\udcff: is not UTF-8"
    assert expected in capsys.readouterr().err and expected in bench.results()[-1]["error"]


def test_set_takes_groups_out(tmp_path):
    text = HEAD + "repeat: {rounds: 2, stages: {'x_{round}': {uses: draw}}}\n"
    assert read(tmp_path, text).names == ["data", "x_1", "x_2"]
    assert read(tmp_path, text, "repeat=null").names == ["data"]


def test_a_stage_may_be_called_what_is_no_word_in_yaml(tmp_path):
    names = ["001", "true", "1e5", "0x", "13"]
    lines = [
        f"  {name}: {{uses: numbers}}\n  of_{name}: {{uses: scale, inputs: {{numbers: {name}}}}}\n"
        for name in names
    ]
    text = "stages:\n" + "".join(lines) + f"  s: {{uses: total, inputs: {{parts: {names}}}}}\n"
    pipeline = read(tmp_path, text.replace("'", ""), "stages.of_13.inputs.numbers=001")
    wired = {name: pipeline[f"of_{name}"].inputs["numbers"] for name in names}
    assert wired == {name: (name,) for name in names} | {"13": ("001",)}
    assert pipeline["s"].inputs["parts"] == tuple(names)


@pytest.mark.parametrize(
    ("written", "wired"),
    [
        ('[a, "*"]', ("a", "b")),
        ('["a*", "*", "b*"]', ("a", "b")),
        ('["*", a]', ("a", "b", "a")),
        ("[a, a]", ("a", "a")),
    ],
)
def test_a_pattern_wires_no_stage_again(tmp_path, written, wired):
    text = (
        "stages:\n  a: {uses: numbers}\n  b: {uses: numbers}\n"
        f"  s: {{uses: total, inputs: {{parts: {written}}}}}\n"
    )
    assert read(tmp_path, text)["s"].inputs["parts"] == wired


def test_hints_at_braces_only_where_there_are_some(mistakes):
    (line,) = mistakes(HEAD, "seed=[1")
    assert "not YAML" in line and "braces" not in line


def test_set_takes_inputs_out(tmp_path):
    text = HEAD + "  x: {uses: draw, inputs: {numbers: data}, resources: {workers: 3}}\n"
    assert read(tmp_path, text)["x"].inputs == {"numbers": ("data",)}
    for name in ("x", "*"):
        settings = (f"stages.{name}.inputs.numbers=null", f"stages.{name}.resources.workers=null")
        stage = read(tmp_path, text, *settings)["x"]
        assert stage.inputs == {} and stage.resources.workers == "auto"


def test_a_needed_input_that_is_taken_out_is_missed_where_it_was(mistakes):
    (line,) = mistakes(
        HEAD + "  x: {uses: scale, inputs: {numbers: data}}\n", "stages.x.inputs.numbers=null"
    )
    assert line.startswith("--set stages.x.inputs.numbers=null: stage 'x' (scale) needs input")


def test_extends_merges_by_name(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "name: base\nroot: here\nseed: 5\nstages:\n"
        "  data: {uses: numbers, params: {count: 4, options: {rate: 0.5}}}\n"
        "  x: {uses: scale, inputs: {numbers: data}, params: {factor: 3}}\n"
        "  gone: {uses: draw}\n"
    )
    (tmp_path / "recipes").mkdir()
    file = tmp_path / "recipes" / "recipe.yaml"
    file.write_text(
        "extends: ../base.yaml\nstages:\n"
        "  data: {params: {options: {deep: false}}}\n"
        "  x: {uses: draw}\n"
        "  gone: null\n"
        "  new: {uses: scale, inputs: {numbers: data}}\n"
    )
    pipeline = read_pipeline(file, toys.registry())
    assert (pipeline.name, pipeline.root, pipeline.seed) == ("recipe", "here", 5)
    assert pipeline.names == ["data", "x", "new"]
    params = pipeline["data"].params
    assert (params.count, params.options.rate, params.options.deep) == (4, 0.5, False)
    # Another type starts afresh: the old one's input and parameters are gone.
    assert pipeline["x"].type.name == "draw" and pipeline["x"].inputs == {}


def test_several_files_are_extended_one_after_the_other(tmp_path):
    (tmp_path / "base.yaml").write_text("root: here\nstages:\n  data: {uses: numbers}\n")
    for name, factor in (("left", 3), ("right", 4)):
        (tmp_path / f"{name}.yaml").write_text(
            f"extends: base.yaml\nname: {name}\nstages:\n"
            f"  {name}: {{uses: scale, inputs: {{numbers: data}}, params: {{factor: {factor}}}}}\n"
            f"  both: {{uses: scale, inputs: {{numbers: {name}}}, params: {{factor: {factor}}}}}\n"
        )
    file = tmp_path / "recipe.yaml"
    file.write_text("extends: [left.yaml, right.yaml]\nstages:\n  right: {params: {factor: 5}}\n")
    pipeline = read_pipeline(file, toys.registry())
    assert (pipeline.name, pipeline.root) == ("recipe", "here")
    assert pipeline.names == ["data", "left", "right", "both"]
    assert [pipeline[name].params.factor for name in ("left", "right", "both")] == [3, 5, 4]
    assert pipeline["both"].inputs == {"numbers": ("right",)}
    file.write_text("extends: [left.yaml, 3]\n")
    with pytest.raises(SpecificationError, match=r"recipe\.yaml:1:10: extends: the name of a file"):
        read_pipeline(file, toys.registry())
    file.write_text("extends: []\nstages:\n  data: {uses: numbers}\n")
    with pytest.raises(SpecificationError, match="extends: the name of a file, or a list"):
        read_pipeline(file, toys.registry())


def test_a_file_that_several_extend_is_merged_once(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "stages:\n"
        "  data: {uses: numbers, params: {count: 4}}\n"
        "  spare: {uses: scale, inputs: {numbers: data}}\n"
    )
    (tmp_path / "mine.yaml").write_text(
        "extends: base.yaml\nstages:\n  data: {params: {count: 7}}\n  spare: null\n"
    )
    (tmp_path / "method.yaml").write_text(
        "extends: base.yaml\nstages:\n  more: {uses: scale, inputs: {numbers: data}}\n"
    )
    file = tmp_path / "both.yaml"
    for order in ("mine.yaml, method.yaml", "method.yaml, mine.yaml", "base.yaml, mine.yaml"):
        file.write_text(f"extends: [{order}]\n")
        pipeline = read_pipeline(file, toys.registry())
        assert pipeline["data"].params.count == 7
        assert pipeline.names == ["data", *(["more"] if "method" in order else [])]


def test_another_source_format_starts_afresh(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"extends: {Path(__file__).parents[2] / 'pipeline.yaml'}\nstages:\n"
        "  data: {params: {source: {format: beir, path: here}}}\n"
    )
    params = read_pipeline(file, registry())["data"].params
    assert (params.source.format, params.source.path) == ("beir", "here")
    assert params.passages_per_shard == 500


def test_extends_mistakes_stand_where_they_were_written(tmp_path):
    (tmp_path / "base.yaml").write_text("stages:\n  data: {uses: numbers, params: {cuont: 1}}\n")
    file = tmp_path / "recipe.yaml"
    file.write_text("extends: base.yaml\nstages:\n  dta: null\n  x: {uses: draw, params: {y: 1}}\n")
    with pytest.raises(SpecificationError) as caught:
        read_pipeline(file, toys.registry())
    places = [
        f"{p.position.source.rpartition('/')[2]}:{p.position.line}" for p in caught.value.problems
    ]
    assert places == ["base.yaml:2", "recipe.yaml:3", "recipe.yaml:4"]


def test_what_a_recipe_makes_wrong_stands_in_the_recipe(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "stages:\n"
        "  data: {uses: numbers}\n"
        "  kept: {uses: scale, inputs: {numbers: data}}\n"
        "  lost: {uses: scale, inputs: {numbers: data}}\n"
        "  other: {uses: draw}\n"
    )
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "extends: base.yaml\n"
        "stages:\n"
        "  other: {uses: scale}\n"
        "  lost:\n"
        "    inputs:\n"
        "      numbers: null\n"
        "  kept: {inputs: {nmbers: null}}\n"
    )
    with pytest.raises(SpecificationError) as caught:
        read_pipeline(file, toys.registry())
    found = [str(problem).removeprefix(f"{file}:") for problem in caught.value.problems]
    assert [line.partition(" ")[0] for line in found] == ["3:3:", "6:7:", "7:19:"]
    assert "needs input 'numbers'" in found[0] and "needs input 'numbers'" in found[1]
    assert "no input 'nmbers' to remove (did you mean 'numbers'?)" in found[2]


def test_extends_cycles_and_missing_files(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(SpecificationError, match=r"a\.yaml → b\.yaml → a\.yaml"):
        read_pipeline(tmp_path / "a.yaml", toys.registry())
    (tmp_path / "c.yaml").write_text("name: c\nextends: nowhere.yaml\n")
    with pytest.raises(SpecificationError, match=r"c\.yaml:2:10: cannot read .*nowhere\.yaml"):
        read_pipeline(tmp_path / "c.yaml", toys.registry())


ROUNDS = """\
stages:
  data: {uses: numbers}
  start: {uses: draw}
repeat:
  rounds: 3
  stages:
    x_{round}: {uses: scale, inputs: {numbers: "x_{previous}"}, params: {factor: "{round}"}}
  first:
    x_{round}: {inputs: {numbers: start}}
"""


def test_rounds_unroll(tmp_path):
    pipeline = read(tmp_path, ROUNDS)
    assert pipeline.names == ["data", "start", "x_1", "x_2", "x_3"]
    assert pipeline["x_1"].inputs == {"numbers": ("start",)}
    assert pipeline["x_3"].inputs == {"numbers": ("x_2",)}
    assert [pipeline[f"x_{n}"].params.factor for n in (1, 2, 3)] == [1, 2, 3]
    assert read(tmp_path, ROUNDS, "repeat.rounds=1").names == ["data", "start", "x_1"]
    chosen = read(tmp_path, ROUNDS, "stages.x_2.params.factor=9")
    assert chosen["x_2"].params.factor == 9 and chosen["x_3"].params.factor == 3


def test_round_1_has_to_be_told_where_it_starts(mistakes):
    assert ROUNDS.count("  first:\n") == 1
    (line,) = mistakes(ROUNDS.partition("  first:\n")[0])
    assert line.endswith("'x_0': round 1 has none before it; say below `first` where it starts")


def test_seeds_unroll_and_wildcards_gather_them(tmp_path):
    pipeline = read(
        tmp_path,
        "seed: 1\nstages:\n"
        "  sum: {uses: total, inputs: {parts: 'r_s*'}}\n"
        "  own: {uses: draw}\n"
        "repeat:\n"
        "- seeds: [7, 8]\n"
        "  stages:\n"
        "    r_s{seed}: {uses: draw}\n"
        "- {seeds: [7, 8], rounds: 2, stages: {'q_{seed}_{round}': {uses: draw}}}\n",
    )
    assert pipeline["sum"].inputs == {"parts": ("r_s7", "r_s8")}
    seeds = {stage.name: stage.seed for stage in pipeline.stages}
    assert seeds["own"] == 1 and seeds["r_s8"] == 8 and seeds["q_7_2"] == 7
    assert {"q_7_1", "q_7_2", "q_8_1", "q_8_2"} <= set(seeds)


VARIANTS = """\
stages:
  data: {uses: numbers}
  sum: {uses: total, inputs: {parts: "x_*"}}
repeat:
  seeds: [7, 8]
  variants:
    plain: {}
    tripled:
      x_{variant}_{seed}: {params: {factor: 3}}
    short:
      w_{variant}_{seed}: null
      x_{variant}_{seed}: {inputs: {numbers: data}}
  stages:
    w_{variant}_{seed}: {uses: scale, inputs: {numbers: data}}
    x_{variant}_{seed}:
      {uses: scale, inputs: {numbers: "w_{variant}_{seed}"}, params: {factor: 2}}
"""


def test_variants_unroll_around_seeds(tmp_path):
    pipeline = read(tmp_path, VARIANTS)
    gathered = ("x_plain_7", "x_plain_8", "x_tripled_7", "x_tripled_8", "x_short_7", "x_short_8")
    assert pipeline["sum"].inputs == {"parts": gathered}
    assert [pipeline[name].params.factor for name in gathered] == [2, 2, 3, 3, 2, 2]
    assert pipeline["x_tripled_8"].inputs == {"numbers": ("w_tripled_8",)}
    assert pipeline["x_short_8"].inputs == {"numbers": ("data",)}
    assert "w_short_7" not in pipeline.names
    assert pipeline["x_tripled_8"].seed == 8


def test_variants_are_merged_by_extends(tmp_path):
    (tmp_path / "base.yaml").write_text(VARIANTS)
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "extends: base.yaml\n"
        "repeat:\n"
        "  seeds: [7]\n"
        "  variants:\n"
        "    short: null\n"
        "    tripled: {'w_{variant}_{seed}': {params: {factor: 5}}}\n"
    )
    pipeline = read_pipeline(file, toys.registry())
    assert pipeline["sum"].inputs == {"parts": ("x_plain_7", "x_tripled_7")}
    assert pipeline["w_tripled_7"].params.factor == 5
    assert pipeline["x_tripled_7"].params.factor == 3


NAMED = """\
stages:
  start: {uses: draw}
repeat:
  early:
    rounds: 2
    stages:
      x_{round}: {uses: scale, inputs: {numbers: "x_{previous}"}, params: {factor: 2}}
    first:
      x_{round}: {inputs: {numbers: start}}
"""
LATE = """\
  late:
    rounds: 3
    stages:
      y_{round}: {uses: scale, inputs: {numbers: "y_{previous}"}, params: {factor: 5}}
    first:
      y_{round}: {inputs: {numbers: x_2}}
"""


def extended(tmp_path, base, text):
    (tmp_path / "base.yaml").write_text(base)
    file = tmp_path / "recipe.yaml"
    file.write_text("extends: base.yaml\n" + text)
    return read_pipeline(file, toys.registry())


def test_named_groups_are_merged_by_extends(tmp_path):
    change = "  early: {stages: {'x_{round}': {params: {factor: 9}}}}\n"
    pipeline = extended(tmp_path, NAMED, "repeat:\n" + change + LATE)
    assert pipeline.names == ["start", "x_1", "x_2", "y_1", "y_2", "y_3"]
    assert pipeline["y_1"].inputs == {"numbers": ("x_2",)}
    assert [pipeline[name].params.factor for name in ("x_1", "x_2", "y_3")] == [9, 9, 5]
    fewer = extended(tmp_path, NAMED + LATE, "repeat: {late: null}\n")
    assert fewer.names == ["start", "x_1", "x_2"]
    with pytest.raises(SpecificationError, match="no group 'lat' to remove"):
        extended(tmp_path, NAMED + LATE, "repeat: {lat: null}\n")


def test_rounds_and_variants_of_one_group(tmp_path):
    text = ROUNDS.replace("_{round}", "_{variant}_{round}").replace("_{previous}", "_a_{previous}")
    pipeline = read(tmp_path, text + "  variants: {a: {}}\n")
    assert pipeline["x_a_1"].inputs == {"numbers": ("start",)}
    assert pipeline["x_a_3"].inputs == {"numbers": ("x_a_2",)}


@pytest.mark.parametrize(
    ("repeat", "message"),
    [
        ("{rounds: 2, stages: {x: {uses: draw}}}", "put {round} into its name"),
        ("{rounds: 0, stages: {}}", "rounds is a number from 1, not 0"),
        ("{seeds: [1, 1], stages: {}}", "list of different numbers"),
        ("{stages: {}}", "needs `rounds: n`, `seeds: [..]` or `variants: {..}`"),
        ("{variants: [a], stages: {}}", "variants is a mapping of names to the stages"),
        ("{variants: {a: }, stages: {}}", "variant 'a' is a mapping of the stages that differ"),
        ("{variants: {a b: {}}, stages: {}}", "variant 'a b': use letters"),
        ("{variants: {a: {}, b: {}}, stages: {x: {uses: draw}}}", "put {variant} into its name"),
        ("{round: 2, stages: {}}", "unknown key 'round' in repeat (did you mean 'rounds'?)"),
        ("{rounds: 2}", "needs `stages`"),
        ("{rounds: 1, stages: {'x_{runde}': {uses: draw}}}", "unknown placeholder '{runde}'"),
        ("{rounds: 1, stages: {'data': {uses: draw}}}", "put {round} into its name"),
    ],
)
def test_repeat_mistakes(mistakes, repeat, message):
    found = mistakes(HEAD + f"repeat: {repeat}\n")
    assert any(line.startswith("5:") and message in line for line in found), found


@pytest.mark.parametrize(
    "mistake", ["roundz: 4", "seeds: [1, 1]", "first: 3", "variants: []", "rounds: 0"]
)
def test_a_group_with_a_mistake_is_still_read(mistakes, mistake):
    rounds = "" if mistake.startswith("rounds") else "  rounds: 2\n"
    found = mistakes(
        HEAD + "  sum: {uses: total, inputs: {parts: [x_2, x_1]}}\n"
        "  all: {uses: total, inputs: {parts: 'x_*'}}\n"
        "repeat:\n"
        f"  {mistake}\n{rounds}"
        "  stages:\n"
        "    x_{round}: {uses: scale, inputs: {numbers: data}, params: {facotr: 2}}\n"
    )
    assert len(found) == 2, "\n".join(found)
    assert found[0].startswith("8:") and "(did you mean 'factor'?)" in found[1]


@pytest.mark.parametrize("repeat", ["3", "{rounds: 2, stage: {}}"])
def test_what_a_group_may_have_called_its_stages_is_not_missed(mistakes, repeat):
    found = mistakes(HEAD + f"  sum: {{uses: total, inputs: {{parts: [x_2]}}}}\nrepeat: {repeat}\n")
    assert found and all(line.startswith("6:") for line in found)
    again = mistakes(HEAD + f"repeat: {repeat}\n", "stages.x_2.params.factor=2")
    assert again and all(line.startswith("5:") for line in again)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("{uses: scale, inputs: {numbers: data}, params: {facotr: 2}}", "'facotr'"),
        ("{uses: scale, inputs: {numbers: 'y_{round}'}}", "no stage is called 'y_1'"),
        ("{uses: scale}", "stage 'x_1' (scale) needs input 'numbers'"),
        ("{uses: draw, inputs: {numbers: 'x_{round}'}}", "in a circle: x_1 → x_1"),
        ("{uses: numbers, params: {path: 'data/{runde}'}}", "'{runde}' (did you mean 'round'?)"),
    ],
)
def test_what_is_written_once_in_a_group_is_told_once(mistakes, stage, message):
    found = mistakes(HEAD + f"repeat:\n  rounds: 3\n  stages:\n    x_{{round}}: {stage}\n")
    assert len(found) == 1 and found[0].startswith("8:") and message in found[0], found


def test_what_is_written_once_is_told_once_for_variants_and_anchors(mistakes):
    found = mistakes(
        HEAD + "  a: {uses: numbers, params: &wrong {cuont: 1}}\n"
        "  b: {uses: numbers, params: *wrong}\n"
        "repeat:\n  stages:\n    x_{variant}: {uses: scale}\n"
        "  variants:\n    a: {}\n    b: {'x_{variant}': {params: {factor: 3}}}\n"
    )
    assert len(found) == 2, found
    assert "stage 'a' (numbers): unknown key 'cuont'" in found[0]
    assert "stage 'x_a' (scale) needs input" in found[1]


def test_other_braces_are_the_parameters_own(tmp_path):
    text = HEAD + (
        "repeat:\n  rounds: 1\n  stages:\n"
        "    x_{round}: {uses: numbers, params: {path: '{query}/{round}'}}\n"
    )
    assert read(tmp_path, text)["x_1"].params.path == "{query}/1"


def test_stage_types_cannot_take_the_runners_folders(tmp_path):
    (tmp_path / "pipeline.yaml").write_text(HEAD)
    with pytest.raises(ValueError, match="no stage type can be called 'refs'"):
        read_pipeline(tmp_path / "pipeline.yaml", {"refs": toys.draw})


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_acyclic_graph_is_ordered(tmp_path_factory, data):
    count = data.draw(st.integers(1, 8))
    rank = data.draw(st.permutations(range(count)))
    edges = {
        child: data.draw(
            st.sets(st.sampled_from([p for p in range(count) if rank[p] < rank[child]]))
        )
        if rank[child]
        else set()
        for child in range(count)
    }
    lines = ["stages:"]
    for child, parents in edges.items():
        given_ = ", ".join(f"s{p}" for p in sorted(parents))
        wiring = f", inputs: {{parts: [{given_}]}}" if parents else ""
        lines.append(f"  s{child}: {{uses: gather{wiring}}}")
    file = tmp_path_factory.mktemp("graph") / "p.yaml"
    file.write_text("\n".join(lines))
    gather = replace(
        toys.total,
        name="gather",
        inputs={"parts": Input((toys.TOTAL,), many=True, optional=True)},
    )
    names = read_pipeline(file, {"gather": gather}).names
    # Stable: at every place stands the first stage of the file whose parents stand before it.
    placed: list[str] = []
    for _ in range(count):
        placed.append(
            next(
                f"s{c}"
                for c in range(count)
                if f"s{c}" not in placed and {f"s{p}" for p in edges[c]} <= set(placed)
            )
        )
    assert names == placed
