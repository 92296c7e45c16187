"""Where the knee and the number of servers disagree near the edge, a plan says so."""

from __future__ import annotations

import pytest

from simulator.plan_edge import contradictions, load_of_knee
from simulator.plan_search import Answer, Load
from simulator.plan_verdict import judge
from simulator.slo import parse_slo

SLO = parse_slo("ttft_p99<1s")


def load(replicas: int, rate_per_s: float, ttft_s: float) -> Load:
    hour = {"ttft_s.p99": ttft_s}
    return Load(
        preset="baseline",
        replicas=replicas,
        rate_per_s=rate_per_s,
        verdict=judge(SLO, hour, [hour, hour]),
        recorded=hour,
        draws=(hour, hour),
    )


def answer(fewest: Load, fewer: Load | None = None, knee_per_s: float = 10.0) -> Answer:
    knee = load(1, knee_per_s, 0.9)
    return Answer(preset="baseline", knee=knee, above=1.03 * knee_per_s, fewest=fewest, fewer=fewer)


def test_a_plan_that_agrees_with_its_knee_says_nothing():
    agreed = answer(load(3, 24.0, 0.5), load(2, 24.0, 1.5))
    assert contradictions(agreed) == []
    assert load_of_knee(agreed) == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (answer(load(2, 21.0, 0.5), load(1, 21.0, 1.5)), ("10.50", "beyond the knee", "10.00")),
        (answer(load(1, 10.2, 0.5)), ("beyond the knee", "a step of 3 %")),
        (answer(load(1, 11.0, 0.5)), ("beyond the knee", "do not rise evenly")),
        (answer(load(3, 18.0, 0.5), load(2, 18.0, 1.5)), ("2 server(s)", "misses", "router")),
        (answer(load(2, 9.0, 0.5), load(1, 9.0, 1.5)), ("1 server(s)", "do not rise evenly")),
        (answer(load(4, 30.0, 1.5)), ("4 server(s)", "7.500", "do not meet the level (misses)")),
    ],
)
def test_a_contradiction_is_named_with_both_figures_and_a_reason(found, words):
    (line,) = contradictions(found)
    for word in words:
        assert word in line


def test_a_level_without_a_knee_contradicts_nothing():
    lone = Answer(preset="b", knee=None, above=1.0, fewest=load(2, 9.0, 0.5), fewer=None)
    assert contradictions(lone) == []
    assert load_of_knee(lone) is None


@pytest.mark.parametrize("knee", [None, load(1, 2.0, 0.9)])
def test_a_knee_that_resamples_set_far_below_the_recordings_says_so(knee):
    found = Answer(
        preset="b",
        knee=knee,
        above=2.06,
        fewest=load(2, 9.0, 0.5),
        fewer=load(1, 9.0, 1.5),
        recorded_knee_per_s=4.1,
    )
    (line,) = contradictions(found)  # and blames no router for it
    for word in ("4.100 requests/s on the recording alone", "interval sets the knee, not the load"):
        assert word in line
    assert ("at no rate for sure" if knee is None else "up to 2.000 for sure") in line
