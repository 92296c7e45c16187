"""Queues whose answers are known: the simulator's must lie within its own intervals of them.

All modes must. The loop called online is slow, so it serves fewer requests and its intervals are
wider; elsewhere it is shown that all modes leave one ledger.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from controllers.serving.ledger import Ledger
from simulator import ClusterConfig, Residual, TraceModel, Workload, run_workload
from tests.simulator.queues import (
    EVEN,
    MODES,
    MS,
    PER_TOKEN,
    batch_interval,
    erlang_c,
    gaps,
    one_by_one,
    waits_s,
    workload,
)

Serve = Callable[[Workload, ClusterConfig], Ledger]


@pytest.fixture
def serve(model: TraceModel, residual: Residual) -> Serve:
    def run(asked: Workload, config: ClusterConfig) -> Ledger:
        result = run_workload(model, residual, asked, config)
        assert result.mode == config.mode
        return result.ledger

    return run


def poisson(rate_per_s: float, n: int, seed: int) -> tuple[np.random.Generator, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng, np.cumsum(rng.exponential(1.0 / rate_per_s, n))


SIZES = pytest.mark.parametrize(("mode", "share"), [("online", 0.25), ("steps", 0.5), ("macro", 1)])


@SIZES
def test_waits_with_one_slot_are_those_of_an_m_d_1_queue(
    serve: Serve, mode: str, share: float
) -> None:
    load, n = 0.6, round(4000 * share)
    _, times = poisson(load / 1e-3, n, seed=1)
    ones = np.ones(n, np.int64)
    ledger = serve(workload(times, 10 * ones, ones), one_by_one(mode, EVEN))
    mean, half = batch_interval(waits_s(ledger))
    expected = load * 1e-3 / (2.0 * (1.0 - load))  # Pollaczek-Khinchine, no service variance
    assert half < 0.2 * expected / share**0.5
    assert abs(mean - expected) < half


@SIZES
def test_waits_with_one_slot_are_those_of_an_m_m_1_queue(
    serve: Serve, mode: str, share: float
) -> None:
    load, n, mean_tokens = 0.5, round(6000 * share), 1000
    rng, times = poisson(load / (mean_tokens * 1e-6), n, seed=2)
    prompts = np.ceil(rng.exponential(mean_tokens, n)).astype(np.int64)
    asked = workload(times, prompts, np.ones(n, np.int64))
    ledger = serve(asked, one_by_one(mode, PER_TOKEN))
    mean, half = batch_interval(waits_s(ledger))
    expected = load / (1.0 - load) * mean_tokens * 1e-6
    assert half < 0.2 * expected / share**0.5
    assert abs(mean - expected) < half
    busy, half = batch_interval(waits_s(ledger) > 0.0)
    assert abs(busy - load) < half < 0.1  # Poisson arrivals see the server as it is: busy


@SIZES
def test_waits_with_four_slots_are_those_of_an_m_m_4_queue(
    serve: Serve, mode: str, share: float
) -> None:
    """A service is a geometric number of steps. It begins at a boundary: up to a step late."""
    slots, load, n = 4, 0.7, round((5000 if mode == "online" else 8000) * share)
    mean_tokens = 8 if mode == "online" else 20  # its steps are dear
    rate = load * slots / (mean_tokens * 1e-3)
    rng, times = poisson(rate, n, seed=3)
    outputs = rng.geometric(1.0 / mean_tokens, n)
    config = one_by_one(mode, EVEN, max_seqs=slots)
    mean, half = batch_interval(waits_s(serve(workload(times, np.full(n, 5), outputs), config)))
    spare = slots / (mean_tokens * 1e-3) - rate
    expected = erlang_c(slots, load * slots) / spare
    assert half < 0.3 * expected / share**0.5
    assert expected - half < mean < expected + 1e-3 + half


def test_erlang_c_is_the_load_for_one_slot_and_small_for_many() -> None:
    assert erlang_c(1, 0.3) == pytest.approx(0.3)
    assert erlang_c(4, 3.2) == pytest.approx(0.5964, abs=1e-4)  # tables
    assert erlang_c(50, 25.0) < 1e-4


@pytest.mark.parametrize("mode", MODES)
def test_a_server_rests_only_when_nobody_is_there(serve: Serve, mode: str) -> None:
    rng, times = poisson(60.0, 150, seed=4)
    outputs = rng.integers(1, 30, 150)
    ledger = serve(workload(times, np.full(150, 20), outputs), one_by_one(mode, EVEN, max_seqs=3))
    arrival, finish = ledger.requests["arrival_ns"], ledger.requests["finish_ns"]
    rests = list(gaps(ledger))
    assert len(rests) > 10
    for end, begin in rests:
        assert not np.any((arrival < begin) & (finish > end))
        assert begin in arrival
    assert ledger.steps["duration_ns"].sum() == MS * len(ledger.steps)
    work = ledger.steps["n_decode"].sum() + (ledger.steps["prompt_tokens"] // 20).sum()
    assert work == outputs.sum()  # one row, one token; the first comes with the prompt


@pytest.mark.parametrize("mode", MODES)
def test_slots_are_full_while_somebody_waits(serve: Serve, mode: str) -> None:
    rng, times = poisson(300.0, 80, seed=5)
    outputs = rng.integers(2, 30, 80)
    ledger = serve(workload(times, np.full(80, 20), outputs), one_by_one(mode, EVEN, max_seqs=3))
    requests, steps = ledger.requests, ledger.steps
    busy = 0
    for now, decoding, prompt in zip(
        steps["now_ns"], steps["n_decode"], steps["prompt_tokens"], strict=True
    ):
        waits = (requests["arrival_ns"] <= now) & (requests["first_scheduled_ns"] > now)
        if waits.any():
            assert decoding + prompt // 20 == 3
            busy += 1
    assert busy > 100


@pytest.mark.parametrize("mode", MODES)
def test_requests_are_served_in_order_of_arrival(serve: Serve, mode: str) -> None:
    rng, times = poisson(900.0, 150, seed=6)
    outputs = rng.integers(1, 9, 150)
    ledger = serve(workload(times, np.full(150, 20), outputs), one_by_one(mode, EVEN, max_seqs=2))
    assert np.all(np.diff(ledger.requests["first_scheduled_ns"]) >= 0)


@pytest.mark.parametrize("mode", ["online", "macro"])
def test_throughput_beyond_capacity_is_capacity(serve: Serve, mode: str) -> None:
    n = 300
    _, times = poisson(3.0 / 1e-3, n, seed=7)
    config = dataclasses.replace(one_by_one(mode, EVEN), record_steps=False)
    ones = np.ones(n, np.int64)
    ledger = serve(workload(times, 10 * ones, ones), config)
    assert ledger.totals.n_steps == n
    assert ledger.totals.end_ns - ledger.requests["arrival_ns"].min() == n * MS
