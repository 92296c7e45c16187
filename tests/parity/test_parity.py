"""Decision parity over the committed log of a live run: the simulator's side recomputes it all."""

from __future__ import annotations

import copy
import json

import pytest
from typer.testing import CliRunner

from controllers.serving.runlog import read_log
from reports.parity_commands import LOG, TRACE, app
from reports.studies.parity import Parity, check
from traces.store import read_trace


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return read_log(LOG)


@pytest.fixture(scope="module")
def found(rows: list[dict]) -> Parity:
    return check(rows, read_trace(TRACE))


def test_the_committed_run_exercised_everything_that_can_differ(found: Parity) -> None:
    events = found.events
    assert events["requests"] >= 32
    assert events["steps"] >= 2000
    for name, count in events.items():
        assert count > 0, name


def test_every_plan_of_a_live_run_is_recomputed_exactly(found: Parity) -> None:
    assert found.plans.compared == found.plans.steps == found.events["steps"]
    assert found.plans.differing == ()


def test_numpy_reproduces_every_live_torch_command_bitwise(found: Parity) -> None:
    assert found.commands.commands == found.events["tokens"]
    assert found.commands.differing == ()


def test_recorded_curves_predict_live_entropy_within_the_bound(found: Parity) -> None:
    assert found.curves is not None
    assert found.curves.tokens > 2000
    assert found.curves.max_abs_nats <= 0.02


def test_a_law_fed_by_curves_alone_stays_on_the_live_temperature(found: Parity) -> None:
    assert found.curves is not None
    assert found.curves.loop_max_abs_x < 0.01


def test_a_changed_command_is_found(rows: list[dict]) -> None:
    changed = copy.deepcopy(rows)
    result = next(row for row in changed if row["kind"] == "result" and row["commands"])
    result["commands"][0] += 1e-6
    assert check(changed).commands.n_differing == 1


def test_a_changed_signal_moves_a_later_plan(rows: list[dict]) -> None:
    changed = copy.deepcopy(rows)
    for row in changed:
        if row["kind"] == "result":
            row["signals"] = {
                name: [value * 1.5 for value in lanes] if name == "h_cal" else lanes
                for name, lanes in row["signals"].items()
            }
    assert check(changed).plans.n_differing > 0


def test_the_command_prints_the_verdict_as_json() -> None:
    done = CliRunner().invoke(app, ["--json"])
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert document["command"] == "parity"
    assert document["metrics"]["holds"] is True
    assert document["metrics"]["plans_differing"] == 0
