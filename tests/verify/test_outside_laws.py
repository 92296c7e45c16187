"""What a sceptical outsider may ask of the verifier: fair, right for the right reason, clear."""

from __future__ import annotations

import math

import numpy as np
import pytest

from controllers.compose import Gated, Shadow, rate_limited
from controllers.core import LoadSignal
from controllers.coverage import EntropyCoverage, FixedCoverage
from controllers.ops import Array
from controllers.temperature import EntropyFeedback, FixedTemperature
from reports.verify import priority, serving
from reports.verify.finding import Finding, Verdict
from reports.verify.micro import PROPERTIES as MICRO
from reports.verify.plants import recorded_rows
from reports.verify.property import excess, lanes_of
from reports.verify.replay import replay, write_json
from reports.verify.report import figures
from reports.verify.run import REFUTED, check
from reports.verify.setting import get_budget
from reports.verify.target import resolve, role_of
from tests.verify.planted.sound import Aged, Integrator
from tests.verify.planted.subtle_laws import ChangesOurs

SUBTLE = "tests.verify.planted.subtle_laws"
BUDGET = get_budget("ci", lanes=400)
DENSE = FixedCoverage(coverage=1.0)
STABILITY = MICRO[0]


def found_of(spec: str, prop) -> Finding:
    target = resolve(spec)
    return check(prop, target.parts[0], target, BUDGET)


@pytest.mark.parametrize(
    "law",
    [
        Gated(law=EntropyCoverage(), fallback=DENSE),
        rate_limited(EntropyCoverage(), 0.02, DENSE),
        Shadow(applied=DENSE, observed=EntropyCoverage()),
    ],
    ids=lambda law: type(law).__name__,
)
def test_a_wrapped_coverage_law_is_a_coverage_law(law):
    assert role_of(law, "mine") == "coverage"


def test_a_wrapped_temperature_law_is_a_temperature_law():
    shadow = Shadow(applied=FixedTemperature(), observed=EntropyFeedback())
    for law in (Gated(law=Integrator()), rate_limited(Integrator(), 0.1), shadow):
        assert role_of(law, "mine") == "temperature"


def test_our_theory_does_not_certify_a_class_that_replaces_our_code():
    found = found_of(f"{SUBTLE}:ChangesOurs", STABILITY)
    assert found.verdict is Verdict.VIOLATED
    assert found.certificate is None
    assert REFUTED not in found.note


def test_whoever_keeps_our_code_keeps_our_certificates():
    class Renamed(EntropyFeedback):
        pass

    assert STABILITY.certificate(Renamed()) is not None
    assert STABILITY.certificate(Gated(law=ChangesOurs())) is None


@pytest.mark.parametrize("name", ["KeepsTwoPages", "LeaksOnTheThird"])
def test_a_scheduler_that_fails_only_under_long_requests_or_late_is_found(name):
    found = found_of(f"{SUBTLE}:{name}", serving.PROPERTIES[0])
    assert found.verdict is Verdict.VIOLATED
    assert ("idle" if name == "KeepsTwoPages" else "leaked") in " ".join(found.story)


class Doubling:
    """Doubles every second: infinite after two minutes, but never falling."""

    def init(self, signal: LoadSignal) -> tuple[()]:
        return ()

    def update(self, state: tuple[()], signal: LoadSignal) -> tuple[tuple[()], Array]:
        value = np.float32(1.0) + signal.completion - np.float32(1e-3) * signal.slack_s
        return state, (value + np.float32(2.0)) * np.exp2(signal.wait_s)


def test_a_priority_that_overflows_is_not_accused_of_demoting():
    case = {**dict.fromkeys(priority.REQUEST, 0.0), "age_beyond_wait_s": 0.0}
    for wait_s in (0.0, 126.7, 1e4):
        for prop, move in ((priority.URGENCY, -500.0), (priority.COMPLETION, 1.0)):
            lanes = lanes_of({**case, "wait_s": wait_s, "move": move})
            assert excess(prop.measure(Doubling(), lanes))[0] <= 0.0


def test_the_bound_of_a_claimed_wait_is_the_claim():
    case = {f"{who}_{name}": 0.0 for who in ("waiter", "fresh") for name in priority.REQUEST}
    hot = {"fresh_collapse_nats": 12.0, "age_beyond_wait_s": 0.0}
    measured = priority.Aging().measure(Aged(), lanes_of({**case, **hot}))
    assert measured.bound[0] == Aged().max_wait_s
    assert measured.value[0] <= measured.bound[0]


def test_a_recorded_plant_answers_a_lost_law_with_nan():
    h, v = recorded_rows(np.array([0, 1])).response(np.array([math.nan, 0.0]))
    assert np.isnan([h[0], v[0]]).all()
    assert np.isfinite([h[1], v[1]]).all()


@pytest.mark.parametrize(
    ("name", "value"), [("plant", "banana"), ("t_star", -1.0), ("n", "x"), ("spread", None)]
)
def test_a_counterexample_whose_case_is_damaged_is_refused(name, value, tmp_path):
    document = found_of(f"{SUBTLE}:ChangesOurs", STABILITY).counterexample
    assert document is not None
    path = write_json(
        tmp_path / "found.json", document | {"case": document["case"] | {name: value}}
    )
    with pytest.raises(ValueError, match=f"{name} = {value!r} is outside"):
        replay(path)


def test_rounding_noise_is_no_conservatism():
    def row(worst: float) -> Finding:
        return Finding(
            name="n", role="r", subject="s", verdict=Verdict.SEARCHED, statement="", bound=1.0,
            worst=worst,
        )  # fmt: skip

    assert row(0.5).conservatism == 2.0
    assert row(1e-15).conservatism is None


def test_a_value_that_is_no_number_is_called_that():
    assert figures(math.nan, 1.0) == "no number"


def test_a_role_is_refused_where_there_is_more_than_one_law():
    for spec in ("full", f"{SUBTLE}:KeepsTwoPages"):
        with pytest.raises(ValueError, match="'priority' is for a lone law"):
            resolve(spec, "priority")


def test_a_file_without_a_law_is_refused_by_saying_how_to_name_one():
    with pytest.raises(ValueError, match=r"'my\.py' is a file: say which law, as in my\.py:MyLaw"):
        resolve("my.py")


def test_a_search_of_years_is_refused():
    with pytest.raises(ValueError, match="lanes must be at most 100,000,000; got lanes=10"):
        get_budget("ci", lanes=10**12)
