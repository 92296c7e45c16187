"""One server under a schedule of events, in each mode, and the comparison of their ledgers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import simpy

from controllers.presets import Preset
from controllers.serving.ledger import Ledger
from controllers.serving.limits import EngineLimits
from controllers.serving.loop import ServingLoop
from controllers.serving.request import Request
from controllers.steplaw import StepLaw
from simulator.array_laws import CalledLaws
from simulator.array_replica import ArrayReplica
from simulator.arrival import Arrival
from simulator.executor import TraceExecutor
from simulator.model import TraceModel
from simulator.recordings import Recordings
from simulator.replica import Replica
from simulator.residual import Residual
from simulator.server import Server, Window
from simulator.trajectories import Trajectories

GRID_NS = 5_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class CoarseLaw(StepLaw):
    """A step law whose steps last whole multiples of ``grid_s``, so that arrivals tie with ends."""

    grid_s: float = GRID_NS / 1e9

    def step_s(self, *args: object) -> object:
        seconds = StepLaw.step_s(self, *args)
        cells = np.maximum(np.rint(np.asarray(seconds) / self.grid_s), 1.0) * self.grid_s
        return cells if isinstance(seconds, np.ndarray) else float(cells)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What is the same in all modes."""

    model: TraceModel
    residual: Residual
    preset: Preset
    limits: EngineLimits
    step_law: StepLaw
    arrivals: Sequence[Arrival]
    record_tokens: bool = True
    record_steps: bool = True
    oracle: dict[int, int] | None = None
    windows: dict[int, Window] = field(default_factory=dict)
    disable_ns: dict[int, int] = field(default_factory=dict)  # request -> when
    until_ns: int | None = None
    crash_ns: int | None = None

    def server(self, env: simpy.Environment, mode: str, out: list[tuple[int, str]]) -> Server:
        ledger = Ledger(record_tokens=self.record_tokens, record_steps=self.record_steps)
        if mode == "online":
            loop = ServingLoop(
                self.limits, self.preset, self.step_law, ledger=ledger, oracle=self.oracle
            )
            executor = TraceExecutor(
                self.model,
                self.preset,
                self.step_law,
                residual=self.residual,
                twin_coverage=loop.twin_coverage,
            )
            return Replica(
                env, loop, executor, on_finish=lambda i, why: out.append((i, why)), verify=True
            )
        if mode == "calls":
            recordings = Recordings(self.model, self.residual, self.arrivals, seed=0, block_lanes=8)
            longest = self.limits.max_context
            source = CalledLaws(
                self.model, self.residual, self.preset, recordings, max_context=longest
            )
        else:
            source = Trajectories(
                self.model, self.residual, self.preset, self.arrivals, seed=0, block_lanes=8
            )
        return ArrayReplica(
            env,
            limits=self.limits,
            preset=self.preset,
            step_law=self.step_law,
            trajectories=source,
            units_per_page=self.model.layers * self.model.kv_heads,
            ledger=ledger,
            mode=mode,
            lowest_coverage=float(self.model.shares.coverages[0]),
            oracle=self.oracle,
            on_finish=lambda i, why: out.append((i, why)),
            verify=True,
        )


@dataclass
class Outcome:
    """What a run left behind."""

    server: Server
    ended: list[tuple[int, str]]  # requests in the order in which they left
    glimpses: list[tuple[int, ...]]  # of the server, at every arrival
    lost: list[int]


