"""Bounds that are exact break just outside: what a law claims, made a little too good."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from controllers.coverage import EntropyCoverage
from controllers.priority import EntropyPriority
from reports.verify import coverage, priority
from reports.verify.property import Property
from reports.verify.search import search
from reports.verify.setting import get_budget

BUDGET = get_budget("ci")
SHARE = 0.99  # of the true bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Hasty(EntropyPriority):
    """Claims to age a little faster than it does."""

    @property
    def max_wait_s(self) -> float:
        return SHARE * self.pi_max / self.kappa


def _named(properties: tuple[Property, ...], name: str) -> Property:
    return next(prop for prop in properties if prop.name == name)


@pytest.mark.parametrize(("law", "breaks"), [(EntropyPriority(), False), (Hasty(), True)])
def test_the_longest_wait_is_exact(law: EntropyPriority, breaks: bool) -> None:  # noqa: FBT001
    found = search(_named(priority.PROPERTIES, "priority.aging"), law, BUDGET)
    assert found.worst.violates == breaks


def test_the_worst_change_of_coverage_reaches_its_limit_and_no_further() -> None:
    found = search(_named(coverage.PROPERTIES, "coverage.chatter"), EntropyCoverage(), BUDGET)
    assert not found.worst.violates
    assert found.worst.value == pytest.approx(found.worst.bound, rel=1e-3)


def test_the_clip_of_a_priority_is_reached_and_not_passed() -> None:
    found = search(_named(priority.PROPERTIES, "priority.bounded"), EntropyPriority(), BUDGET)
    assert not found.worst.violates
    assert found.worst.value == pytest.approx(EntropyPriority().pi_max, rel=1e-4)
