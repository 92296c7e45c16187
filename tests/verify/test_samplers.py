"""The samplers' contract: ours keep it, planted ones are rejected, each for its own defect."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
import pytest

from controllers.compose import Gated
from controllers.samplers import (
    AdaptiveP,
    DeadBeat,
    DynaTemp,
    MinP,
    MirostatV1,
    MirostatV2,
    Pipeline,
    Tempered,
    TopK,
    TopP,
)
from controllers.smoothed import SmoothedFeedback
from controllers.temperature import EntropyFeedback
from reports.verify.finding import Finding, Verdict
from reports.verify.property import Number
from reports.verify.registry import properties_of
from reports.verify.replay import read_counterexample, replay, write_json
from reports.verify.run import check, verify
from reports.verify.samplers import PROPERTIES, SamplerProperty
from reports.verify.samplers.properties import FIRST, trial_of
from reports.verify.samplers.scene import KINDS, SamplerTrial, scene_of
from reports.verify.setting import get_budget
from reports.verify.target import SAMPLERS, resolve

BAD = "tests.verify.planted.bad_samplers"
BUDGET = get_budget("ci")
RULES = {prop.name.removeprefix("sampler."): prop for prop in PROPERTIES}


class Planted(NamedTuple):
    """A sampler, the rule that must reject it, words of the verdict, and rules it also breaks."""

    where: str
    rule: str
    says: str
    also: tuple[str, ...] = ()


COMPARE = ("accepts", "lane_wise", "resumable", "backends")
ROWS_TOO = ("forced", "nonfinite", "wild")
PLANTED = (
    Planted("TakesNoSignal", "callable", "shape must take 3 argument(s)"),
    Planted("ReturnsTheRow", "callable", "shape must return Shaped"),
    Planted("NeverAccepts", "callable", "no method accept"),
    Planted("LeaksFloat64", "types", "float64"),
    Planted("MovesInShape", "pure", "shape wrote to its inputs", ("accepts",)),
    Planted("MasksInPlace", "pure", "shape wrote to its inputs"),
    # A memory outside the state makes two runs differ, and these rules compare two runs.
    Planted("CountsInAnAttribute", "pure", "own calls changed", COMPARE),
    # It reads the position as a number, which no device allows and NaN is not.
    Planted(
        "RemembersThePosition",
        "accepts",
        "left a trace",
        ("pure", "lane_wise", "resumable", "backends", "branch_free", "nonfinite"),
    ),
    Planted("SharesTheMaximum", "lane_wise", "alone"),
    Planted("FollowsItsSlot", "lane_wise", "order of lanes", ("resumable",)),
    Planted("ForgetsToHold", "accepts", "kept no token moved"),
    Planted("HoldsTheBatch", "lane_wise", "alone"),
    Planted("TimeLeads", "types", "lanes do not lead", ("accepts", "lane_wise", "resumable")),
    # These rules ask the same of rows under other signals and tokens.
    Planted("DropsTheMask", "mask", "a masked token is back", ROWS_TOO),
    Planted("CutsEverything", "mask", "no token is left", (*ROWS_TOO, "keeps_top")),
    Planted("NaNOnOneToken", "mask", "a logit is NaN", (*ROWS_TOO, "keeps_top", "cap", "backends")),
    Planted("CutsTheBest", "keeps_top", "the likeliest token was cut"),
    Planted("HidesItsHeat", "keeps_top", "at the ln T reported"),
    Planted("HeatsPastTheCap", "cap", "above the cap"),
    Planted("TrustsTheSetPoint", "nonfinite", "target_nats ="),
    Planted("FollowsTheSetPoint", "wild", "after a wild signal"),
    Planted("LearnsFromAnyToken", "forced", "after a forced token"),
    Planted("RoundsApart", "backends", "numpy and torch differ"),
    Planted("ReadsAValue", "branch_free", "meta"),
    Planted("ALWAYS_ON", "bypass", "row of a switched-off lane"),
    Planted("LEARNS_WHILE_OFF", "bypass", "state of a switched-off lane moved"),
)
each_planted = pytest.mark.parametrize("planted", PLANTED, ids=lambda p: p.where)


def broken_rules(sampler: Any) -> set[str]:
    """Return the rules that the trials always run show broken, but for the widest and longest."""
    broken = set()
    for name, rule in RULES.items():
        trials = [trial for trial in rule.first if trial.n < 1000 and trial.steps < 20]
        if not rule.unfit(sampler) and any(rule.breach(sampler, trial) for trial in trials):
            broken.add(name)
    return broken


def found_of(where: str, rule: str) -> Finding:
    target = resolve(f"{BAD}:{where}")
    return check(RULES[rule], target.parts[0], target, BUDGET)


@each_planted
def test_a_planted_sampler_is_rejected_for_its_defect_and_no_other(planted: Planted) -> None:
    found = found_of(planted.where, planted.rule)
    assert found.verdict is Verdict.VIOLATED, found.note
    assert planted.says in " ".join(found.story)
    assert len(found.story) <= 10
    assert broken_rules(resolve(f"{BAD}:{planted.where}").parts[0].law) == {
        planted.rule,
        *planted.also,
    }


def test_every_rule_has_a_planted_sampler() -> None:
    assert {planted.rule for planted in PLANTED} == set(RULES) - {"resumable"}
    assert "resumable" in {rule for planted in PLANTED for rule in planted.also}


def test_the_sampler_that_defects_are_planted_into_keeps_every_rule() -> None:
    assert broken_rules(resolve(f"{BAD}:Counted").parts[0].law) == set()


OTHERS = (
    Tempered(law=Gated(law=SmoothedFeedback())),
    DynaTemp(reach=0.5),
    TopK(k=3),
    MirostatV1.llama_cpp(),
    MirostatV2.llama_cpp(),
    Pipeline(temperature=Tempered(law=EntropyFeedback()), stages=(TopP(), MinP())),
    Pipeline(temperature=DeadBeat(steps=8), stages=(TopK(k=30), MirostatV2(), AdaptiveP())),
)


@pytest.mark.parametrize("name", SAMPLERS)
def test_our_samplers_keep_the_contract(name: str) -> None:
    part = resolve(name).parts[0]
    assert part.role == "sampler"
    assert broken_rules(part.law) == set()


@pytest.mark.parametrize("sampler", OTHERS, ids=lambda s: repr(s)[:60])
def test_our_samplers_keep_the_contract_with_other_gains(sampler: Any) -> None:
    assert broken_rules(sampler) == set()


@pytest.mark.parametrize("name", ["MirostatV2", "TopP", "Edt"])
def test_our_samplers_keep_the_contract_on_a_whole_vocabulary(name: str) -> None:
    sampler, wide = SAMPLERS[name](), FIRST[-1]
    assert wide.n > 50_000
    for rule in ("lane_wise", "mask", "keeps_top", "backends"):
        assert RULES[rule].breach(sampler, wide) is None


@pytest.mark.parametrize("name", ["DeadBeat", "MirostatV1", "MirostatV2", "AdaptiveP"])
def test_our_samplers_with_memory_stay_sound_for_long(name: str) -> None:
    for rule in ("mask", "wild", "forced"):
        (trial,) = (trial for trial in RULES[rule].first if trial.steps > 20)
        assert RULES[rule].breach(SAMPLERS[name](), trial) is None


def test_the_verifier_runs_a_sampler_from_a_users_own_file() -> None:
    target = resolve("examples/third_party_sampler.py:OpenMinP")
    found = verify(target, get_budget("ci", lanes=100))
    assert [row.name for row in found] == [prop.name for prop in PROPERTIES]
    unfit = {row.name for row in found if row.verdict is Verdict.UNFIT}
    assert unfit == {"sampler.cap", "sampler.bypass"}
    assert all(row.verdict in (Verdict.SEARCHED, Verdict.UNFIT) for row in found)
    assert {row.role for row in found} == {"sampler"}


def test_what_a_rule_cannot_judge_is_not_applicable_and_says_why() -> None:
    assert RULES["keeps_top"].unfit(MinP()) == ""
    assert "reshapes the row" in RULES["keeps_top"].unfit(AdaptiveP())
    assert "sets no temperature" in RULES["cap"].unfit(TopP())
    assert "every lane" in RULES["bypass"].unfit(DeadBeat())
    for rule in ("keeps_top", "cap", "bypass"):
        assert RULES[rule].unfit(Pipeline()) == ""


def test_a_sampler_that_does_not_run_is_judged_by_the_first_rule_only() -> None:
    found = verify(resolve(f"{BAD}:ReturnsTheRow"), get_budget("ci", lanes=100))
    assert found[0].verdict is Verdict.VIOLATED
    assert all(row.verdict is Verdict.UNFIT for row in found[1:])
    assert "sampler.callable" in found[1].note


def test_a_counterexample_of_a_sampler_replays_from_its_file(tmp_path: Any) -> None:
    found = found_of("CutsTheBest", "keeps_top")
    assert found.counterexample is not None
    path = write_json(tmp_path / "found.json", found.counterexample)
    assert read_counterexample(path)["role"] == "sampler"
    done = replay(path)
    assert done.trial.violates
    assert done.story == list(found.story)


def test_a_counterexample_is_small() -> None:
    case = (found_of("DropsTheMask", "mask").counterexample or {})["case"]
    assert (case["lanes"], case["steps"], case["n"], case["rows"]) == (1, 1, 2, "masked")


def test_a_role_given_by_hand_is_held_against_the_methods() -> None:
    assert resolve(f"{BAD}:Counted", "sampler").parts[0].role == "sampler"
    with pytest.raises(ValueError, match="not a law"):
        resolve("EntropyFeedback", "sampler")
    with pytest.raises(ValueError, match="a sampler needs init, shape and accept"):
        resolve("MinP", "coverage")
    with pytest.raises(ValueError, match="not a law"):
        resolve("numpy:pi")


def test_the_rows_hold_what_their_names_say() -> None:
    scene = scene_of(SamplerTrial(lanes=2 * len(KINDS), n=40, steps=2))
    rows = {kind: scene.logits[0][i] for i, kind in enumerate(KINDS)}
    assert len(np.unique(rows["ties"])) < 40
    assert len(np.unique(rows["flat"])) == 1
    assert np.sort(rows["needle"])[-1] - np.sort(rows["needle"])[-2] > 10.0
    assert 1 <= np.isfinite(rows["masked"]).sum() < 40
    assert np.isfinite(rows["single"]).sum() == 1
    assert abs(rows["huge"]).max() > 9_000.0
    assert set(np.unique(rows["two_level"])) == {-1e4, 1e4}
    for logits, signal in zip(scene.logits, scene.signals, strict=True):
        assert logits.dtype == signal.x_user.dtype == np.float32
        assert np.isfinite(logits.max(-1)).all()
    assert {0.0, 1.0} == set(scene.signals[0].enabled)
    assert np.isfinite(scene.signals[0].x_cap).any()
    assert scene.rejected.any()


def test_equal_trials_give_equal_scenes_and_every_case_is_in_its_space() -> None:
    trial = SamplerTrial(seed=3, lanes=4, n=9)
    a, b = scene_of(trial), scene_of(trial)
    np.testing.assert_array_equal(a.logits, b.logits)
    np.testing.assert_array_equal(a.noise, b.noise)
    for rule in PROPERTIES:
        case, _ = rule.hunt(Pipeline(), np.random.default_rng(0), 0)
        space = rule.space(Pipeline())
        assert set(case) == set(space)
        assert all(space[name].holds(value) for name, value in case.items())
        assert isinstance(space["n"], Number)
        assert trial_of(case) == rule.first[0]


def test_what_a_sampler_remembers_of_one_trial_does_not_hide_a_defect_in_the_next() -> None:
    sampler = resolve(f"{BAD}:RemembersThePosition").parts[0].law
    for _ in range(2):
        assert RULES["accepts"].breach(sampler, FIRST[0]) is not None
    assert sampler.seen == {}


def test_the_registry_gives_a_sampler_its_own_contract_and_no_law_s() -> None:
    assert properties_of(resolve("TopK").parts[0]) == PROPERTIES
    assert all(isinstance(prop, SamplerProperty) for prop in PROPERTIES)
    statements = [prop.statement for prop in PROPERTIES]
    assert len(set(statements)) == len(statements)
    assert dataclasses.replace(PROPERTIES[0], fresh=0).name == "sampler.callable"
