"""Host sensors and law lanes."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.core import LoadSignal, TokenSignal, replay
from controllers.presets import PRESETS
from controllers.serving.lanes import LaneBank
from controllers.serving.request import Sequence
from controllers.serving.sensors import SLACK_SERVED_S, CollapseSensor, load_signal
from tests.serving.worlds import STEP_LAW, limits, request, world


def loads(*sequences: Sequence, now_ns: int = 0, quantum: int | None = None) -> LoadSignal:
    return load_signal(
        sequences,
        now_ns,
        limits=limits(),
        step_law=STEP_LAW,
        quantum_tokens=quantum,
        collapse=CollapseSensor(0.5, 4.0),
    )


def test_the_collapse_starts_at_the_prior_and_forgets() -> None:
    sensor = CollapseSensor(0.5, 4.0)
    sensor.observe(1, 3.0)
    assert sensor.read(1) == sensor.read(2) == 0.5
    sensor.observe(1, 1.0)
    assert sensor.read(1) == pytest.approx((2.0 + 2.0) / 5.0)
    sensor.forget(1)
    assert sensor.read(1) == 0.5


@given(st.lists(st.floats(0.0, 10.0), max_size=20), st.floats(0.0, 3.0), st.floats(0.0, 8.0))
def test_the_collapse_is_the_shrunk_mean_of_falls(
    entropies: list[float], prior: float, weight: float
) -> None:
    sensor = CollapseSensor(prior, weight)
    for h in [*entropies[:3], math.nan, *entropies[3:]]:
        sensor.observe(0, h)
    falls = [max(0.0, a - b) for a, b in pairwise(entropies)]
    expected = (sum(falls) + prior * weight) / (len(falls) + weight) if falls else prior
    assert sensor.read(0) == pytest.approx(expected)


def test_load_signals_are_float32_and_relative() -> None:
    old = Sequence(request=request(0), arrival_ns=0, wait_since_ns=4_000_000_000)
    signal = loads(old, now_ns=6_000_000_000)
    assert {column.dtype for column in signal} == {np.dtype(np.float32)}
    assert (signal.age_s[0], signal.wait_s[0], signal.slack_s[0]) == (6.0, 2.0, 4.0)
    shifted = Sequence(request=request(0), arrival_ns=10**12, wait_since_ns=10**12 + 4 * 10**9)
    later = loads(shifted, now_ns=10**12 + 6 * 10**9)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(later, signal, strict=True))


def test_slack_ends_with_the_first_token() -> None:
    served = Sequence(request=request(0), arrival_ns=0, generated=1, computed=5)
    assert loads(served).slack_s[0] == np.float32(SLACK_SERVED_S)


def test_pages_needed_are_those_still_missing() -> None:
    waiting = Sequence(request=request(0, prompt=8), arrival_ns=0)
    resident = Sequence(request=request(1, prompt=8), arrival_ns=0, pages=[0, 1])
    signal = loads(waiting, resident)
    assert signal.pages_held.tolist() == [0.0, 2.0]
    assert signal.pages_needed.tolist() == [3.0, 1.0]


def test_the_cost_prices_recomputing_and_a_quantum() -> None:
    decoding = Sequence(request=request(0, prompt=8, length=20), arrival_ns=0)
    decoding.generated, decoding.computed = 2, 9
    lost = Sequence(request=request(1, prompt=8, length=20), arrival_ns=0, generated=2)
    cheap, dear = loads(decoding, lost, quantum=4).cost_s.tolist()
    row_s = 5e-3 / 4 + 1e-4 + 1e-7 * (10 + 2)
    assert cheap == pytest.approx(4 * row_s)
    assert dear - cheap == pytest.approx(STEP_LAW.step_s(0, 0, 10, 100))
    assert loads(decoding).cost_s[0] == loads(decoding, quantum=18).cost_s[0]


def signals(rng: np.random.Generator, n: int, ids: list[int]) -> list[TokenSignal]:
    def lanes() -> TokenSignal:
        made = TokenSignal(*(rng.uniform(0, 4, len(ids)).astype(np.float32) for _ in range(10)))
        return made._replace(enabled=np.ones(len(ids), np.float32))

    return [lanes() for _ in range(n)]


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize("role", ["temperature", "coverage"])
def test_lanes_that_come_and_go_run_as_if_alone(name: str, role: str) -> None:
    law = getattr(PRESETS[name], role)
    rng = np.random.default_rng(0)
    ids = list(range(150))
    steps = signals(rng, 12, ids)
    bank, got = LaneBank(law), {i: [] for i in ids}
    alone = {i: [] for i in ids}
    for signal in steps:
        present = np.flatnonzero(rng.uniform(size=len(ids)) < 0.3)
        here = TokenSignal(*(column[present] for column in signal))
        for i, command in zip(present.tolist(), bank.update(present.tolist(), here), strict=True):
            got[i].append(command)
            alone[i].append(TokenSignal(*(column[i : i + 1] for column in signal)))
    for i in ids:
        if alone[i]:
            expected = replay(law, alone[i])[:, 0]
            assert np.array(got[i], np.float32).tobytes() == expected.tobytes()


def test_a_released_lane_starts_afresh() -> None:
    law = PRESETS["sampling"].temperature
    first, second = signals(np.random.default_rng(1), 2, [0])
    bank = LaneBank(law)
    bank.update([0], first)
    bank.release(0)
    assert bank.update([0], second) == replay(law, [second])[0]


def test_lanes_are_reused_so_that_a_long_run_needs_no_more_room() -> None:
    bank = LaneBank(PRESETS["sampling"].temperature)
    (signal,) = signals(np.random.default_rng(2), 1, [0])
    for request_id in range(300):
        bank.update([request_id], signal)
        bank.release(request_id)
    assert bank.capacity == 64


def test_the_next_token_and_the_pending_prompt_are_priced_apart() -> None:
    decoding = Sequence(request=request(0, prompt=8, length=20), arrival_ns=0)
    decoding.generated, decoding.computed = 2, 9
    waiting = Sequence(request=request(1, prompt=10, length=20), arrival_ns=0)
    signal = loads(decoding, waiting)
    assert signal.prefill_s.tolist() == pytest.approx([0.0, STEP_LAW.step_s(0, 0, 10, 100)])
    assert signal.token_s[0] == signal.token_s[1] == pytest.approx(5e-3 / 4 + 1e-4 + 1e-7 * 10)
    assert signal.cost_s[0] == pytest.approx(18 * (signal.token_s[0] + 1e-7 * 9))


def test_attained_service_is_the_sum_of_its_rows_each_as_a_step_of_its_own() -> None:
    # Budget 16: a prompt of 25 in chunks of 16 and 9, then four decode rows beside another.
    w = world(max_seqs=2, n_pages=20, max_context=40)
    w.submit(request(0, prompt=25, length=10), request(1, prompt=3, length=15))
    sequence = w.loop.sequences[0]
    for _ in range(6):
        w.step()
    chunks = STEP_LAW.step_s(0, 0, 16, 16**2) + STEP_LAW.step_s(0, 0, 9, 9 * (2 * 16 + 9))
    decode = sum(STEP_LAW.step_s(1, context, 0, 0) for context in range(25, 25 + 4))
    assert sequence.generated == 5
    assert sequence.served_s == pytest.approx(chunks + decode)


def test_without_a_prediction_the_cap_stands_in_and_one_outrun_leaves_one_token() -> None:
    capped = Sequence(request=request(0, length=20), arrival_ns=0, generated=3)
    guessed = Sequence(request=request(1, length=20, predicted_tokens=9), arrival_ns=0, generated=3)
    outrun = Sequence(request=request(2, length=20, predicted_tokens=2), arrival_ns=0, generated=3)
    assert loads(capped, guessed, outrun).predicted_tokens.tolist() == [17.0, 6.0, 1.0]


def test_true_lengths_are_unknown_unless_an_oracle_tells_them() -> None:
    sequence = Sequence(request=request(4, length=20), arrival_ns=0, generated=3)
    assert math.isnan(loads(sequence).oracle_tokens[0])
    told = load_signal(
        [sequence],
        0,
        limits=limits(),
        step_law=STEP_LAW,
        quantum_tokens=None,
        collapse=CollapseSensor(0.5, 4.0),
        oracle={4: 12},
    )
    assert told.oracle_tokens.tolist() == [9.0]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("priority", 2**24 + 1, "priority must lie within"),
        ("predicted_tokens", 0, "predicted_tokens must be >= 1 or None; got predicted_tokens=0"),
    ],
)
def test_bad_request_fields_are_refused_by_name(field: str, value: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        request(0, **{field: value})
