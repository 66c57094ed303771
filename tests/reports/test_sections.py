from __future__ import annotations

from pipeline.reports import sections


def test_ladders_show_the_chosen_measures_as_far_as_there_are_some():
    def measured(**means: float) -> dict:
        return {name: {"mean": mean, "deviation": None} for name, mean in means.items()}

    one = {
        "judged_queries": 3,
        "systems": {"a": measured(x=0.1, y=0.2, z=0.3), "b": measured(x=0.4, z=0.5)},
        "groups": {},
        "comparisons": [],
        "not_compared": [],
    }
    (table,) = sections.evaluation("ladder", {"dev": one}, ["z", "absent", "y"]).tables
    assert list(table.header) == ["system", "z", "y"]
    assert [list(row) for row in table.rows] == [["a", "0.300", "0.200"], ["b", "0.500", "-"]]
