"""The breakdown of a decode step: parts that add up, and control counted as such."""

from __future__ import annotations

import time

import pytest

from backend.overhead import CONTROL, control_overhead
from backend.stopwatch import Laps, Silent


def test_the_parts_of_a_step_add_up_and_control_is_their_marked_sum(tiny):
    parts = control_overhead(tiny, batch=3, context=300, steps=4)
    rows = {part.part: part for part in parts}
    assert parts[0].part == "step"
    assert rows["step"].share == 1.0
    marked = [part for part in parts if part.control and part.part != "control"]
    assert {part.part for part in marked} == {*CONTROL, "loop beyond baseline"}
    assert rows["control"].seconds == pytest.approx(sum(part.seconds for part in marked))
    inside = [p for p in parts if p.part not in ("step", "control") and "selection" not in p.part]
    # Each is the least over its own steps, so their sum cannot pass the quickest step.
    assert 0.0 < sum(part.seconds for part in inside) <= rows["step"].seconds * 1.001
    for part in parts:
        assert part.share == pytest.approx(part.seconds / rows["step"].seconds)
    assert rows["forward"].seconds > 0.0
    assert rows["page selection at 0.95"].seconds > 0.0
    assert not rows["page selection at 0.95"].control


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"steps": 0}, "steps must be >= 1"),
        ({"batch": 0}, "batch must be >= 1"),
        ({"context": 0}, "context must be >= 1"),
        ({"coverage": 1.0}, r"coverage must lie in \(0, 1\)"),
        ({"preset": "nothing"}, "unknown preset 'nothing'"),
    ],
)
def test_bad_arguments_are_refused_by_name(tiny, options, text):
    with pytest.raises(ValueError, match=text):
        control_overhead(tiny, **options)


def test_laps_add_up_by_part_and_start_again():
    laps = Laps()
    for _ in range(2):
        with laps.part("slow"):
            time.sleep(0.002)
    with pytest.raises(KeyError), laps.part("failed"):
        raise KeyError
    taken = laps.take()
    assert taken["slow"] >= 0.004
    assert set(taken) == {"slow", "failed"}
    assert laps.take() == {}


def test_a_silent_stopwatch_can_be_nested():
    silent = Silent()
    with silent.part("a"), silent.part("a"):
        pass
