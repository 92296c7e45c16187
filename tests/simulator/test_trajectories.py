"""Trajectories of a workload, held against a loop that calls the laws at every step."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from controllers.compose import Gated
from controllers.coverage import EntropyCoverage, FixedCoverage
from controllers.preset import Preset
from controllers.presets import get_preset, shadowed
from controllers.serving.limits import EngineLimits
from controllers.serving.loop import ServingLoop
from controllers.serving.metrics import summarise
from controllers.serving.request import Request
from controllers.steplaw import StepLaw
from controllers.temperature import X_MAX, X_MIN, EntropyFeedback
from simulator import Arrival, Residual, TraceModel
from simulator.executor import TraceExecutor
from simulator.scan import sums
from simulator.trajectories import Trajectories

LIMITS = EngineLimits(max_seqs=6, token_budget=64, n_pages=60, max_context=512)
SEED = 5
ASKED = (
    {},
    {"temperature": 0.0},
    {"one_sided": True, "temperature": 0.6},
    {"enabled": False},
    {"min_coverage": 0.97},
    {"max_tokens": 3},
    {"target_nats": 2.5, "temperature": 1.4},
)


def preset_of(name: str) -> Preset:
    if name == "fixed_sparse":
        law = FixedCoverage(coverage=0.95)
        return dataclasses.replace(get_preset("full"), coverage=law, sparse_min_context=40)
    if name == "shadow":
        return dataclasses.replace(shadowed(get_preset("full")), sparse_min_context=40)
    return dataclasses.replace(get_preset(name), sparse_min_context=40, quantum_tokens=None)


def arrivals_of(n: int) -> list[Arrival]:
    """Requests of every kind, some shorter and some longer than what answers for them."""
    made = []
    for i in range(n):
        fields = {"prompt_tokens": 30 + i, "max_tokens": 80, "temperature": 0.9}
        request = Request(request_id=100 + 3 * i, **(fields | ASKED[i % len(ASKED)]))
        length = None if i % 3 == 0 else 5 + 7 * (i % 9)
        made.append(
            Arrival(request=request, arrival_ns=i, trace_index=i % 12, output_tokens=length)
        )
    return made


class Online:
    """A serving loop over the arrivals; every step calls the laws."""

    def __init__(
        self, model: TraceModel, residual: Residual, preset: Preset, arrivals: list[Arrival]
    ) -> None:
        step_law = StepLaw(
            base_s=6e-3,
            per_decode_s=1e-5,
            per_kv_token_s=4e-8,
            per_prompt_token_s=2e-5,
            per_prompt_square_s=1e-9,
        )
        self.step_law = step_law
        self.loop = ServingLoop(LIMITS, preset, step_law, t_cal=model.t_cal)
        self.executor = TraceExecutor(
            model,
            preset,
            step_law,
            residual=residual,
            seed=SEED,
            twin_coverage=self.loop.twin_coverage,
        )
        self.now_ns = 0
        for arrival in arrivals:
            self.loop.submit(arrival.request, 0)
            self.executor.add(arrival.request, arrival.trace_index, arrival.output_tokens)

    def step(self) -> None:
        plan = self.loop.plan(self.now_ns)
        if plan.rows:
            result = self.executor.execute(plan, self.loop.pages(plan))
            self.now_ns += result.duration_ns
            for request_id in self.loop.observe(result, self.now_ns):
                self.executor.release(request_id)

    def run(self) -> None:
        while self.loop.has_work:
            self.step()

    def tokens(self, request_id: int) -> dict[str, np.ndarray]:
        found = self.loop.ledger.tokens
        mine = found["request_id"] == request_id
        return {name: found[name][mine] for name in found.columns}


def assert_same_tokens(made: object, served: dict[str, np.ndarray]) -> None:
    for name in ("command", "h_applied", "h_cal", "surprisal", "coverage"):
        assert np.array_equal(getattr(made, name), served[name]), name
    assert len(served["command"]) == made.n_tokens


@pytest.mark.parametrize(
    "name", ["full", "best", "seed", "baseline", "attention", "fixed_sparse", "shadow"]
)
def test_trajectories_are_those_of_a_loop_that_calls_the_laws(
    name: str, model: TraceModel, residual: Residual
) -> None:
    preset, arrivals = preset_of(name), arrivals_of(21)
    limits_bind_nothing = Online(model, residual, preset, arrivals)
    limits_bind_nothing.run()
    ledger = limits_bind_nothing.loop.ledger
    assert ledger.requests["preemptions"].sum() == 0
    found = Trajectories(model, residual, preset, arrivals, seed=SEED)
    for arrival in arrivals:
        request_id = arrival.request.request_id
        made = found.of(request_id)
        assert_same_tokens(made, limits_bind_nothing.tokens(request_id))
        assert ledger.reasons[ledger.row_of[request_id]] == ("stop" if made.stops else "length")


def test_sums_are_those_of_the_metrics(model: TraceModel, residual: Residual) -> None:
    wild = Gated(law=EntropyFeedback(gain=2.0, c=math.inf, rate=2.0))  # often on a clip
    preset, arrivals = dataclasses.replace(preset_of("full"), temperature=wild), arrivals_of(21)
    online = Online(model, residual, preset, arrivals)
    online.run()
    metrics = summarise(
        online.loop.ledger,
        step_law=online.step_law,
        bytes_per_page_unit=4096,
        x_min=X_MIN,
        x_max=X_MAX,
    )
    found = Trajectories(model, residual, preset, arrivals, seed=SEED)
    made = [found.of(arrival.request.request_id) for arrival in arrivals]
    tokens = sum(one.n_tokens for one in made)
    for name, attribute in (
        ("tau_nats", "tau"),
        ("tau_cal_nats", "tau_cal"),
        ("entropy_net_nats", "net"),
        ("nll_nats", "nll"),
    ):
        total = sum(getattr(one, attribute) for one in made)
        assert total == pytest.approx(metrics[name], rel=1e-9), name
    assert sum(one.on_bound for one in made) / tokens == metrics["clip_share"]
    assert sum(one.on_bound for one in made) > 0


def test_sums_over_parts_add_up_to_the_whole(model: TraceModel, residual: Residual) -> None:
    found = Trajectories(model, residual, preset_of("full"), arrivals_of(9), seed=SEED)
    for arrival in arrivals_of(9):
        made = found.of(arrival.request.request_id)
        whole = (made.tau, made.tau_cal, made.net, made.nll, made.on_bound)
        assert sums(made) == pytest.approx(whole, rel=1e-12, abs=1e-12)
        cut = made.n_tokens // 2
        parts = np.array(sums(made, 0, cut)) + np.array(sums(made, cut))
        assert tuple(parts) == pytest.approx(whole, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("block_lanes", [1, 4, 2048])
def test_blocks_change_nothing(block_lanes: int, model: TraceModel, residual: Residual) -> None:
    arrivals = arrivals_of(21)
    whole = Trajectories(model, residual, preset_of("full"), arrivals, seed=SEED)
    cut = Trajectories(
        model, residual, preset_of("full"), arrivals, seed=SEED, block_lanes=block_lanes
    )
    for arrival in reversed(arrivals):
        one, other = (t.of(arrival.request.request_id) for t in (whole, cut))
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_forgotten_request_comes_back_the_same(model: TraceModel, residual: Residual) -> None:
    arrivals = arrivals_of(9)
    found = Trajectories(model, residual, preset_of("full"), arrivals, seed=SEED)
    before = found.of(112)
    found.forget(112)
    found.forget(112)
    again = found.of(112)
    assert again is not before
    assert all(np.array_equal(a, b) for a, b in zip(before, again, strict=True))
    with pytest.raises(KeyError):
        found.of(113)
    kept = Trajectories(model, residual, preset_of("full"), arrivals, seed=SEED, keep=True)
    before = kept.of(112)
    kept.forget(112)
    assert kept.of(112) is before


@pytest.mark.parametrize("name", ["full", "seed", "baseline"])
def test_switching_a_request_off_is_scanned_as_it_is_served(
    name: str, model: TraceModel, residual: Residual
) -> None:
    preset, arrivals = preset_of(name), arrivals_of(6)
    online = Online(model, residual, preset, arrivals)
    request_id = arrivals[4].request.request_id  # of 80 tokens at most, 33 in truth
    for _ in range(20):
        online.step()
    generated = online.loop.sequences[request_id].generated
    assert 0 < generated < 33
    online.loop.disable(request_id)
    online.executor.disable(request_id)
    online.run()
    found = Trajectories(model, residual, preset, arrivals, seed=SEED)
    before = found.of(request_id)
    made = found.disable(request_id, generated)
    assert_same_tokens(made, online.tokens(request_id))
    assert np.array_equal(made.command[:generated], before.command[:generated])
    if name != "baseline":
        assert not np.array_equal(made.command, before.command)
    assert np.all(made.coverage[generated:] == 1.0)
    assert np.all(before.coverage[generated:] < 1.0) == (name != "baseline")


def test_a_coverage_above_the_recorded_ones_is_refused_only_where_it_is_used(
    model: TraceModel, residual: Residual
) -> None:
    request = Request(request_id=0, prompt_tokens=30, max_tokens=20, min_coverage=0.995)
    arrival = Arrival(request=request, arrival_ns=0, trace_index=0, output_tokens=20)
    short = dataclasses.replace(get_preset("full"), sparse_min_context=60)
    Trajectories(model, residual, short, [arrival], seed=0).of(0)
    with pytest.raises(ValueError, match=r"coverage must be <= 0\.99"):
        Trajectories(model, residual, preset_of("full"), [arrival], seed=0).of(0)


def test_the_pages_kept_are_those_the_executor_reads(model: TraceModel, residual: Residual) -> None:
    law = EntropyCoverage(p_min=0.8, p_max=0.99, dwell=1, rate=1.0)
    preset = dataclasses.replace(preset_of("full"), coverage=law)
    arrivals = arrivals_of(1)
    online = Online(model, residual, preset, arrivals)
    online.run()
    made = Trajectories(model, residual, preset, arrivals, seed=SEED).of(100)
    units = model.layers * model.kv_heads
    pages = np.array([-(-(30 + t) // LIMITS.page_tokens) for t in range(1, made.n_tokens)])
    read = [round(share * n * units) for share, n in zip(made.share[1:], pages, strict=True)]
    assert sum(read) == online.loop.ledger.steps["page_units_read"].sum()
    assert made.share[1:].min() < 1.0
