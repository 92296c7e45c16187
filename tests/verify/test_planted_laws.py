"""Planted-bad laws: the verifier rejects each, for the defect it was planted with and no other."""

from __future__ import annotations

import pytest

from reports.verify.contract import properties_of as contract_of
from reports.verify.finding import Verdict
from reports.verify.property import Property
from reports.verify.registry import properties_of
from reports.verify.run import check
from reports.verify.setting import get_budget
from reports.verify.target import Target, resolve
from tests.verify.planted.table import (
    AGAINST_CONTROL,
    AGAINST_THE_CONTRACT,
    LAWS,
    PLANTED,
    SOUND,
    Planted,
)

BUDGET = get_budget("ci", lanes=400)  # what is planted is found at once
each_planted = pytest.mark.parametrize("planted", PLANTED, ids=lambda p: f"{p.where}-{p.property}")


def broken_rules(target: Target, *, without: str = "") -> set[str]:
    """Return the rules of the contract that the first trials of each show broken."""
    part = target.parts[0]
    broken = set()
    for rule in contract_of(part.role):
        if rule.name == without or rule.unfit(part.law):
            continue
        trials = rule.trials_for(part.law)
        if any(rule.breach(part.law, trial) is not None for trial in trials):
            broken.add(rule.name)
    return broken


def named(target: Target, name: str) -> Property:
    return next(item for item in properties_of(target.parts[0]) if item.name == name)


@each_planted
def test_the_verifier_rejects_a_planted_law_by_its_property(planted: Planted) -> None:
    target = resolve(planted.spec)
    found = check(named(target, planted.property), target.parts[0], target, BUDGET)
    assert found.verdict is Verdict.VIOLATED, found.note
    assert found.counterexample is not None
    assert planted.says in " ".join(found.story)
    assert 1 <= len(found.story) <= 30


@pytest.mark.parametrize("planted", AGAINST_THE_CONTRACT, ids=lambda p: p.where)
def test_a_law_planted_against_a_rule_keeps_every_other_rule(planted: Planted) -> None:
    assert broken_rules(resolve(planted.spec)) == {planted.property, *planted.also}


@pytest.mark.parametrize("planted", AGAINST_CONTROL, ids=lambda p: f"{p.where}-{p.property}")
def test_a_law_that_controls_badly_keeps_the_contract(planted: Planted) -> None:
    # Tracing is slow, and the sound laws these differ from in a line are traced below.
    broken = broken_rules(resolve(planted.spec), without="contract.compiles")
    assert broken == set(planted.also)


@pytest.mark.parametrize("where", SOUND)
def test_the_laws_that_defects_are_planted_into_keep_the_contract(where: str) -> None:
    target = resolve(f"{LAWS}.{where}")
    rules = contract_of(target.parts[0].role)
    assert sum(not rule.unfit(target.parts[0].law) for rule in rules) >= 10
    assert broken_rules(target) == set()


def test_every_rule_of_the_contract_has_a_planted_law() -> None:
    rules = {rule.name for rule in contract_of("temperature")}
    assert {planted.property for planted in AGAINST_THE_CONTRACT} == rules
