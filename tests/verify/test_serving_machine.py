"""Servers and page pools under scripted users: ours keep every rule, planted ones are found out."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from controllers.presets import get_preset
from controllers.serving.pages import PagePool
from controllers.serving.scheduler import Scheduler
from reports.verify.property import Case, Property, lanes_of
from reports.verify.serving import PROPERTIES, ServingSubject, serving_subject
from reports.verify.serving_script import Operation, read_script, shortened, write_script
from reports.verify.serving_subject import Setting
from tests.verify import planted_schedulers as planted

LOOP, POOL, ORACLE = PROPERTIES
BUDGET = 40  # scripts; every plant is found within
SCREEN = 30  # lines
SETTING = {"max_seqs": 3, "n_pages": 12, "token_budget": 16}
CROWD = "submit 9 8; submit 17 6; step 2; submit 5 9; cancel_during_step 1; wait 3000; disable 0"

BAD_SCHEDULERS = [  # with a rule it must break and what it must say of it
    (planted.LeaksOnPreempt, "pages", "leaked"),
    (planted.LeaksOnCancel, "pages", "leaked"),
    (planted.FreesTwice, "raises", "PageError: page 0 is freed"),
    (planted.LosesThePreempted, "requests", "got lost"),
    (planted.OverBudget, "budget", "tokens planned, the budget is"),
    (planted.TooManyResidents, "slots", "residents in"),
    (planted.RestsEveryThirdStep, "work", "idle"),
    (planted.ForgetsReservations, "bypass", "head of line"),
    (planted.SkipsTheUnfitting, "bypass", "head of line"),
    (planted.PingPong, "progress", "livelock"),
    (planted.WaitRestartsAtPreemption, "wait", "without a full quantum"),
    (planted.LeavesADecodeRowOut, "decode", "left out"),
    (planted.RanksByAddress, "replay", "does not replay"),
    (planted.RemembersOtherRuns, "replay", "does not replay"),
    (planted.KeepsStaleTokens, "tables", "computed"),
    (planted.Crashes, "raises", "ZeroDivisionError"),
]
BAD_POOLS = [
    (planted.GivesHighestFirst, "lowest", "lowest first is [0"),
    (planted.AllowsDoubleFree, "double free", "freed again"),
    (planted.FreesSharedPages, "pages", "references are"),
    (planted.MiscountsOnExtend, "pages", "n_free"),
    (planted.OverAllocates, "lowest", "lowest first is None"),
    (planted.SchedulerWithBadPool, "lowest", "lowest first is None"),
]


def hunted(prop: Any, law: Any, budget: int = BUDGET) -> tuple[Case, float]:
    """Return the worst case of ``prop`` on ``law`` and its value, measured from its JSON."""
    case, cases = prop.hunt(law, np.random.default_rng(0), budget)
    assert cases >= 1
    case = json.loads(json.dumps(case))
    measured = prop.measure(law, lanes_of(case))
    assert measured.bound.tolist() == [0.0]
    return case, float(measured.value[0])


def assert_found(prop: Any, law: Any, rule: str, seen: str) -> None:
    case, value = hunted(prop, law)
    story = prop.story(law, case)
    assert value >= 1, f"{law.__name__} was not found out"
    broken = [line for line in story if line.startswith(f"BROKEN {rule}: ")]
    assert broken, story
    assert seen in broken[0], story
    assert len(story) <= SCREEN


@pytest.mark.parametrize("name", ["baseline", "full", "seed"])
def test_our_server_keeps_every_rule(name: str) -> None:
    assert hunted(LOOP, get_preset(name), 12)[1] == 0.0


@pytest.mark.parametrize("name", ["full", "seed"])
def test_our_server_plans_by_the_past_alone(name: str) -> None:
    assert hunted(ORACLE, get_preset(name), 12)[1] == 0.0


def test_our_page_pool_agrees_with_a_list_of_counts() -> None:
    assert hunted(POOL, PagePool, 60)[1] == 0.0


@pytest.mark.parametrize(("scheduler", "rule", "seen"), BAD_SCHEDULERS)
def test_a_planted_scheduler_breaks_the_rule_it_was_planted_against(
    scheduler: type[Scheduler], rule: str, seen: str
) -> None:
    assert_found(LOOP, scheduler, rule, seen)


@pytest.mark.parametrize(("pool", "rule", "seen"), BAD_POOLS)
def test_a_planted_pool_breaks_the_rule_it_was_planted_against(
    pool: type[Any], rule: str, seen: str
) -> None:
    assert_found(POOL, pool, rule, seen)


def test_a_scheduler_that_peeks_at_output_lengths_breaks_the_oracle_boundary() -> None:
    assert_found(ORACLE, planted.PeeksAtLengths, "foreknowledge", "stops to come")


def test_a_scheduler_that_leaks_pages_knows_no_future() -> None:
    assert hunted(ORACLE, planted.LeaksOnCancel, 12)[1] == 0.0


def test_a_marked_oracle_is_not_accused_of_knowing() -> None:
    law = get_preset("srpt_oracle")
    assert "marked as an oracle" in ORACLE.unfit(law)
    assert LOOP.unfit(law) == ""
    assert hunted(LOOP, law, 4)[1] == 0.0


def test_a_hunt_gives_the_same_counterexample_each_time() -> None:
    first, second = (hunted(LOOP, planted.OverBudget) for _ in range(2))
    assert first == second


def test_a_counterexample_is_small() -> None:
    case, _ = hunted(LOOP, planted.OverBudget)
    assert len(read_script(case["script"])) <= 3


def test_a_law_that_serves_nobody_is_unfit() -> None:
    assert all(p.unfit(get_preset("full").temperature) for p in PROPERTIES)


@pytest.mark.parametrize("prop", PROPERTIES)
def test_every_serving_property_follows_the_protocol(prop: Property) -> None:
    law = get_preset("baseline")
    assert prop.unfit(law) == ""
    assert prop.space(law)
    assert prop.certificate(law) is None
    assert prop.statement
    assert prop.unit


def test_a_busy_script_runs_clean_and_tells_itself() -> None:
    law, case = get_preset("full"), {**SETTING, "script": CROWD}
    assert LOOP.measure(law, lanes_of(case)).value.tolist() == [0.0]
    story = LOOP.story(law, case)
    assert "submit request 1: prompt 17, at most 6 tokens" in story
    assert story[-1] == "every rule holds"


def test_a_long_script_still_fits_a_screen() -> None:
    script = "; ".join(["submit 1 1", "wait 1"] * 40)
    assert len(LOOP.story(get_preset("baseline"), {"script": script})) <= SCREEN


def test_lanes_do_not_influence_one_another() -> None:
    cases = {"script": np.array(["submit 17 1; step 1", "submit 1 1"])}
    assert LOOP.measure(planted.OverBudget, cases).value.tolist() == [1.0, 0.0]


def test_scripts_survive_being_written() -> None:
    operations = read_script(CROWD)
    assert read_script(write_script(operations)) == operations


def test_shortening_joins_steps_and_drops_what_does_nothing() -> None:
    short = shortened(read_script("step 1; step 2; wait 0; step 1; cancel 0"))
    assert short == [Operation("step", (4,)), Operation("cancel", (0,))]


@pytest.mark.parametrize("script", ["submit 5", "jump 1", "step -1", "step x"])
def test_an_unknown_operation_is_named(script: str) -> None:
    with pytest.raises(ValueError, match=script):
        LOOP.measure(get_preset("full"), {"script": np.array([script])})


def test_a_setting_outside_its_range_is_named() -> None:
    with pytest.raises(ValueError, match=r"n_pages must lie between 10 and 16; got n_pages=3"):
        Setting(n_pages=3)


def test_classes_and_presets_become_subjects() -> None:
    scheduler = serving_subject(planted.OverBudget)
    pool = serving_subject(planted.OverAllocates)
    preset = serving_subject(get_preset("seed"))
    assert scheduler is not None
    assert pool is not None
    assert preset is not None
    assert (scheduler.name, scheduler.preset.name) == ("OverBudget", "full")
    assert pool.name == "OverAllocates"
    assert preset.name == "seed"
    assert serving_subject(preset) is preset
    assert serving_subject(3) is None
    subject = ServingSubject(preset=get_preset("seed"), scheduler_type=planted.Crashes)
    assert hunted(LOOP, subject)[1] == 1.0
