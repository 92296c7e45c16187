from __future__ import annotations

import numpy as np
import pytest

from controllers.presets import get_preset, shadowed
from controllers.serving.messages import Plan, Row
from controllers.serving.request import Request
from controllers.steplaw import StepLaw
from simulator import Residual, TraceExecutor, TraceModel
from simulator.scripts import write_scripts
from traces.store import Trace

PROMPT = 40


@pytest.fixture
def make(model: TraceModel, residual: Residual, step_law: StepLaw):
    def build(name: str) -> TraceExecutor:
        return TraceExecutor(model, get_preset(name), step_law, residual=residual)

    return build


def a_request(request_id: int, **changes: object) -> Request:
    fields = {"request_id": request_id, "prompt_tokens": PROMPT, "max_tokens": 500}
    return Request(**(fields | changes))


def decode(step: int, *lanes: tuple[int, int, float]) -> Plan:
    """Return a plan of one-token rows: request id, generated so far, coverage."""
    rows = [Row(i, PROMPT + t - 1, 1, True, coverage, False) for i, t, coverage in lanes]
    return Plan(step=step, rows=tuple(rows))


def pages_of(plan: Plan) -> dict[int, list[int]]:
    return {row.request_id: list(range(-(-(row.start + row.n_tokens) // 16))) for row in plan.rows}


def test_entropy_at_the_recorded_temperature_is_the_recorded_one(
    make, model: TraceModel, trace: Trace
) -> None:
    executor, errors = make("baseline"), []
    for index, record in enumerate(trace.requests):
        executor.add(a_request(index, temperature=record.temperature), index)
        first = model.slices[index, 0]
        for t in range(1, record.output_tokens):
            result = executor.execute(plan := decode(t, (index, t, 1.0)), pages_of(plan))
            errors.append(result.h_applied[0] - trace.columns["h_applied"][first + t])
            assert result.tokens == (trace.columns["token"][first + t],)
            assert result.commands[0] == pytest.approx(np.log(record.temperature), abs=1e-6)
    assert np.sqrt(np.mean(np.square(errors))) < 1e-3  # measured 2e-4 on this recording
    assert np.abs(errors).max() < 0.01  # measured .004


def test_signals_hold_the_recorded_calibration_entropy(make, model: TraceModel) -> None:
    executor = make("full")
    executor.add(a_request(0), 3)
    result = executor.execute(plan := decode(0, (0, 5, 1.0)), pages_of(plan))
    row = model.slices[3, 0] + 5
    assert result.signals.h_cal[0] == np.float32(model.h_cal[row])
    assert result.signals.v_cal[0] == np.float32(model.v_cal[row])
    assert result.signals.position[0] == 5.0


def test_pruned_rows_move_entropy_and_dense_rows_do_not(make, model: TraceModel) -> None:
    executor = make("full")
    for i in range(2):
        executor.add(a_request(i), i)
    plan = decode(0, (0, 4, 0.8), (1, 4, 1.0))
    h_cal = executor.execute(plan, pages_of(plan)).signals.h_cal
    assert h_cal[0] != np.float32(model.h_cal[model.slices[0, 0] + 4])
    assert h_cal[1] == np.float32(model.h_cal[model.slices[1, 0] + 4])


def test_page_units_and_time_fall_with_coverage(make, model: TraceModel) -> None:
    executor = make("full")
    executor.add(a_request(0, prompt_tokens=PROMPT), 0)
    read, took = [], []
    for step, coverage in enumerate((0.8, 0.9, 0.95, 0.98, 0.99, 1.0)):
        row = Row(0, PROMPT + 3, 1, True, coverage, False)
        result = executor.execute(Plan(step=step, rows=(row,)), {0: list(range(100))})
        read.append(result.page_units_read)
        took.append(result.duration_ns)
        pages = -(-(PROMPT + 4) // model.page_tokens)
        assert result.page_units_dense == pages * model.layers * model.kv_heads
    assert read == sorted(read)
    assert took == sorted(took)
    assert read[0] < read[-1] == result.page_units_dense
    assert took[0] < took[-1]


def test_duration_is_the_step_law_of_what_the_plan_holds(make, step_law: StepLaw) -> None:
    executor = make("baseline")
    for i in range(3):
        executor.add(a_request(i), i)
    prompt = Row(2, 8, 16, False, 1.0, False)
    both = decode(0, (0, 5, 1.0), (1, 2, 1.0)).rows
    plan = Plan(step=0, rows=(*both, prompt))
    kv_tokens = (PROMPT + 5) + (PROMPT + 2)
    expected_s = step_law.step_s(2, kv_tokens, 16, 16 * (2 * 8 + 16))
    assert executor.execute(plan, pages_of(plan)).duration_ns == round(1e9 * expected_s)


def test_plans_without_samples_take_time_and_give_no_tokens(make) -> None:
    executor = make("best")
    executor.add(a_request(0), 0)
    plan = Plan(step=0, rows=(Row(0, 0, 16, False, 1.0, False),))
    result = executor.execute(plan, pages_of(plan))
    assert result.tokens == ()
    assert result.commands.shape == (0,)
    assert result.page_units_dense == 0
    assert result.duration_ns > 0


def test_recomputed_row_samples_the_next_position(make, model: TraceModel) -> None:
    executor = make("full")
    executor.add(a_request(0), 1)
    plan = Plan(step=0, rows=(Row(0, 0, PROMPT + 6, True, 1.0, False),))
    assert executor.execute(plan, pages_of(plan)).signals.position.tolist() == [6.0]


def test_only_recordings_that_stopped_say_stop_at_the_users_limit(make, model: TraceModel) -> None:
    executor = make("baseline")
    for index, itself in enumerate(model.ends_itself):
        n = model.recorded_tokens(index)
        executor.add(a_request(2 * index, max_tokens=n), index)
        executor.add(a_request(2 * index + 1, max_tokens=n + 1), index)
        plan = decode(index, (2 * index, n - 1, 1.0), (2 * index + 1, n - 1, 1.0))
        finished = executor.execute(plan, pages_of(plan)).finished
        assert (2 * index in finished) == itself
        assert finished[2 * index + 1] == "stop"
        before = decode(index, (2 * index + 1, n - 2, 1.0))
        assert executor.execute(before, pages_of(before)).finished == {}
    assert 0 < model.ends_itself.sum() < len(model.ends_itself)


def rows_of(model: TraceModel, index: int, n_tokens: int, *, seed: int) -> np.ndarray:
    request = a_request(0, max_tokens=n_tokens)
    return write_scripts(model, [request], [index], [n_tokens], seed=seed).rows


def test_tokens_beyond_the_recording_come_in_recorded_blocks(model: TraceModel) -> None:
    recorded = model.recorded_tokens(2)
    first, stop = model.slices[2]
    rows = rows_of(model, 2, recorded + 50, seed=0)
    assert rows[:recorded].tolist() == list(range(first, stop))
    assert len(rows) == recorded + 50
    assert rows.min() >= first
    assert rows.max() < stop
    steps = np.diff(rows[recorded : recorded + 16])
    assert np.all(steps == 1)
    again = rows_of(model, 2, recorded + 50, seed=0)
    other = rows_of(model, 2, recorded + 50, seed=1)
    assert np.array_equal(rows, again)
    assert not np.array_equal(rows, other)


def test_greedy_rows_keep_ln_t_zero_and_report_entropy_at_t_cal(make) -> None:
    executor = make("best")
    executor.add(a_request(0, temperature=0.0), 0)
    executor.add(a_request(1, temperature=0.9), 0)
    plan = decode(0, (0, 3, 1.0), (1, 3, 1.0))
    result = executor.execute(plan, pages_of(plan))
    assert result.commands[0] == 0.0
    assert result.h_applied[0] == result.signals.h_cal[0]
    assert result.signals.enabled.tolist() == [0.0, 1.0]
    assert result.surprisal[0] < result.surprisal[1]


def test_disabled_requests_return_to_their_own_temperature(make) -> None:
    executor = make("full")
    executor.add(a_request(0, temperature=0.8, target_nats=0.0), 0)
    for t in range(1, 6):
        steered = executor.execute(plan := decode(t, (0, t, 1.0)), pages_of(plan)).commands[0]
    executor.disable(0)
    after = executor.execute(plan := decode(6, (0, 6, 1.0)), pages_of(plan)).commands[0]
    assert steered < after == np.float32(np.log(0.8))


def test_shadowed_preset_applies_the_user_and_logs_the_law(
    model: TraceModel, residual: Residual, step_law: StepLaw
) -> None:
    shadow = shadowed(get_preset("best"))
    executors = [
        TraceExecutor(model, preset, step_law, residual=residual)
        for preset in (shadow, get_preset("best"))
    ]
    for executor in executors:
        executor.add(a_request(0, temperature=0.8), 0)
    plan = decode(0, (0, 3, 1.0))
    ours, live = (executor.execute(plan, pages_of(plan)) for executor in executors)
    assert ours.commands[0] == np.float32(np.log(0.8))
    assert ours.shadow is not None
    assert np.array_equal(ours.shadow, live.commands)
    assert live.shadow is None


@pytest.mark.parametrize("temperature", [0.1, 3.0])
def test_temperatures_outside_the_recording_are_rejected_on_arrival(make, temperature) -> None:
    with pytest.raises(ValueError, match="temperature must lie in the recorded"):
        make("baseline").add(a_request(0, temperature=temperature), 0)
