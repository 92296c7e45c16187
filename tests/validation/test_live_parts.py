"""Live validation without a model: what is asked, and how what came out is judged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from reports.validation.live_commands import limits, numbers
from reports.validation.live_curves import trajectory_rows, wasserstein
from reports.validation.live_growth import growth_of, growth_per_s
from reports.validation.live_load import LiveError, LiveOptions, Spec, asked_of, specs
from reports.validation.live_profile import rescaled_law
from reports.validation.live_rows import judge
from tests.backend.tiny import STEP_LAW
from tests.validation.live_world import OPTIONS, arrivals, observed

CLOSED = Spec(preset="baseline", load=0.0, repeat=0)


def test_runs_of_one_load_share_their_arrivals_and_not_their_noise():
    runs = [Spec(preset="baseline", load=0.8, repeat=repeat) for repeat in (0, 1)]
    one, two = (asked_of(OPTIONS, arrivals(), spec, 2.0) for spec in runs)
    assert [a.at_s for a in one] == [b.at_s for b in two]
    assert [a.request.prompt_tokens for a in one] == [b.request.prompt_tokens for b in two]
    assert not {a.request.seed for a in one} & {b.request.seed for b in two}


def test_a_load_is_its_share_of_the_capacity():
    for load in (0.5, 1.1):
        asked = asked_of(OPTIONS, arrivals(), Spec(preset="full", load=load, repeat=0), 40.0)
        span = asked[-1].at_s - asked[0].at_s
        assert (len(asked) - 1) / span == pytest.approx(load * 40.0)


def test_presets_and_loads_are_interleaved_within_each_repeat():
    made = specs(LiveOptions())
    assert made[0] == CLOSED
    assert len(made) == len(set(made)) == 1 + 5 * 6 + 3
    rounds = [run.repeat for run in made[1:]]
    assert rounds == sorted(rounds)
    orders = {tuple((s.preset, s.load) for s in made if s.repeat == r) for r in (3, 4)}
    assert len(orders) == 2


@pytest.mark.parametrize(
    ("half", "simulated", "repeats", "verdict"),
    [
        (0.01, 1.04, 5, "inside"),
        (0.08, 1.07, 5, "inside"),
        (0.06, 1.07, 5, "outside"),
        (0.20, 1.07, 5, "undecided"),
        (0.01, 1.07, 4, "undecided"),
        (None, 1.07, 1, "undecided"),
        (None, 0.96, 1, "inside"),
    ],
)
def test_a_verdict_follows_the_bar(half: float, simulated: float, repeats: int, verdict: str):
    assert judge(1.0, half, simulated, repeats) == verdict


def test_the_distance_of_distributions_is_how_far_one_must_be_moved():
    rng = np.random.default_rng(1)
    values = rng.normal(size=500)
    assert wasserstein(values, rng.permutation(values)) == 0.0
    assert wasserstein(values, values + 0.25) == pytest.approx(0.25)
    assert wasserstein(np.array([0.0, 1.0]), np.array([0.5])) == pytest.approx(0.5)


def test_a_prediction_equal_to_the_measurement_is_at_no_distance():
    at = np.arange(6.0)
    seen = observed(at, at + 0.5, at + 1.0)
    for row in trajectory_rows([seen, seen], seen):
        assert row["distance"] == row["floor"] == row["by_request"] == 0.0


def test_a_queue_that_grows_is_called_unstable_and_its_growth_is_the_excess():
    n, rate, served = 400, 1.1, 1.0
    arrival = np.arange(n) / rate
    finish = np.maximum(arrival, np.arange(n) / served) + 0.5
    seen = observed(arrival, finish - 0.2, finish)
    assert growth_per_s(seen.watched()) == pytest.approx(rate - served, abs=0.01)
    found = growth_of([seen], [seen])
    assert found["verdict_measured"]["verdict"] == "unstable"
    assert found["agree"]
    assert found["growth_difference_per_s"]["mean"] == 0.0


def test_a_law_is_rescaled_in_every_coefficient():
    doubled = rescaled_law(STEP_LAW, 2.0)
    for args in ((4, 900, 0, 0), (2, 50, 100, 10_000)):
        assert doubled.step_s(*args) == pytest.approx(2.0 * STEP_LAW.step_s(*args))
    with pytest.raises(LiveError, match="drift must be finite and > 0"):
        rescaled_law(STEP_LAW, 0.0)


def test_option_texts_are_read_or_named():
    assert numbers("loads", ".5,.8") == (0.5, 0.8)
    assert limits("prompt_tokens", "64-1024") == (64, 1024)
    with pytest.raises(LiveError, match="loads: must be numbers"):
        numbers("loads", "a,b")
    with pytest.raises(LiveError, match="prompt_tokens: must be LO-HI"):
        limits("prompt_tokens", "1024")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"loads": (0.0,)}, "loads must be finite and > 0"),
        ({"presets": ("none",)}, "unknown preset 'none'"),
        ({"prompt_tokens": (9, 3)}, "prompt_tokens must be LO-HI"),
        ({"max_tokens": 1}, "max_tokens must be >= 2"),
        ({"temperature": 0.0}, "temperature must be finite and > 0"),
        ({"loads": (0.5, 0.5)}, "loads must be distinct"),
    ],
)
def test_bad_options_are_named(changed: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        replace(OPTIONS, **changed)
