"""Little's law, L = lambda W: what a router sees of a server, against what its ledger says."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import simpy

from controllers.presets import get_preset
from controllers.serving.limits import EngineLimits
from controllers.steplaw import StepLaw
from simulator import Arrival, Residual, TraceModel
from simulator.cluster_modes import Mode, ServerFactory
from simulator.server import Server
from simulator.trajectories import Trajectories
from tests.simulator.queues import batch_interval, workload

LAW = StepLaw(
    base_s=1e-3,
    per_decode_s=1e-4,
    per_kv_token_s=1e-6,
    per_prompt_token_s=1e-5,
    per_prompt_square_s=0.0,
)
RATE_PER_S = 65.0
WIDER = 3.883 / 2.093  # a 99.9 % interval out of a 95 % one, 19 degrees: twelve checks are made
TIGHT = EngineLimits(max_seqs=4, token_budget=48, n_pages=9, max_context=128)


class Watched:
    """A server fed by hand, and the number of requests there as each one comes."""

    def __init__(
        self, model: TraceModel, residual: Residual, mode: Mode, preset: str, seed: int = 21
    ) -> None:
        self.env = simpy.Environment()
        self.seen: list[int] = []
        self.held: list[int] = []
        using = dataclasses.replace(get_preset(preset), sparse_min_context=1)
        rng = np.random.default_rng(seed)
        n = 400 if mode == "online" else 2000
        times = np.cumsum(rng.exponential(1.0 / RATE_PER_S, n))
        lengths = rng.integers(5, 60, n), rng.integers(1, 25, n)
        self.arrivals = workload(times, *lengths).arrivals
        self.server: Server = ServerFactory(
            env=self.env,
            mode=mode,
            model=model,
            residual=residual,
            trajectories=Trajectories(model, residual, using, self.arrivals, seed=0),
            recordings=None,
            preset=using,
            seed=0,
            oracle=None,
            record_tokens=False,
            record_steps=False,
            totals_from_ns=0,
            verify=False,
            sinks=None,
            witnesses=None,
            on_finish=lambda _id, _reason: None,
        ).make(0, TIGHT, LAW)
        self.env.process(self._feed(self.arrivals))
        self.env.run()

    def _feed(self, arrivals: tuple[Arrival, ...]) -> Iterator[simpy.Event]:
        for arrival in arrivals:
            yield self.env.timeout(arrival.arrival_ns - int(self.env.now))
            self.seen.append(self.server.n_waiting + self.server.n_running)
            self.held.append(TIGHT.n_pages - self.server.free_pages)
            self.server.submit(arrival)


@pytest.mark.parametrize(
    ("mode", "preset"),
    [("online", "baseline"), ("steps", "full"), ("macro", "full"), ("macro", "baseline")],
)
def test_poisson_arrivals_see_the_arrival_rate_times_the_time_in_system(
    model: TraceModel, residual: Residual, mode: Mode, preset: str
) -> None:
    watched = Watched(model, residual, mode, preset)
    ledger = watched.server.ledger
    requests = ledger.requests
    assert requests["preemptions"].sum() > len(requests) / 50
    inside_s = (requests["finish_ns"] - requests["arrival_ns"]) * 1e-9
    span_s = (requests["arrival_ns"][-1] - requests["arrival_ns"][0]) * 1e-9
    rate = (len(inside_s) - 1) / span_s
    gap, half = batch_interval(np.array(watched.seen) - rate * inside_s)
    level = float(np.mean(watched.seen))
    assert level > 1.0
    assert abs(gap) < WIDER * half < 0.35 * level
    busy_ns = ledger.totals.sum("duration_ns")
    held = float((np.arange(len(ledger.totals.held_ns)) * ledger.totals.held_ns).sum())
    gap, half = batch_interval(np.array(watched.held) - held / (span_s * 1e9))
    assert abs(gap) < WIDER * half  # pages: what a router sees of them is what the steps held
    assert 0.3 < busy_ns / (span_s * 1e9) < 0.95
