"""Micro properties: good laws keep them, bad laws break the one made for them, edges are exact."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest

from controllers import certificates
from controllers.compose import Gated, delayed, rate_limited
from controllers.core import TokenSignal
from controllers.entropy import max_varentropy
from controllers.ops import Array
from controllers.presets import PRESETS
from controllers.temperature import (
    EntropyFeedback,
    FeedforwardNewton,
    FixedTemperature,
    SeedLiteral,
)
from reports.verify.draw import draw
from reports.verify.micro import PROPERTIES, Delay, Settles, Stability
from reports.verify.micro_bypass import Bypass
from reports.verify.micro_cap import Cap
from reports.verify.micro_cases import measure_by_plant
from reports.verify.micro_loop import STAR_HIGH, STAR_LOW, Loop, run
from reports.verify.micro_tube import Tube, slopes_met
from reports.verify.micro_windup import Windup
from reports.verify.plants import peak_levels
from reports.verify.property import (
    Cases,
    Measured,
    Property,
    case_of,
    excess,
    lanes_of,
    n_lanes,
)
from tests.verify.planted.control_laws import (
    DRIFTS_WHILE_OFF,
    IgnoresTheCap,
    MeasuresAtOne,
    Relay,
    WindsUp,
)

N = max_varentropy(50_257)
FEW = 128  # lanes
GOOD: dict[str, Any] = {
    "feedback": EntropyFeedback(),
    "gated": PRESETS["full"].temperature,
    "newton": PRESETS["best"].temperature,
    "fixed": FixedTemperature(),
    "delayed": delayed(EntropyFeedback(), 2),
}


def plain(gain: float) -> EntropyFeedback:
    return EntropyFeedback(gain=gain, c=1e9, rate=1e9)


def cases_for(prop: Property, law: Any, lanes: int, seed: int = 0, **fixed: Any) -> Cases:
    cases = draw(prop.space(law), np.random.default_rng(seed), lanes)
    return cases | {name: np.full(lanes, value) for name, value in fixed.items()}


def broken(prop: Property, law: Any, cases: Cases) -> np.ndarray:
    return np.flatnonzero(excess(prop.measure(law, cases)) > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LateGate(Gated):
    """A gate that closes one step after it was told to."""

    def update(self, state: Any, signal: TokenSignal) -> tuple[Any, Array]:
        inner, was_on = state[0], state[1]
        late = signal._replace(enabled=was_on)
        after, command = Gated.update(self, inner, late)
        return LateState(after, signal.enabled * 1.0, after.law), command

    def init(self, signal: TokenSignal) -> Any:
        inner = Gated.init(self, signal)
        return LateState(inner, signal.enabled * 1.0, inner.law)


class LateState(NamedTuple):
    inner: Any
    was_on: Array
    law: Any


@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda p: p.name)
@pytest.mark.parametrize("name", GOOD)
def test_good_laws_keep_every_property(prop: Property, name: str) -> None:
    law = GOOD[name]
    if prop.unfit(law):
        assert prop.name == "micro.bypass"
        assert not isinstance(law, Gated)
        return
    assert len(broken(prop, law, cases_for(prop, law, FEW))) == 0


@pytest.mark.parametrize(
    ("prop", "law"),
    [
        (Stability(), SeedLiteral()),
        (Stability(), PRESETS["seed"].temperature),
        (Stability(), delayed(SeedLiteral(), 3)),
        (Stability(), MeasuresAtOne()),
        (Stability(), plain(1.02 * 2 / N)),
        (Settles(), Relay()),
        (Settles(), plain(1.4 * 2 / N)),
        (Delay(), plain(0.75 * 2 / N)),
        (Windup(), WindsUp()),
        (Windup(), SeedLiteral()),
        (Cap(), IgnoresTheCap()),
        (Bypass(), DRIFTS_WHILE_OFF),
        (Bypass(), LateGate(law=EntropyFeedback())),
    ],
    ids=lambda part: getattr(part, "name", type(part).__name__),
)
def test_a_bad_law_breaks_the_property_made_for_it_and_its_story_says_so(
    prop: Property, law: Any
) -> None:
    cases = cases_for(prop, law, FEW if isinstance(prop, Settles) else 2_048)
    lanes = broken(prop, law, cases)
    assert len(lanes) > 0
    story = prop.story(law, case_of(cases, int(lanes[0])))
    assert 6 <= len(story) <= 30
    assert max(map(len, story)) <= 110
    good = EntropyFeedback() if prop.name != "micro.bypass" else Gated(law=EntropyFeedback())
    assert prop.story(good, case_of(cases, int(lanes[0])))[-1] != story[-1]


def test_the_gain_range_is_exact_a_hundred_thousand_lanes_hold_inside_and_break_outside() -> None:
    prop = Stability()
    for start in range(0, 100_000, 50_000):
        cases = cases_for(prop, plain(0.1), 50_000, seed=start)
        # The two kinds of plant that reach N_n at 50,257 outcomes; the others are tested above.
        cases["plant"] = np.where(np.arange(50_000) % 2 == 0, "peak", "levels")
        assert len(broken(prop, plain(0.98 * 2 / N), cases)) == 0
    assert len(broken(prop, plain(1.02 * 2 / N), {k: v[:4_096] for k, v in cases.items()})) > 0


def test_one_step_of_sensor_delay_halves_the_gain_range_exactly() -> None:
    prop, edge = Delay(), certificates.delay_limit(1) / N
    cases = cases_for(prop, plain(edge), 1_024, late=1, n=50_257, plant="peak")
    assert edge == pytest.approx(1 / N)
    assert len(broken(prop, plain(0.98 * edge), cases)) == 0
    assert len(broken(prop, plain(1.02 * edge), cases)) > 0


def test_the_default_feedback_law_bears_a_sensor_one_and_two_steps_late() -> None:
    for late in (1, 2):
        cases = cases_for(Delay(), EntropyFeedback(), 768, seed=late, late=late)
        assert len(broken(Delay(), EntropyFeedback(), cases)) == 0


def test_the_tube_is_nearly_filled_and_the_papers_radius_without_drift_is_too_small() -> None:
    law = plain(1 / N)
    cases = cases_for(Tube(), law, 1_024, plant="peak", noise="worst", path="flee")
    value, bound = Tube().measure(law, cases)
    assert (value <= bound).all()
    assert np.max(value / bound) > 0.9
    slow = cases | {"drift": np.full(1_024, 0.03), "noise_nats": np.full(1_024, 1e-3)}

    def against_the_paper(picked: Cases, plant: Any) -> Measured:
        path = run(law, plant, Tube()._loop(law, picked))
        mu = slopes_met(path, plant)[0]
        return Measured(np.abs(path.error).max(axis=0), picked["noise_nats"] / mu)

    paper = measure_by_plant(slow, against_the_paper)
    assert np.mean(paper.value > paper.bound) > 0.5
    assert len(broken(Tube(), law, slow)) == 0


def test_a_law_without_theory_gets_no_tube_but_its_error_is_reported() -> None:
    value, bound = Tube().measure(FeedforwardNewton(), cases_for(Tube(), FeedforwardNewton(), 64))
    assert np.isinf(bound).all()
    assert np.isfinite(value).all()


def test_windup_allows_a_law_its_own_delay_and_no_more() -> None:
    law = delayed(EntropyFeedback(), 5)
    value, bound = Windup().measure(law, cases_for(Windup(), law, 256))
    assert value.max() == 6.0
    assert (bound == 21.0).all()


@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda p: p.name)
def test_a_case_replays_alone_from_json_to_the_same_value(prop: Property) -> None:
    law = Gated(law=EntropyFeedback())
    cases = cases_for(prop, law, 24, seed=3)
    together = prop.measure(law, cases)
    for lane in range(0, n_lanes(cases), 7):
        case = json.loads(json.dumps(case_of(cases, lane)))
        alone = prop.measure(law, lanes_of(case))
        np.testing.assert_allclose(alone.value[0], together.value[lane], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(alone.bound[0], together.bound[lane], rtol=1e-9)


@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda p: p.name)
def test_theory_and_search_agree_about_the_shipped_laws(prop: Property) -> None:
    for law in (Gated(law=EntropyFeedback()), PRESETS["best"].temperature):
        proof = prop.certificate(law)
        if proof is not None and proof.holds:
            assert proof.name == prop.name
            assert len(broken(prop, law, cases_for(prop, law, 48, seed=9))) == 0
    printed = prop.certificate(SeedLiteral())
    if printed is not None and not printed.holds and math.isfinite(printed.bound):
        assert len(broken(prop, SeedLiteral(), cases_for(prop, SeedLiteral(), 96))) > 0


def test_a_law_that_returns_nan_breaks_stability() -> None:
    class Lost(EntropyFeedback):
        def update(self, state: Any, signal: TokenSignal) -> tuple[Any, Array]:
            after, command = super().update(state, signal)
            return after, command * math.nan

    assert len(broken(Stability(), Lost(), cases_for(Stability(), Lost(), 8))) == 8


def test_the_adversary_stays_within_what_it_declares() -> None:
    lanes, law = 12, plain(0.02)
    star = np.linspace(STAR_LOW, STAR_HIGH, lanes)
    kinds = np.array(["worst", "constant", "alternating", "random"] * 3)
    path = run(
        law,
        peak_levels(np.full(lanes, 50), star),
        Loop(
            steps=80,
            x_user=star,
            x_star=star,
            noise=kinds,
            noise_nats=0.3,
            drift=0.02,
            path=np.where(np.arange(lanes) % 2 == 0, "flee", "sweep"),
            seed=np.arange(lanes),
        ),
    )
    moves = np.abs(np.diff(path.x_star, axis=0))
    assert moves.max() <= 0.02 + 1e-12
    assert moves.max() > 0.01
    assert path.x_star.min() >= STAR_LOW - 1e-12
    assert path.x_star.max() <= STAR_HIGH + 1e-12
    # x+ = x - gain (H + noise - H*) gives the noise back, off the clips
    heard = (path.x_in - path.u) / law.gain - (path.h_in - path.target)
    inside = (path.u > law.x_min) & (path.u < law.x_max)
    assert np.abs(heard[inside]).max() <= 0.3 + 1e-9
    assert np.ptp(heard[:, 2][inside[:, 2]]) == pytest.approx(0.6)


def test_a_late_sensor_reports_what_held_so_many_steps_ago() -> None:
    law, star = plain(0.01), np.array([-0.1, -0.1, -0.1])
    plant = peak_levels(np.full(3, 1_000), star)
    path = run(law, plant, Loop(steps=12, x_user=star + 0.3, x_star=star, late=np.array([0, 1, 2])))
    heard = (path.x_in - path.u) / law.gain + path.target
    for lane in range(3):
        seen = path.h_in[np.maximum(np.arange(12) - lane, 0), lane]
        np.testing.assert_allclose(heard[:, lane], seen, rtol=1e-9)


def test_the_equilibrium_stays_between_the_clips_a_law_declares() -> None:
    law = Gated(law=EntropyFeedback(x_min=math.log(0.8), x_max=math.log(1.1)))
    cases = cases_for(Stability(), law, 256)
    assert cases["t_star"].min() >= 0.8 - 1e-12
    assert cases["t_star"].max() <= 1.1 + 1e-12


def test_a_law_that_measures_nothing_is_unfit() -> None:
    assert "x_in" in Stability().unfit(object())
    assert "gated" in Bypass().unfit(rate_limited(EntropyFeedback(), 0.1))
