"""Two clusters, one called online and one in macro-steps, under the same hostile operator.

Every rule is done to both, and after each they must tell a router the same. INV-1, 2, 3 and 6 are
asserted inside after every step (``verify``); at the end the ledgers must be equal, every request
must have left exactly once, and no page may be held.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import simpy
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from controllers.presets import get_preset
from controllers.serving.ledger import COMPLETED, Ledger
from controllers.serving.limits import EngineLimits
from controllers.serving.request import Request
from simulator import Arrival, Residual, TraceModel
from simulator.cluster_modes import Mode, ServerFactory, needs_online
from simulator.server import LOST, Server
from simulator.trajectories import Trajectories
from simulator.workload import Workload
from tests.simulator.queues import EVEN, MS
from traces.synth import SyntheticShape, synthetic_trace

TIGHT = EngineLimits(max_seqs=3, token_budget=24, n_pages=8, max_context=110)
TRACE = synthetic_trace(SyntheticShape(), seed=7)
MODEL, RESIDUAL = TraceModel.of(TRACE), Residual.fit(TRACE, seed=3)
PRESETS = ("baseline", "full", "scheduling", "seed")
AHEAD = 60  # requests that may come, their lengths fixed beforehand


def arrivals() -> tuple[Arrival, ...]:
    rng = np.random.default_rng(11)
    lengths = rng.integers((1, 1), (60, 50), (AHEAD, 2)).tolist()
    return tuple(
        Arrival(
            request=Request(request_id=i, prompt_tokens=prompt, max_tokens=output),
            arrival_ns=0,
            trace_index=i % 12,
            output_tokens=output,
        )
        for i, (prompt, output) in enumerate(lengths)
    )


WORKLOAD = Workload(arrivals=arrivals())


class Side:
    """Servers of one mode in a world of their own, and what their operator knows."""

    def __init__(self, mode: Mode, preset: str) -> None:
        self.env = simpy.Environment()
        self.left: list[tuple[int, str]] = []
        using = dataclasses.replace(get_preset(preset), sparse_min_context=1, quantum_tokens=4)
        assert needs_online(using, WORKLOAD, logged=False) is None
        ahead = Trajectories(MODEL, RESIDUAL, using, WORKLOAD.arrivals, seed=0)
        self._factory = ServerFactory(
            env=self.env,
            mode=mode,
            model=MODEL,
            residual=RESIDUAL,
            trajectories=None if mode == "online" else ahead,
            recordings=None,
            preset=using,
            seed=0,
            oracle=None,
            record_tokens=True,
            record_steps=True,
            totals_from_ns=0,
            verify=True,
            sinks=None,
            witnesses=None,
            on_finish=lambda request_id, reason: self.left.append((request_id, reason)),
        )
        self.dead: list[Server] = []
        self.servers = [self._start(), self._start()]

    def _start(self) -> Server:
        return self._factory.make(0, TIGHT, EVEN)

    def crash(self, index: int) -> list[int]:
        lost = self.servers[index].crash()
        self.dead.append(self.servers[index])
        self.servers[index] = self._start()
        return lost

    def advance(self, ns: int) -> None:
        self.env.run(int(self.env.now) + ns)

    def view(self) -> list[tuple[int, ...]]:
        """What a router may read of each server."""
        return [
            (s.n_waiting, s.n_running, s.free_pages, s.outstanding_tokens) for s in self.servers
        ]


def facts(ledger: Ledger) -> dict[str, object]:
    order = np.lexsort((ledger.tokens["position"], ledger.tokens["request_id"]))
    tables = {f"step {n}": ledger.steps[n].tolist() for n in ledger.steps.columns}
    tables |= {f"request {n}": ledger.requests[n].tolist() for n in ledger.requests.columns}
    tables |= {f"token {n}": ledger.tokens[n][order].tobytes() for n in ledger.tokens.columns}
    return tables | {"reasons": ledger.reasons}


class TwoModes(RuleBasedStateMachine):
    """Submit, cancel, crash and wait; retry what a crash lost on the other server."""

    def __init__(self) -> None:
        super().__init__()
        self.sides: list[Side] = []
        self.sent: list[int] = []
        self.cancelled: set[int] = set()

    @initialize(preset=st.sampled_from(PRESETS))
    def start(self, preset: str) -> None:
        self.sides = [Side("online", preset), Side("macro", preset)]

    @precondition(lambda self: len(self.sent) < AHEAD)
    @rule(server=st.integers(0, 1), n=st.integers(2, 6))
    def submit(self, server: int, n: int) -> None:
        for _ in range(min(n, AHEAD - len(self.sent))):
            arrival = WORKLOAD.arrivals[len(self.sent)]
            self.sent.append(arrival.request.request_id)
            for side in self.sides:
                side.servers[server].submit(arrival)

    @rule(half_ms=st.integers(1, 30))
    def wait(self, half_ms: int) -> None:
        """Half of all stops are between two boundaries, half on one, before its step begins."""
        for side in self.sides:
            side.advance(half_ms * MS // 2)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        request_id = data.draw(st.sampled_from(self.sent), label="request")
        done = [[server.cancel(request_id) for server in side.servers] for side in self.sides]
        assert done[0] == done[1]
        assert sum(done[0]) <= 1
        if any(done[0]):
            self.cancelled.add(request_id)

    @rule(server=st.integers(0, 1))
    def crash(self, server: int) -> None:
        lost = [side.crash(server) for side in self.sides]
        assert lost[0] == lost[1]
        for request_id in lost[0]:
            for side in self.sides:
                side.servers[1 - server].submit(WORKLOAD.arrivals[request_id])

    @invariant()
    def both_modes_look_alike_to_a_router(self) -> None:
        views = [side.view() for side in self.sides]
        assert views[:1] == views[1:]

    def teardown(self) -> None:
        for side in self.sides:
            side.env.run()
            ends = [(i, why) for i, why in side.left if why != LOST]
            assert sorted(i for i, _ in ends) == self.sent, "somebody left twice, or never"
            for request_id, why in ends:
                assert (why in COMPLETED) != (request_id in self.cancelled)
            for server in side.servers:
                assert server.free_pages == TIGHT.n_pages
                assert server.outstanding_tokens == server.n_waiting == server.n_running == 0
            for server in [*side.dead, *side.servers]:
                server.ledger.check()
        ledgers = [
            [facts(server.ledger) for server in [*side.dead, *side.servers]] for side in self.sides
        ]
        assert ledgers[:1] == ledgers[1:]


TestTwoModes = TwoModes.TestCase
TestTwoModes.settings = settings(max_examples=8, stateful_step_count=30)  # seconds