def serve(world: World, mode: str) -> Outcome:
    env = simpy.Environment()
    ended: list[tuple[int, str]] = []
    server = world.server(env, mode, ended)
    outcome = Outcome(server, ended, [], [])

    def look() -> None:
        counts = (server.outstanding_tokens, server.n_waiting, server.n_running, server.free_pages)
        outcome.glimpses.append((int(env.now), *counts))

    moments = [(a.arrival_ns, 0, i) for i, a in enumerate(world.arrivals)]
    moments += [(a.cancel_ns, 1, i) for i, a in enumerate(world.arrivals) if a.cancel_ns]
    if world.crash_ns is not None:
        moments.append((world.crash_ns, 3, 0))
    moments += [(when_ns, 2, i) for i, when_ns in world.disable_ns.items()]

    def feed():
        for when_ns, kind, index in sorted(moments):
            if when_ns > env.now:
                yield env.timeout(when_ns - int(env.now))
            look()
            if kind == 2:
                server.disable(index)
                continue
            arrival = world.arrivals[index]
            if kind == 0:
                window = world.windows.get(arrival.request.request_id)
                server.submit(arrival, **({} if window is None else {"window": window}))
            elif kind == 1:
                server.cancel(arrival.request.request_id)
            else:
                outcome.lost = server.crash()
                return

    env.process(feed())
    env.run(world.until_ns)
    return outcome


def assert_same(one: Outcome, other: Outcome) -> None:
    """Compare every column of every table, the events and what a router saw."""
    assert one.ended == other.ended
    assert one.glimpses == other.glimpses
    assert one.lost == other.lost
    mine, theirs = one.server.ledger, other.server.ledger
    assert mine.reasons == theirs.reasons
    assert mine.row_of == theirs.row_of
    assert mine.step_count == theirs.step_count
    for table in ("requests", "steps"):
        assert_equal_columns(table, columns_of(mine, table), columns_of(theirs, table))
    assert_equal_columns("tokens", sorted_tokens(mine), sorted_tokens(theirs))
    assert one.server.clamped_rows == other.server.clamped_rows


def columns_of(ledger: Ledger, table: str) -> dict[str, np.ndarray]:
    found = getattr(ledger, table)
    return {name: found[name] for name in found.columns}


def sorted_tokens(ledger: Ledger) -> dict[str, np.ndarray]:
    columns = columns_of(ledger, "tokens")
    order = np.lexsort((columns["position"], columns["request_id"]))
    return {name: values[order] for name, values in columns.items()}


def assert_equal_columns(
    table: str, one: dict[str, np.ndarray], other: dict[str, np.ndarray]
) -> None:
    assert one.keys() == other.keys()
    for name, values in one.items():
        assert len(values) == len(other[name]), f"{table}.{name} has another length"
        differs = np.flatnonzero(values != other[name])
        assert not len(differs), (
            f"{table}.{name} differs at {differs[:5]}: {values[differs[:5]]} against "
            f"{other[name][differs[:5]]}"
        )


def arrivals_of(
    rng: np.random.Generator,
    recordings: int,
    n: int,
    *,
    rate_per_s: float = 60.0,
    grid_ns: int = 1,
    cancel_share: float = 0.3,
) -> list[Arrival]:
    """Draw short requests of three clients; times are multiples of ``grid_ns``."""
    found, now_s = [], 0.0
    for request_id in range(n):
        now_s += rng.exponential(1.0 / rate_per_s)
        now_ns = round(now_s * 1e9) // grid_ns * grid_ns
        tokens = int(rng.integers(1, 50))
        gone_ns = now_ns + round(rng.exponential(0.15) * 1e9) // grid_ns * grid_ns
        request = Request(
            request_id=request_id,
            prompt_tokens=int(rng.integers(1, 90)),
            max_tokens=tokens + int(rng.integers(0, 3) * 7),
            temperature=float(rng.choice([0.0, 0.7, 1.0])),
            client=f"client {rng.integers(3)}",
            priority=int(rng.integers(3)),
            predicted_tokens=int(rng.integers(1, 60)),
            first_token_slo_s=float(rng.choice([0.5, 10.0])),
        )
        arrival = Arrival(
            request=request,
            arrival_ns=now_ns,
            trace_index=int(rng.integers(recordings)),
            output_tokens=tokens,
            cancel_ns=gone_ns if rng.random() < cancel_share else None,
        )
        found.append(arrival)
    return found


def ties(outcome: Outcome) -> int:
    """Count the requests that arrived in the very instant in which a step ended."""
    steps, requests = outcome.server.ledger.steps, outcome.server.ledger.requests
    ends = steps["now_ns"] + steps["duration_ns"]
    return int(np.isin(requests["arrival_ns"], ends).sum())
