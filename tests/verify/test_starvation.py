"""Sieges of the real serving loop: ours keep the service-gap bound, the printed order starves."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import pytest

from controllers.certificates.starvation import service_gap
from controllers.core import LoadSignal
from controllers.ops import Array
from controllers.presets import get_preset
from controllers.priority import EntropyPriority, Fcfs, PriorityLaw, SeedPriority
from controllers.serving.scheduler import Scheduler
from reports.verify import sieges
from reports.verify.finding import Finding, Verdict
from reports.verify.property import Case, Number, excess, lanes_of
from reports.verify.registry import properties_of
from reports.verify.run import check
from reports.verify.search import search
from reports.verify.serving_subject import ServingSubject, serving_subject
from reports.verify.setting import Budget, get_budget
from reports.verify.starvation import PROPERTIES, UNCLAIMED, Starvation, gap_bound, preset_of
from reports.verify.target import resolve
from simulator.starvation import VICTIM, Siege, besiege
from tests.verify import planted_schedulers

BUDGET = Budget(name="test", lanes=8, batch=8, worst=2, rounds=1, neighbours=1, examples=0)
ARRIVALS, FROZEN, HOG, PING_PONG = PROPERTIES
SMALL = {"slots": 1, "crowd": 1, "period": 1, "step_ms": 300, "pressed": 0, "spare_pages": 0}
FRESH: Case = SMALL | {"fresh_prompt": 1, "fresh_output": 1, "victim_prompt": 2, "quantum": 0}
FRESH |= {"victim_output": 1}
FREEZE: Case = SMALL | {"fresh_prompt": 1, "fresh_output": 4, "victim_prompt": 1, "quantum": 1}
FREEZE |= {"victim_output": 8, "lead": 1}
LARGE: Case = SMALL | {"fresh_prompt": 1, "fresh_output": 4, "victim_prompt": 100, "quantum": 0}
LARGE |= {"slots": 2, "crowd": 2, "victim_output": 4}
PAIR: Case = SMALL | {"fresh_prompt": 50, "fresh_output": 20, "victim_prompt": 30, "quantum": 1}
PAIR |= {"slots": 2, "victim_output": 20}
CASES = dict(zip((p.name for p in PROPERTIES), (FRESH, FREEZE, LARGE, PAIR), strict=True))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SmallFirst:
    """Fewest pages first, without aging; what differs is the reservation."""

    reserves: bool
    oracle: ClassVar[bool] = False

    def init(self, signal: LoadSignal) -> tuple[()]:
        return ()

    def update(self, state: tuple[()], signal: LoadSignal) -> tuple[tuple[()], Array]:
        return state, -(signal.pages_held + signal.pages_needed)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EmptyClaim:
    """Most collapse first; claims that nobody waits longer than a second."""

    reserves: ClassVar[bool] = True
    oracle: ClassVar[bool] = False
    kappa: float = 1.0

    @property
    def max_wait_s(self) -> float:
        return 1.0

    def init(self, signal: LoadSignal) -> tuple[()]:
        return ()

    def update(self, state: tuple[()], signal: LoadSignal) -> tuple[tuple[()], Array]:
        return state, signal.collapse_nats - signal.pages_needed


def violates(prop: Starvation, law: PriorityLaw, case: Case) -> bool:
    return bool(excess(prop.measure(law, lanes_of(case)))[0] > 0.0)


@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda p: p.name)
@pytest.mark.parametrize("law", [EntropyPriority(), Fcfs()], ids=lambda x: type(x).__name__)
def test_p7_the_service_gap_keeps_the_lemma_on_every_siege(
    prop: Starvation, law: PriorityLaw
) -> None:
    found = search(prop, law, BUDGET).worst
    assert not found.violates, prop.story(law, found.case)
    assert found.bound < 4_000


@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda p: p.name)
def test_p7_the_preset_full_keeps_the_lemma_with_its_own_quantum(prop: Starvation) -> None:
    full = get_preset("full")
    assert "quantum" not in prop.space(full)
    assert not search(prop, full, BUDGET).worst.violates


@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda p: p.name)
def test_the_printed_priority_starves_under_every_adversary(prop: Starvation) -> None:
    case = CASES[prop.name]
    assert violates(prop, SeedPriority(), case)
    assert not violates(prop, EntropyPriority(), case)
    assert not violates(prop, Fcfs(), case)


def test_the_preset_seed_starves_a_waiter_whose_entropy_is_frozen() -> None:
    case = {**FREEZE, "slots": 2, "fresh_output": 6, "victim_output": 40}
    del case["quantum"]
    assert violates(FROZEN, get_preset("seed"), case)
    assert not violates(FROZEN, get_preset("full"), case)


def test_the_frozen_victim_has_run_and_was_preempted_before_it_starves() -> None:
    preset, siege = preset_of(SeedPriority(), FREEZE), sieges.frozen_waiter(FREEZE)
    ordeal = besiege(preset, siege, 60, watch=True)
    assert VICTIM in ordeal.moments[0].ran
    losses = [m for m in ordeal.moments if VICTIM in m.preempted]
    assert len(losses) == 1
    later = [m for m in ordeal.moments if m.ranked and m.step > losses[0].step]
    assert len(later) > 5
    scores = {m.victim_priority for m in later}
    assert len(scores) == 1, "a waiting request's score stands still"
    assert all(m.rival_priority > m.victim_priority for m in later)


def test_only_the_reservation_saves_a_large_request_from_small_ones() -> None:
    assert violates(HOG, SmallFirst(reserves=False), LARGE)
    assert not violates(HOG, SmallFirst(reserves=True), LARGE)


def test_an_empty_claim_of_a_longest_wait_is_refuted_by_its_own_bound() -> None:
    measured = ARRIVALS.measure(EmptyClaim(), lanes_of({**FRESH, "victim_prompt": 20}))
    assert measured.value[0] > measured.bound[0]
    assert measured.bound[0] < 20


def test_a_siege_ends_as_soon_as_its_verdict_is_known() -> None:
    siege = sieges.fresh_arrivals(FRESH)
    starved = besiege(preset_of(SeedPriority(), FRESH), siege, 400, enough=30)
    assert starved.gap == 31
    assert starved.gaps[-1] == 31
    served = besiege(preset_of(Fcfs(), FRESH), siege, 400)
    assert served.finished
    assert served.steps < 20


def test_gaps_count_the_steps_between_services() -> None:
    # One slot, one fresh request of 5 tokens first; the victim comes at step 2 and waits 2, 3, 4.
    case = {**FRESH, "fresh_output": 5}
    siege = dataclasses.replace(sieges.fresh_arrivals(case), lead=2)
    ordeal = besiege(preset_of(Fcfs(), case), siege, 50)
    assert ordeal.gap == 3
    assert ordeal.gaps == (0, 0, 1, 2, 3, 3)
    assert ordeal.open_gap == 0


def test_the_population_never_exceeds_the_crowd_and_the_victim() -> None:
    case = {**LARGE, "crowd": 5, "period": 1}
    ordeal = besiege(preset_of(SeedPriority(), case), sieges.memory_hog(case), 80)
    assert ordeal.active == 6


def test_a_siege_repeats_itself_exactly() -> None:
    preset, siege = preset_of(EntropyPriority(), PAIR), sieges.ping_pong(PAIR)
    assert besiege(preset, siege, 150, watch=True) == besiege(preset, siege, 150, watch=True)


def test_a_law_without_a_claim_is_granted_steps_and_its_story_says_as_many() -> None:
    law = SmallFirst(reserves=False)
    measured = HOG.measure(law, lanes_of(LARGE))
    assert (measured.value[0], measured.bound[0]) == (UNCLAIMED + 1, UNCLAIMED)
    ending = HOG.story(law, LARGE)[-1]
    assert ending.endswith(f"longest gap {UNCLAIMED + 1}, granted are {UNCLAIMED}")


def test_a_slow_but_honest_claim_is_no_starvation() -> None:
    slow = EntropyPriority(kappa=10.0 / 7_200.0)  # two hours outweigh any value, and it says so
    measured = ARRIVALS.measure(slow, lanes_of(FRESH))
    assert measured.bound[0] > slow.max_wait_s
    assert UNCLAIMED < measured.value[0] < measured.bound[0]


def test_a_claim_binds_whoever_inherits_it() -> None:
    class Heir(EmptyClaim):
        pass

    case = lanes_of({**FRESH, "victim_prompt": 20})
    assert excess(ARRIVALS.measure(Heir(), case))[0] > 0.0
    assert ARRIVALS.measure(Heir(), case).bound == ARRIVALS.measure(EmptyClaim(), case).bound


def test_the_bound_is_the_certificate_of_the_siege() -> None:
    siege: Siege = sieges.fresh_arrivals(FRESH)
    proof = service_gap(
        EntropyPriority(),
        n_active=2,
        slots=1,
        residence_steps=1,
        quantum_steps=None,
        step_s=0.3,
    )
    assert proof is not None
    assert gap_bound(preset_of(EntropyPriority(), FRESH), siege) == proof.bound


def test_only_where_pages_run_short_does_a_loss_of_pages_widen_the_bound() -> None:
    for lay, case, widens in (
        (sieges.fresh_arrivals, FRESH, False),
        (sieges.frozen_waiter, {**FREEZE, "slots": 2}, True),
        (sieges.memory_hog, LARGE, True),
    ):
        siege, preset = lay(case), preset_of(EntropyPriority(), case)
        assert (gap_bound(preset, siege, redos=1) > gap_bound(preset, siege)) == widens


def test_a_pool_that_holds_everyone_earns_a_smaller_bound() -> None:
    case = {**FRESH, "slots": 2, "crowd": 3, "fresh_output": 8, "fresh_prompt": 16, "quantum": 4}
    ample = sieges.fresh_arrivals(case)
    fewer = dataclasses.replace(ample.limits, n_pages=ample.limits.n_pages - 1)
    preset = preset_of(EntropyPriority(), case)
    assert gap_bound(preset, ample) < gap_bound(preset, dataclasses.replace(ample, limits=fewer))


def besieged(scheduler: type[Scheduler], name: str) -> Finding:
    part = resolve(f"tests.verify.planted_schedulers:{scheduler.__name__}")
    prop = next(p for p in properties_of(part.parts[0]) if p.name == name)
    return check(prop, part.parts[0], part, get_budget("ci"))


def test_a_scheduler_that_starves_is_besieged_and_rejected() -> None:
    found = besieged(planted_schedulers.PrefillsLast, "starvation.fresh_arrivals")
    assert found.verdict is Verdict.VIOLATED
    assert found.certificate is None
    assert "scheduled by PrefillsLast: no bound is claimed" in found.story[0]
    assert f"granted are {found.bound:.0f}" in found.story[-1]
    assert found.bound >= UNCLAIMED
    assert found.worst > found.bound


@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda p: p.name)
def test_another_scheduler_gets_no_certificate_and_no_less_time_than_ours(prop: Starvation) -> None:
    subject = ServingSubject(preset=get_preset("full"), scheduler_type=planted_schedulers.Unchanged)
    assert prop.certificate(subject) is None
    assert prop.certificate(ServingSubject(preset=get_preset("full"))) is not None
    found = search(prop, subject, BUDGET).worst
    assert not found.violates
    ours = prop.measure(get_preset("full"), lanes_of(found.case))
    assert found.value == ours.value[0]
    assert found.bound == max(UNCLAIMED, ours.bound[0])


def test_a_page_pool_is_not_besieged() -> None:
    pool = serving_subject(planted_schedulers.OverAllocates)
    assert pool is not None
    assert all("page pool" in prop.unfit(pool) for prop in PROPERTIES)
    assert not any(prop.unfit(get_preset("full")) for prop in PROPERTIES)


@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda p: p.name)
def test_certificates_hold_for_ours_and_not_for_the_printed_priority(prop: Starvation) -> None:
    ours, seed = prop.certificate(get_preset("full")), prop.certificate(SeedPriority())
    assert ours is not None
    assert ours.holds
    assert ours.name == prop.name
    assert seed is not None
    assert not seed.holds


def test_a_claim_alone_is_no_certificate() -> None:
    assert all(prop.certificate(EmptyClaim()) is None for prop in PROPERTIES)


@pytest.mark.parametrize("prop", PROPERTIES, ids=lambda p: p.name)
def test_a_story_fits_twenty_lines_and_ends_with_the_verdict(prop: Starvation) -> None:
    lines = prop.story(SeedPriority(), CASES[prop.name])
    assert 4 <= len(lines) <= 20
    assert all(len(line) <= 100 for line in lines)
    assert "unserved for the last" in lines[-1]


def test_every_parameter_is_a_small_integer() -> None:
    for prop in PROPERTIES:
        for part in prop.space(Fcfs()).values():
            assert isinstance(part, Number)
            assert part.integer
            assert part.high <= 1_000


def test_a_siege_refuses_what_it_cannot_run() -> None:
    siege = sieges.fresh_arrivals(FRESH)
    with pytest.raises(ValueError, match="crowd must be >= 1; got crowd=0"):
        dataclasses.replace(siege, crowd=0)
    with pytest.raises(ValueError, match="step_s must be positive"):
        dataclasses.replace(siege, step_s=0.0)
    with pytest.raises(ValueError, match="request_id must be 0"):
        dataclasses.replace(siege, victim=siege.fresh)
