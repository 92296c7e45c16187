"""The long search, made short: what it covers, that lanes count once, and that it can fail."""

from __future__ import annotations

import pytest

from controllers.core import fingerprint
from controllers.presets import PRESETS
from reports.verify import micro, prove
from reports.verify.finding import Verdict
from reports.verify.target import resolve


def _law(spec: str) -> object:
    return next(p.law for p in resolve(spec).parts if p.role == "temperature")


def test_every_sound_law_is_searched_once() -> None:
    prints = [fingerprint(_law(spec)) for spec in prove.SOUND]
    assert len(set(prints)) == len(prints)
    sound = {fingerprint(p.temperature) for name, p in PRESETS.items() if name != "seed"}
    assert sound <= set(prints)


def test_lanes_are_divided_among_laws_and_properties_and_none_is_lost() -> None:
    planned = prove.jobs(1_000_000, seed=0)
    assert sum(job.lanes for job in planned) >= 1_000_000
    assert {job.spec for job in planned} == set(prove.SOUND)
    assert {job.property for job in planned} == set(prove.LOOPS)
    assert set(prove.LOOPS) <= {prop.name for prop in micro.PROPERTIES}


def test_a_job_counts_its_distinct_lanes_and_finds_nothing_against_a_sound_law() -> None:
    found = prove.run(prove.Job("EntropyFeedback", "micro.stability", 500, 0))
    assert found.verdict is not Verdict.VIOLATED
    assert found.cases >= 500


def test_the_same_job_breaks_the_printed_law() -> None:
    found = prove.run(prove.Job("seed", "micro.stability", 500, 0))
    assert found.verdict is Verdict.VIOLATED
    assert found.counterexample is not None


def test_a_search_needs_a_lane() -> None:
    with pytest.raises(ValueError, match="lanes must be at least 1; got lanes=0"):
        prove.jobs(0, seed=0)
