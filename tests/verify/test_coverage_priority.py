"""Coverage and priority properties: ours keep them, the printed laws and planted ones do not."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers import ops
from controllers.compose import Gated
from controllers.core import Law, LoadSignal, TokenSignal
from controllers.coverage import (
    EntropyCoverage,
    EntropyCoverageState,
    FixedCoverage,
    SeedCoverage,
)
from controllers.ops import Array
from controllers.priority import EntropyPriority, Fcfs, SeedPriority
from reports.verify import coverage, priority
from reports.verify.property import Case, Property, excess, lanes_of
from reports.verify.search import search
from reports.verify.setting import Budget

BUDGET = Budget(name="test", lanes=600, batch=600, worst=4, rounds=2, neighbours=8, examples=0)
DENSE = FixedCoverage()
MONOTONE, DIRECTION, CHATTER, MASKED = coverage.PROPERTIES
URGENCY, COMPLETION, BOUNDED, AGING = priority.PROPERTIES


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Falling:
    """Coverage that falls with entropy, and forgets the mask."""

    def init(self, signal: TokenSignal) -> tuple[()]:
        return ()

    def update(self, state: tuple[()], signal: TokenSignal) -> tuple[tuple[()], Array]:
        return state, ops.clip(0.9 - 0.05 * signal.h_cal, 0.1, 0.9)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Twitchy:
    """Promises a dwell and a rate that it does not keep."""

    dwell: int = 8
    rate: float = 0.02
    inner: SeedCoverage = dataclasses.field(default_factory=SeedCoverage)

    def init(self, signal: TokenSignal) -> object:
        return self.inner.init(signal)

    def update(self, state: object, signal: TokenSignal) -> tuple[object, Array]:
        return self.inner.update(state, signal)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LastIn:
    """Last come, first served; negative where cost is high, infinite where there is none."""

    reserves: ClassVar[bool] = True
    oracle: ClassVar[bool] = False

    def init(self, signal: LoadSignal) -> tuple[()]:
        return ()

    def update(self, state: tuple[()], signal: LoadSignal) -> tuple[tuple[()], Array]:
        return state, ops.divide(-1.0, signal.wait_s) - signal.completion


ON: Case = {"on_for": 0, "off_for": 1}  # never off


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ForgetsItsDwell(EntropyCoverage):
    """Free to change at once whenever it is switched on again."""

    def update(
        self, state: EntropyCoverageState, signal: TokenSignal
    ) -> tuple[EntropyCoverageState, Array]:
        state, command = EntropyCoverage.update(self, state, signal)
        expired = ops.full_like(state.age, float(self.dwell))
        return state._replace(age=ops.where(signal.enabled > 0.0, state.age, expired)), command


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ForgetsItsPlace(EntropyCoverage):
    """Starts over whenever it is switched on again."""

    def update(
        self, state: EntropyCoverageState, signal: TokenSignal
    ) -> tuple[EntropyCoverageState, Array]:
        state, command = EntropyCoverage.update(self, state, signal)
        start = ops.full_like(state.coverage, self.p_max)
        held = ops.where(signal.enabled > 0.0, state.coverage, start)
        return state._replace(coverage=held), command


def worst(prop: Property, law: Law) -> float:
    """How far the worst case found is past its bound; negative where it is kept."""
    found = search(prop, law, BUDGET).worst
    measured = prop.measure(law, lanes_of(found.case))
    return float(excess(measured)[0])


@pytest.mark.parametrize("prop", coverage.PROPERTIES, ids=lambda p: p.name)
@pytest.mark.parametrize(
    "law",
    [
        EntropyCoverage(),
        EntropyCoverage(p_max=1.0, dwell=3, rate=0.003),
        Gated(law=EntropyCoverage(), fallback=DENSE),
        FixedCoverage(coverage=0.9),
    ],
    ids=["default", "dense_end", "gated", "fixed"],
)
def test_our_coverage_laws_keep_every_coverage_property(prop: Property, law: Law) -> None:
    if not prop.unfit(law):
        assert worst(prop, law) <= 0.0


def test_the_printed_floor_prunes_more_the_less_sure_it_is() -> None:
    found = search(DIRECTION, SeedCoverage(), BUDGET).worst
    assert found.violates
    story = "\n".join(DIRECTION.story(SeedCoverage(), found.case))
    assert "prunes more" in story
    proof = DIRECTION.certificate(SeedCoverage())
    assert proof is not None
    assert not proof.holds


def test_the_printed_floor_keeps_the_other_coverage_properties() -> None:
    assert worst(MONOTONE, SeedCoverage()) <= 0.0
    assert worst(MASKED, SeedCoverage()) <= 0.0


def test_laws_without_margin_or_dwell_are_unfit_and_say_why() -> None:
    assert "margin" in DIRECTION.unfit(FixedCoverage())
    assert "dwell" in CHATTER.unfit(SeedCoverage())
    assert DIRECTION.unfit(Gated(law=EntropyCoverage(), fallback=DENSE)) == ""


def test_a_coverage_that_falls_with_entropy_is_caught_and_so_is_its_mask() -> None:
    assert worst(MONOTONE, Falling()) > 0.01
    assert worst(MASKED, Falling()) > 0.0


def test_a_law_that_breaks_its_own_dwell_and_rate_is_caught() -> None:
    measured = CHATTER.measure(
        Twitchy(),
        lanes_of({"h_a": 0.0, "h_b": 4.0, "pattern": "alternate", "period": 2, "seed": 0} | ON),
    )
    # Every second step instead of every eighth, by .19 instead of .02.
    assert measured.value[0] == pytest.approx(0.19 / 0.02, rel=1e-5)
    slow = dataclasses.replace(Twitchy(), rate=1.0)
    lanes = lanes_of({"h_a": 0.0, "h_b": 4.0, "pattern": "alternate", "period": 2, "seed": 0} | ON)
    assert CHATTER.measure(slow, lanes).value[0] == pytest.approx(4.0)


def test_the_dwell_and_the_rate_are_reached_but_not_passed() -> None:
    lanes = lanes_of({"h_a": 0.0, "h_b": 9.0, "pattern": "alternate", "period": 8, "seed": 0} | ON)
    measured = CHATTER.measure(EntropyCoverage(), lanes)
    assert measured.value[0] == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("law", [ForgetsItsDwell(), ForgetsItsPlace()], ids=["dwell", "place"])
def test_a_law_that_forgets_while_it_is_off_is_caught_and_the_story_says_when(law: Law) -> None:
    found = search(CHATTER, law, BUDGET).worst
    assert found.violates
    assert found.case["on_for"] > 0
    assert "just switched on" in "\n".join(CHATTER.story(law, found.case))
    assert CHATTER.measure(law, lanes_of(found.case | ON)).value[0] <= found.bound


def test_what_a_lane_reads_while_it_is_off_is_no_change() -> None:
    still = {"h_a": 9.0, "h_b": 9.0, "pattern": "alternate", "period": 3, "seed": 0}
    lanes = lanes_of(still | {"on_for": 3, "off_for": 2})
    assert CHATTER.measure(EntropyCoverage(), lanes).value[0] == 0.0


def test_changing_a_gain_reaches_through_wrappers_and_changes_nothing_else() -> None:
    law = Gated(law=EntropyCoverage(), fallback=DENSE)
    changed = coverage.with_gain(law, "margin", 0.5)
    assert coverage.gain_of(changed, "margin") == 0.5
    assert coverage.with_gain(changed, "margin", 0.1) == law


@given(slack=st.floats(-1e3, 1e3), drop=st.floats(0.0, 1e3), cost=st.floats(1e-3, 1e3))
def test_p8_urgency_never_demotes_under_our_priority(
    slack: float, drop: float, cost: float
) -> None:
    case = {name: np.array([0.0]) for name in [*priority.REQUEST, *priority.TIMES]}
    case.update(
        collapse_nats=np.array([1.0]),
        cost_s=np.array([cost]),
        slack_s=np.array([slack]),
        move=np.array([-drop]),
    )
    assert excess(URGENCY.measure(EntropyPriority(), case))[0] <= 0.0


@given(share=st.floats(0.0, 1.0), more=st.floats(0.0, 1.0), cost=st.floats(1e-3, 1e3))
def test_p8_completion_never_demotes_under_our_priority(
    share: float, more: float, cost: float
) -> None:
    case = {name: np.array([0.0]) for name in [*priority.REQUEST, *priority.TIMES]}
    case.update(
        collapse_nats=np.array([1.0]),
        cost_s=np.array([cost]),
        completion=np.array([share]),
        move=np.array([more]),
    )
    assert excess(COMPLETION.measure(EntropyPriority(), case))[0] <= 0.0


@pytest.mark.parametrize("prop", priority.PROPERTIES, ids=lambda p: p.name)
@pytest.mark.parametrize(
    "law",
    [EntropyPriority(), EntropyPriority(kappa=2.0, rho_u=5.0), Fcfs()],
    ids=["ours", "x", "f"],
)
def test_our_priority_laws_keep_every_priority_property(prop: Property, law: Law) -> None:
    assert worst(prop, law) <= 0.0


def test_p8_the_printed_priority_demotes_a_request_as_its_slack_runs_out() -> None:
    found = search(URGENCY, SeedPriority(), BUDGET).worst
    assert found.violates
    assert found.value > 0.01
    assert "lower than before" in URGENCY.story(SeedPriority(), found.case)[-1]


def test_under_the_printed_priority_no_wait_is_long_enough() -> None:
    found = search(AGING, SeedPriority(), BUDGET).worst
    assert found.violates
    assert np.isinf(found.value)
    assert "outranked" in AGING.story(SeedPriority(), found.case)[-1]


def test_the_wait_that_aging_needs_reaches_what_the_law_claims() -> None:
    case = {f"waiter_{name}": 0.0 for name in priority.REQUEST} | {"age_beyond_wait_s": 0.0}
    case |= {f"fresh_{name}": 0.0 for name in priority.REQUEST}
    case |= {"fresh_collapse_nats": 12.0, "waiter_slack_s": 1e3, "waiter_cost_s": 1e3}
    law = EntropyPriority()
    measured = AGING.measure(law, lanes_of(case))
    assert measured.value[0] == pytest.approx(law.max_wait_s, rel=2e-3)


def test_a_claimed_wait_that_is_too_short_is_refuted() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Boastful(EntropyPriority):
        @property
        def max_wait_s(self) -> float:
            return 1.0

    assert search(AGING, Boastful(), BUDGET).worst.violates


def test_a_priority_that_is_not_finite_at_wait_zero_is_refuted() -> None:
    assert search(BOUNDED, LastIn(), BUDGET).worst.violates
    assert search(COMPLETION, LastIn(), BUDGET).worst.violates


def test_stories_fit_a_screen() -> None:
    for prop, law in [
        *((p, EntropyCoverage()) for p in coverage.PROPERTIES),
        *((p, EntropyPriority()) for p in priority.PROPERTIES),
    ]:
        lines = prop.story(law, search(prop, law, BUDGET).worst.case)
        assert 1 <= len(lines) <= 30
        assert all(len(line) <= 100 for line in lines)
