from __future__ import annotations

import dataclasses
import json

import pytest
from typer.testing import CliRunner

from controllers.presets import get_preset
from simulator import defaults
from simulator.description import Failures
from simulator.failure_commands import app
from simulator.failure_study import SHOWN, audit, failure_study
from simulator.scenario import build, run
from traces.profile import read_profile

RULES = Failures(mtbf_s=3.5, mttr_s=2.0, max_retries=2)


@pytest.fixture(scope="module")
def scenario(trace):
    profile = read_profile(defaults.PROFILE)
    return build(trace, profile, replicas=3, router="least_loaded", n_requests=60, rate_per_s=6.0)


@pytest.fixture(scope="module")
def study(scenario):
    return failure_study(scenario, get_preset("full"), RULES, seeds=range(3))


def test_every_request_of_a_study_completes_once_or_is_reported(study) -> None:
    assert study.sound
    for pair in study.pairs:
        found = pair.audit
        assert found.requests == 60 == found.completed_once + found.failed
        assert pair.retries > 0
    assert sum(pair.crashes for pair in study.pairs) >= 6
    assert len({(pair.crashes, pair.retries) for pair in study.pairs}) > 1  # seeds of their own


def test_a_study_compares_the_same_requests_with_and_without_failures(study) -> None:
    rows = {name: (calm, hit, change) for name, calm, hit, change in study.rows()}
    assert list(rows) == list(SHOWN)
    calm, hit, change = rows["lost_tokens"]
    assert calm.mean == 0.0 < hit.mean
    assert change.mean == pytest.approx(hit.mean)
    assert rows["completed"][0].mean == 1.0
    calm, hit, change = rows["e2e_s.mean"]
    assert change.mean == pytest.approx(hit.mean - calm.mean)
    assert change.mean > 0.0


def test_an_audit_finds_what_it_is_there_to_find(scenario) -> None:
    workload = scenario.workload(0)
    result = run(dataclasses.replace(scenario, mode="online"), get_preset("full"), 0).result
    truth = dict(zip(result.ledger.row_of, result.ledger.requests["tokens"].tolist(), strict=True))
    assert audit(result, workload, truth).sound
    assert audit(result, workload, truth | {5: 10_000}).miscounted == 1
    twice = dataclasses.replace(result, ledgers=(*result.ledgers, result.ledgers[0]))
    assert audit(twice, workload, truth).completed_again == len(result.ledgers[0].reasons)
    some = dataclasses.replace(result, ledgers=result.ledgers[1:])
    gone = audit(some, workload, truth)
    assert gone.unaccounted == len(result.ledgers[0].reasons)
    assert not gone.sound


def command(*options: str):
    return CliRunner().invoke(app, list(options))


def test_the_command_prints_where_requests_ended_and_what_failures_cost() -> None:
    shared = ("--requests", "40", "--seeds", "2", "--replicas", "2", "--preset", "baseline")
    text = command(*shared)
    assert text.exit_code == 0
    assert "every request completed exactly once or is reported" in text.stdout
    assert "± " in text.stdout
    found = json.loads(command(*shared, "--json").stdout)
    assert found["command"] == "failures"
    assert [pair["seed"] for pair in found["pairs"]] == [0, 1]
    assert {row["metric"] for row in found["rows"]} == set(SHOWN)
    assert found["config"]["failures"]["max_retries"] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mtbf", "0"), "mtbf_s must be finite and > 0"),
        (("--retries", "-1"), "max_retries must be >= 0"),
        (("--seeds", "0"), "seeds must be >= 1"),
        (("--router", "x"), "router must be one of"),
        (("--topology", "nowhere.json"), "nowhere.json: cannot be read"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_2(options, message) -> None:
    found = command("--requests", "4", *options)
    assert found.exit_code == 2
    assert message in found.stderr
    assert found.stderr.count("\n") == 1
