from __future__ import annotations

import pytest

from pipeline.methods.refresh import RefreshSchedule


@pytest.mark.parametrize(("every", "lag"), [(1, 0), (1, 1), (4, 0), (4, 1), (4, 3), (4, 4), (7, 5)])
def test_each_step_trains_on_the_newest_version_that_is_old_enough(every: int, lag: int):
    """Against steps that are walked one by one, handing over and taking over."""
    schedule, total = RefreshSchedule(every, lag), 30
    in_force, in_the_making = 0, []
    for step in range(total):
        if in_the_making and step == in_the_making[0] * every + lag:
            in_force = in_the_making.pop(0)
            assert schedule.first_step(in_force) == step
        assert schedule.version(step) == in_force
        staleness = step - schedule.encoder_step(in_force)
        assert 0 <= staleness <= lag + every - 1
        assert in_force == 0 or staleness >= lag
        done = step + 1
        if done % every == 0 and done + lag < total:
            assert schedule.due(done, total) == done // every
            in_the_making.append(done // every)
            # The one that comes into force at this very step is ready by then.
            assert len([v for v in in_the_making if v * every + lag != done]) <= 1
        else:
            assert schedule.due(done, total) is None
    assert not in_the_making, "what is never in force is not made"


@pytest.mark.parametrize(("every", "lag"), [(1, 0), (1, 1), (4, 0), (4, 1), (4, 4), (7, 5)])
def test_whoever_goes_on_finds_or_hands_over_all_that_is_read(every: int, lag: int):
    schedule, total = RefreshSchedule(every, lag), 30
    for resumed in range(total):
        made = set(schedule.needed(resumed))
        assert len(made) <= 3
        for step in range(resumed, total):
            read = {schedule.version(step)}
            if schedule.version(step) and step == schedule.first_step(schedule.version(step)):
                read.add(schedule.version(step) - 1)  # Compared with the one before.
            assert read <= made
            made.add(schedule.due(step + 1, total) or 0)
