"""Small workloads, plans and their service, for tests of the cluster."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from controllers.serving.ledger import COMPLETED, Ledger
from controllers.serving.limits import EngineLimits
from controllers.serving.request import Request
from controllers.steplaw import StepLaw
from simulator import Arrival, ClusterConfig, Residual, SimulationResult, TraceModel, Workload
from simulator.description import Admission, ClusterPlan, Group, Outage
from simulator.run import run_workload
from simulator.server import FAILED, LOST, PASSING, REJECTED

MS = 1_000_000
LIMITS = EngineLimits(max_seqs=3, token_budget=32, n_pages=12, max_context=150)
EVEN = StepLaw(  # every step takes a millisecond
    base_s=1e-3,
    per_decode_s=0.0,
    per_kv_token_s=0.0,
    per_prompt_token_s=0.0,
    per_prompt_square_s=0.0,
)


def arrival(request_id: int, at_ms: float, tokens: int = 5, **changes: object) -> Arrival:
    request = Request(
        request_id=request_id, prompt_tokens=10, max_tokens=40, temperature=0.8, client="a"
    )
    fields = {"arrival_ns": round(at_ms * MS), "trace_index": request_id % 12}
    return Arrival(request=request, **(fields | {"output_tokens": tokens} | changes))


def cluster(count: int = 2, **parts: object) -> ClusterPlan:
    return ClusterPlan(groups=(Group(count=count),), **parts)


def outage(machine: int, at_ms: float, down_ms: float | None = None) -> Outage:
    down_s = None if down_ms is None else down_ms / 1e3
    return Outage(machine=machine, at_s=at_ms / 1e3, down_s=down_s)


class Serve:
    """Serves arrivals on a plan of small even servers, every invariant asserted."""

    def __init__(
        self, model: TraceModel, residual: Residual, configure: Callable[..., ClusterConfig]
    ) -> None:
        self._model, self._residual, self._configure = model, residual, configure

    def __call__(
        self,
        arrivals: list[Arrival],
        plan: ClusterPlan,
        preset: str = "baseline",
        **changes: object,
    ) -> SimulationResult:
        own = {"limits": LIMITS, "step_law": EVEN, "cluster": plan} | changes
        workload = Workload(arrivals=tuple(arrivals))
        config = self._configure(preset, **own)
        return run_workload(self._model, self._residual, workload, config, verify=True)


def columns(ledger: Ledger) -> dict[str, bytes]:
    """Return every column of a ledger's requests and steps, and of its tokens in one order."""
    order = np.lexsort((ledger.tokens["position"], ledger.tokens["request_id"]))
    found = {f"tokens.{name}": ledger.tokens[name][order] for name in ledger.tokens.columns}
    for table in ("requests", "steps"):
        part = getattr(ledger, table)
        found |= {f"{table}.{name}": part[name] for name in part.columns}
    return {name: values.tobytes() for name, values in found.items()}


def check_every_fate(result: SimulationResult, arrivals: list[Arrival], plan: ClusterPlan) -> None:
    """Assert conservation over servers, and that the merged ledger tells the same story."""
    ledger = result.ledger
    ledger.check()
    assert sorted(ledger.row_of) == list(range(len(arrivals)))
    positions: dict[int, list[int]] = {i: [] for i in range(len(arrivals))}
    for i, position in zip(ledger.tokens["request_id"], ledger.tokens["position"], strict=True):
        positions[int(i)].append(int(position))
    losses = 0
    for asked in arrivals:
        request_id = asked.request.request_id
        parts = [
            (
                part.reasons[part.row_of[request_id]],
                part.requests["tokens"][part.row_of[request_id]],
            )
            for part in result.ledgers
            if request_id in part.row_of
        ]
        reason = ledger.reasons[ledger.row_of[request_id]]
        lost = sum(why == LOST for why, _ in parts)
        losses += lost
        ends = [why for why, _ in parts if why not in PASSING]
        assert lost <= plan.failures.max_retries + 1
        if reason in COMPLETED:
            assert ends == [reason], "completed exactly once"
            assert positions[request_id] == list(range(asked.output_tokens or 0))
        elif reason == FAILED:
            assert ends == []
            gone = plan.failures.outages and any(o.down_s is None for o in plan.failures.outages)
            assert lost == plan.failures.max_retries + 1 or gone
        elif reason == REJECTED:
            assert parts == [], "what was let in is not turned away later"
            assert plan.admission != Admission()
        else:
            assert reason == "cancelled"
            assert asked.cancel_ns is not None
        row = ledger.row_of[request_id]
        if asked.after is None:
            assert ledger.requests["arrival_ns"][row] == asked.arrival_ns
        else:
            left_ns = int(ledger.requests["finish_ns"][ledger.row_of[asked.after]])
            late_ns = int(ledger.requests["arrival_ns"][row]) - left_ns - asked.think_ns
            assert 0 <= late_ns <= 2, "a follow-up comes its think time after"
    assert losses == result.metrics["retries"] + ledger.reasons.count(FAILED) or any(
        o.down_s is None for o in plan.failures.outages
    )
    busy_s = sum(float(part.steps["duration_ns"].sum()) for part in result.ledgers) / 1e9
    # A step whose requests were all cancelled may end after the last request has left.
    assert busy_s <= result.usage[0].paid_s + 2e-3 * len(result.ledgers)
