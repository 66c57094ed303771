"""Warnings that several stages share."""

from __future__ import annotations

from pipeline.stages import cautions


def test_a_warning_of_the_overlap_begins_beyond_ninety_percent() -> None:
    for overlap, warned in ((0.9, []), (0.901, ["90%"]), (1.0, ["100%"])):
        found = cautions.on_overlap({"overlap_with_top": overlap}, "so do this")
        assert [line.split(" ")[0] for line in found] == warned
        assert all(line.endswith(": so do this") for line in found)
    assert not cautions.on_overlap({}, "so do this")
