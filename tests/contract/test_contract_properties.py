"""The contract as the verifier sees it: what fits, what a case is, and what a story tells."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from controllers.compose import Gated
from controllers.coverage import EntropyCoverage, FixedCoverage
from controllers.presets import PRESETS
from controllers.priority import Fcfs
from controllers.temperature import EntropyFeedback
from reports.verify.contract import PROPERTIES, ContractProperty, properties_of
from reports.verify.contract.subject import role_of
from reports.verify.contract.trial import Broken, Trial, ensure_same
from reports.verify.property import lanes_of
from tests.verify.planted.contract_laws import FollowsTheMean, ForgetsTheState, NeverClips
from tests.verify.planted.control_laws import IgnoresTheCap
from tests.verify.planted.sound import Aged, Integrator

BY_NAME = {rule.name: rule for rule in PROPERTIES}
each_rule = pytest.mark.parametrize("rule", PROPERTIES, ids=lambda rule: rule.name)


def hunted(rule: ContractProperty, law: object, seed: int = 0) -> dict:
    return rule.hunt(law, np.random.default_rng(seed), 8)[0]


def test_the_role_of_a_law_is_told_by_what_it_reads() -> None:
    assert role_of(EntropyFeedback()) == "temperature"
    assert role_of(Gated(law=EntropyFeedback())) == "temperature"
    assert role_of(EntropyCoverage()) == "coverage"
    # A gate has x_in whatever it wraps.
    assert role_of(Gated(law=EntropyCoverage(), fallback=FixedCoverage())) == "coverage"
    assert role_of(Fcfs()) == "priority"


@each_rule
def test_a_preset_is_left_to_its_laws(rule: ContractProperty) -> None:
    assert "preset" in rule.unfit(PRESETS["full"])


def test_without_torch_its_rules_say_so_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    silent = {rule.name for rule in PROPERTIES if "torch" in rule.unfit(EntropyFeedback())}
    assert silent == {"contract.branch_free", "contract.compiles", "contract.bitwise"}
    assert BY_NAME["contract.types"].breach(EntropyFeedback(), Trial()) is None


@each_rule
def test_where_update_does_not_run_one_rule_is_broken_and_the_others_refer_to_it(
    rule: ContractProperty,
) -> None:
    if rule.name == "contract.callable":
        assert rule.unfit(ForgetsTheState()) == ""
        assert rule.measure(ForgetsTheState(), lanes_of(hunted(rule, ForgetsTheState()))).value > 0
    else:
        assert "contract.callable" in rule.unfit(ForgetsTheState())


@each_rule
def test_a_case_is_inside_its_space_and_sound_laws_measure_zero(rule: ContractProperty) -> None:
    law = Aged() if rule.name == "contract.oracle" else Integrator()
    assert rule.unfit(law) == ""
    case = hunted(rule, law)
    space = rule.space(law)
    assert set(case) == set(space)
    value, bound = rule.measure(law, lanes_of(case))
    assert value == bound == 0.0


@pytest.mark.parametrize("seed", [0, 1])
def test_a_counterexample_is_small_repeats_and_names_the_lane(seed: int) -> None:
    rule = BY_NAME["contract.lane_wise"]
    case = hunted(rule, FollowsTheMean(), seed)
    assert case["lanes"] == 2  # the fewest that can be coupled
    assert case == hunted(rule, FollowsTheMean(), seed)
    assert rule.measure(FollowsTheMean(), lanes_of(case)).value >= 1.0
    story = rule.story(FollowsTheMean(), case)
    assert any("BROKEN: a lane follows its neighbours" in line for line in story)
    assert any("h_in=" in line for line in story)
    assert len(story) <= 10


def test_commands_past_the_cap_and_past_all_temperatures_are_out_of_range() -> None:
    rule = BY_NAME["contract.bounded"]
    for law in (IgnoresTheCap(), NeverClips()):
        broken = rule.breach(law, Trial())
        assert broken is not None
        assert "above its range" in broken.message
    assert rule.breach(Integrator(), Trial()) is None


def test_values_that_differ_in_sign_of_zero_only_are_different() -> None:
    zero = np.zeros((2, 3), dtype=np.float32)
    ensure_same(zero, zero.copy(), "unequal")
    other = zero.copy()
    other[1, 2] = -0.0
    with pytest.raises(Broken) as caught:
        ensure_same(other, zero, "unequal")
    assert (caught.value.lane, caught.value.step, caught.value.count) == (2, 1, 1)


def test_a_role_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature, coverage, priority"):
        properties_of("serving")  # type: ignore[arg-type]
