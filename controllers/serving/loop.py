"""The serving loop: the one control plane of the simulator and of the live engine.

``plan`` decides a step, somebody executes it, ``observe`` takes the result in. All state follows
from the sequence of calls and their ``now_ns``: no clock, no randomness, no iteration over sets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence as Seq

from controllers.core import require
from controllers.presets import Preset
from controllers.serving import eviction, prefix
from controllers.serving import rows as log
from controllers.serving.admission import Oracle, check_oracle, check_request, true_tokens
from controllers.serving.coverage_control import CoverageControl
from controllers.serving.decisions import Witness
from controllers.serving.intake import Intake
from controllers.serving.ledger import CANCELLED, Ledger
from controllers.serving.limits import EngineLimits
from controllers.serving.load import LoadSensors
from controllers.serving.messages import Plan, Result, Row, check_result
from controllers.serving.request import Request, Sequence
from controllers.serving.scheduler import Scheduler
from controllers.serving.watchdog import Watchdog
from controllers.steplaw import StepLaw

Sink = Callable[[log.LogRow], None]


class ServingLoop:
    """Requests in, plans out, results in; owns the scheduler, the sensors and the ledger.

    Calls alternate: a plan with rows is observed before the next plan. The coverage law runs here,
    one step late; the temperature law runs in the executor. ``sequences`` holds the unfinished
    requests, with the ``Request`` an executor must honour (see :meth:`disable`).
    """

    def __init__(
        self,
        limits: EngineLimits,
        preset: Preset,
        step_law: StepLaw,
        *,
        sink: Sink | None = None,
        t_cal: float = 1.0,
        ledger: Ledger | None = None,
        livelock_plans: int = 1000,
        scheduler_type: type[Scheduler] = Scheduler,
        oracle: Oracle | None = None,
        witness: Witness | None = None,
    ) -> None:
        check_oracle(preset.priority, oracle)
        self.limits = limits
        self.preset = preset
        self.step_law = step_law
        self.ledger = Ledger() if ledger is None else ledger
        self.sequences: dict[int, Sequence] = {}
        self.scheduler = scheduler_type(
            limits,
            quantum_tokens=preset.quantum_tokens,
            reserves=preset.priority.reserves,
            score=self._score,
        )
        self.scheduler.witness = self._witness = witness  # told why a plan is as it is
        self._coverage = CoverageControl(preset)
        self._evicts = preset.kv_budget_pages is not None
        self._load = LoadSensors(preset, limits, step_law, oracle)
        self._intake = Intake(preset, self.sequences, self.scheduler, self._coverage, self._load)
        self._open: Plan | None = None  # planned with rows, not yet observed
        self._planned_ns = self._now_ns = self._step = 0
        self._watchdog = Watchdog(livelock_plans, limits)
        self._sink = sink
        if sink is not None:
            sink(log.header_row(preset, limits, step_law, t_cal))

    @property
    def has_work(self) -> bool:
        """Whether any request is unfinished."""
        return bool(self.sequences)

    @property
    def client_service(self) -> dict[str, float]:
        """Weighted tokens per client with unfinished requests: the fairness counters."""
        return self._load.service.counters()

    def submit(self, request: Request, now_ns: int, *, page_hashes: tuple[int, ...] = ()) -> None:
        """Queue a request that arrived at ``now_ns``; reject one that can never be served.

        With ``page_hashes`` (:func:`controllers.serving.prefix.page_hashes`) it shares the KV of
        prompt pages that others computed, and they share its own.
        """
        check_request(request, self.limits)
        prefix.check_hashes(request, page_hashes, self.limits.page_tokens)
        request_id = request.request_id
        truth = true_tokens(self._load.oracle, request_id)
        self.ledger.submitted(request_id, request.prompt_tokens, request.max_tokens, now_ns)
        sequence = Sequence(request=request, arrival_ns=now_ns, page_hashes=tuple(page_hashes))
        sequence.restart_wait(now_ns, self._step)
        self.sequences[request_id] = sequence
        self.scheduler.add(sequence)
        self._load.service.arrive(sequence)
        if self._sink is not None:
            self._sink(log.submit_row(request, now_ns, truth, page_hashes))

    def cancel(self, request_id: int, now_ns: int) -> bool:
        """Drop a request at once; a row of it in flight is ignored later. False if unknown."""
        if request_id not in self.sequences:
            return False
        if self._sink is not None:
            self._sink({"kind": "cancel", "now_ns": now_ns, "request_id": request_id})
        self._finish(self.sequences[request_id], now_ns, CANCELLED)
        return True

    def disable(self, request_id: int, now_ns: int | None = None) -> bool:
        """Return a request to baseline control from the next step on. False if unknown.

        Its coverage is 1 and its ``Request.enabled`` False, which the executor reads for the
        temperature. Its place in the order is still the priority law's: an order has no baseline
        for one request alone.
        """
        if request_id not in self.sequences:
            return False
        if self._sink is not None:
            now_ns = self._now_ns if now_ns is None else now_ns
            self._sink({"kind": "disable", "now_ns": now_ns, "request_id": request_id})
        sequence = self.sequences[request_id]
        sequence.request = dataclasses.replace(sequence.request, enabled=False)
        return True

    def plan(self, now_ns: int) -> Plan:
        """Decide the next step; its rows are empty only if nothing can run."""
        if self._open is not None:
            raise RuntimeError(f"step {self._open.step} is planned and not yet observed")
        self._advance(now_ns)
        grants, preempted = self.scheduler.schedule(now_ns)
        for sequence, _ in grants.values():
            if not sequence.charged:
                self._load.service.admit(sequence)
            if sequence.found:
                self.ledger.hit(sequence.request.request_id, sequence.found)
                sequence.found = 0
        rows = self._rows(list(grants.values()))
        plan = Plan(self._step, rows, preempted)
        self._step += 1
        self._planned_ns = now_ns
        self._open = plan if rows else None
        for request_id in preempted:
            self.ledger.preempted(request_id)
            sequence = self.sequences[request_id]
            if sequence.wait_since_ns == now_ns:  # preempted after a full quantum
                sequence.restart_wait(now_ns, plan.step)
        if self._sink is not None:
            self._sink(log.plan_row(plan, now_ns, self.client_service))
        if self._witness is not None:
            self._witness.planned(plan, now_ns, self.scheduler, self._coverage.reads)
        self._watchdog.watch(len(rows), self.sequences.values(), gives_token=bool(plan.sampled))
        return plan

    def pages(self, plan: Plan) -> dict[int, list[int]]:
        """Return the page table of each row's request; copies, by position, ``HOLE`` if evicted."""
        return {
            row.request_id: list(self.sequences[row.request_id].pages)
            for row in plan.rows
            if row.request_id in self.sequences
        }

    def twin_coverage(self, request_id: int) -> float:
        """Return the coverage of a request's next token, had it never been preempted.

        The row that recomputes is dense; what pruning does is drawn as if it were not.
        """
        return self._coverage.twin(self.sequences[request_id])

    def shadow_coverage(self, plan: Plan) -> dict[int, float]:
        """Return what a shadowed coverage law would have set for the rows of an open plan."""
        return self._coverage.shadow([self.sequences[row.request_id] for row in plan.rows])

    def observe(self, result: Result, now_ns: int) -> tuple[int, ...]:
        """Take in the result of the planned step, ended at ``now_ns``; return who finished."""
        plan = self._open
        if plan is None:
            raise RuntimeError(f"result of step {result.step} without a plan")
        check_result(plan, result)
        self._advance(now_ns)
        if self._sink is not None:
            self._sink(log.result_row(result, now_ns))
        self._open = None
        ending = self._intake.take(
            plan, result, self.ledger, began_ns=self._planned_ns, now_ns=now_ns, step=self._step
        )
        self.ledger.stepped(plan, result, self._planned_ns, self.scheduler.pool.n_held)
        for request_id, reason in ending.items():
            self._finish(self.sequences[request_id], now_ns, reason)
        return tuple(ending)

    def check(self) -> None:
        """Assert the invariants of the parts (INV-1, 2, 3, 6)."""
        self.scheduler.check()
        self.ledger.check()
        queued = len(self.scheduler.waiting) + len(self.scheduler.running)
        assert queued == len(self.sequences), "a request is neither waiting nor running"
        assert self.ledger.counts()["unfinished"] == len(self.sequences), "requests got lost"

    def _advance(self, now_ns: int) -> None:
        if now_ns < self._now_ns:
            require(False, f"time must not run back from {self._now_ns}", now_ns=now_ns)
        self._now_ns = now_ns

    def _rows(self, granted: list[tuple[Sequence, int]]) -> tuple[Row, ...]:
        reads = self._coverage.rows([sequence for sequence, _ in granted])
        rows: list[Row] = []
        for (sequence, n_tokens), (coverage, probe) in zip(granted, reads, strict=True):
            request, start = sequence.request, sequence.computed
            samples = n_tokens == request.prompt_tokens + sequence.generated - start
            rows.append(Row(request.request_id, start, n_tokens, samples, coverage, probe))
        if self._evicts:
            orders = [eviction.order(s, self.preset, self.scheduler.pool) for s, _ in granted]
            rows = [Row(*row[:6], *order) for row, order in zip(rows, orders, strict=True)]
        return tuple(rows)

    def _finish(self, sequence: Sequence, now_ns: int, reason: str) -> None:
        request_id = sequence.request.request_id
        sequence.finish_reason = reason
        self.scheduler.remove(sequence)
        del self.sequences[request_id]
        self._intake.forget()
        self._coverage.forget(request_id)
        self._load.leave(sequence)
        self.ledger.finished(request_id, now_ns, reason)
        if self._witness is not None:
            self._witness.left(sequence, now_ns, reason)

    def _score(self, sequences: Seq[Sequence], now_ns: int) -> list[float]:
        scores = self._load.priorities(sequences, now_ns, self._step)
        if self._witness is not None:
            self._witness.scored(sequences, scores)
        return scores
