from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from controllers.certificates import finite_step
from controllers.presets import PRESETS
from reports.verify.coupling import EARLY, KICKED, SPACE, FiniteStep, run, windows
from reports.verify.draw import draw
from reports.verify.registry import properties_of
from reports.verify.search import search
from reports.verify.setting import get_budget
from reports.verify.target import LAW_ROLES, resolve

PROP = FiniteStep()
BUDGET = dataclasses.replace(get_budget("ci", lanes=200), examples=0)


@pytest.mark.parametrize("name", ["full", "best", "baseline"])
def test_runs_that_a_disturbance_parted_meet_again_under_corrected_laws(name):
    found = search(PROP, PRESETS[name], BUDGET)
    assert not found.worst.violates
    proof = PROP.certificate(PRESETS[name])
    assert proof is not None
    assert proof.bound < 1.0


@pytest.mark.parametrize(("name", "proved"), [("full", False), ("best", False), ("baseline", True)])
def test_a_proof_of_small_errors_is_none_of_runs_far_apart(name, proved):
    preset = PRESETS[name]
    assert finite_step(preset, windows(), h=1.0).holds
    proof = PROP.certificate(preset)
    assert proof.holds is proved
    assert ("small errors only" in proof.statement) is not proved


def test_the_papers_laws_drive_two_runs_apart():
    found = search(PROP, PRESETS["seed"], BUDGET)
    assert found.worst.violates
    story = PROP.story(PRESETS["seed"], found.worst.case)
    assert len(story) <= 30
    assert "the runs part" in story[-1]


def test_the_runs_are_one_until_the_disturbance_and_differ_after_it():
    cases = draw(SPACE, np.random.default_rng(0), 32)
    quiet = run(PRESETS["full"], cases | {"kick_nats": np.zeros(32)})
    assert not quiet.distance.any()
    kicked = run(PRESETS["full"], cases)
    assert (kicked.distance[:KICKED].max(axis=0) > 0).mean() > 0.5
    np.testing.assert_array_equal(kicked.x[:, 0], quiet.x[:, 0])
    assert EARLY > KICKED


def test_certificate_windows_hold_recorded_varentropy():
    found = windows()
    assert found.ndim == 2
    assert found.min() >= 0.0
    assert 0.1 < found.mean() < 20.0


def test_a_lone_law_has_no_second_loop():
    assert PROP.unfit(PRESETS["full"]) == ""
    assert "preset" in PROP.unfit(PRESETS["full"].temperature)


def test_every_part_of_a_preset_has_properties_of_distinct_names():
    for part in resolve("full").parts:
        names = [prop.name for prop in properties_of(part)]
        assert len(set(names)) == len(names) > 0
        if part.role in LAW_ROLES:
            assert "contract.callable" in names


def test_starvation_is_checked_once_on_the_whole_server_or_on_a_lone_law():
    def starving(part):
        return [p.name for p in properties_of(part) if p.name.startswith("starvation.")]

    preset = resolve("full")
    assert starving(preset.part("serving")) == starving(resolve("Fcfs").parts[0]) != []
    assert starving(preset.part("priority")) == []
