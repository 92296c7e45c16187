"""The intake of results: what a step that was executed changes in the requests it served."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from controllers.core import TokenSignal
from controllers.presets import Preset
from controllers.serving.coverage_control import CoverageControl
from controllers.serving.ledger import COMPLETED, Ledger
from controllers.serving.load import LoadSensors
from controllers.serving.messages import Plan, Result
from controllers.serving.request import Sequence
from controllers.serving.scheduler import Scheduler

FAILED = "failed"  # reason of a row that gave no token and said nothing


class _Calm(NamedTuple):
    """Requests that sampled together last, in row order, and for how long none can end by itself.

    Requests that share pages are never calm, for every step may publish one.
    """

    ids: tuple[int, ...]
    sequences: list[Sequence]
    until: int  # number of the first plan that may give one its last token


NOT_CALM = _Calm((), [], 0)  # until no plan: never


class Intake:
    """Moves the sequences on by one step, feeds the sensors and the coverage law, books tokens."""

    def __init__(
        self,
        preset: Preset,
        sequences: dict[int, Sequence],
        scheduler: Scheduler,
        coverage: CoverageControl,
        load: LoadSensors,
    ) -> None:
        self._quantum = preset.quantum_tokens
        self._sequences = sequences  # unfinished, the loop's own
        self._scheduler = scheduler
        self._coverage = coverage
        self._load = load
        self._calm = NOT_CALM

    def forget(self) -> None:
        """Hold on to no request: one of them has left."""
        self._calm = NOT_CALM

    def take(
        self,
        plan: Plan,
        result: Result,
        ledger: Ledger,
        *,
        began_ns: int,
        now_ns: int,
        step: int,
    ) -> dict[int, str]:
        """Advance the sequences of a step; return who ends and why, in row order.

        ``ledger`` is told. The step ran from ``began_ns`` to ``now_ns``; ``step`` is the number of
        the next plan.
        """
        if self._is_calm(plan, result):
            self._take_calm(plan, result, ledger, began_ns, now_ns, step)
            return {}
        ending: dict[int, str] = {}
        sampled: list[Sequence] = []
        lanes: list[int] = []
        coverage: list[float] = []
        steady: list[int] = []  # whose one-token decode row gave a token
        kept: list[float] = []
        others: list[tuple[int, float | None, bool]] = []
        lane = -1
        known, serve = self._sequences, self._load.serve
        finished, tokens, quantum = result.finished, result.tokens, self._quantum
        for row in plan.rows:
            request_id, _, n_tokens, samples, covered, _, _, _ = row
            lane += samples
            sequence = known.get(request_id)
            if sequence is None:  # cancelled while the step ran
                continue
            decoding = sequence.decoding
            serve(sequence, n_tokens)
            sequence.computed += n_tokens
            reason = finished.get(request_id)
            gave = samples and tokens[lane] >= 0
            if gave:
                sampled.append(sequence)
                lanes.append(lane)
                coverage.append(covered)
                sequence.generated += 1
                sequence.quantum_used += 1
                if quantum is not None and sequence.quantum_used % quantum == 0:
                    sequence.restart_wait(now_ns, step)
                if reason is None and sequence.generated == sequence.request.max_tokens:
                    reason = "length"
            elif samples:
                reason = reason or FAILED
            if decoding and gave:
                steady.append(request_id)
                kept.append(covered)
            else:
                others.append((request_id, covered if decoding else None, gave))
            if reason is not None:
                ending[request_id] = reason
            if sequence.page_hashes or result.evicted:
                failed = reason is not None and reason not in COMPLETED
                gone = self._scheduler.settle(sequence, row, result.evicted, failed=failed)
                ledger.evicted(request_id, gone)
        ledger.decoded(steady, began_ns, kept, now_ns)
        for request_id, part, gave in others:
            ledger.served(request_id, began_ns, part, now_ns)
            if gave:
                ledger.sampled(request_id, now_ns)
        if sampled:
            self._measure(sampled, lanes, coverage, result, ledger, now_ns)
        self._look_ahead(plan, sampled)
        return ending

    def _look_ahead(self, plan: Plan, sampled: list[Sequence]) -> None:
        """Note for how long the requests of ``plan`` only decode if nothing else happens."""
        left = 0
        if len(sampled) == len(plan.rows) and not any(s.page_hashes for s in sampled):
            left = min(s.request.max_tokens - s.generated for s in sampled)
        self._calm = _Calm(plan.sampled, sampled, plan.step + left)

    def _is_calm(self, plan: Plan, result: Result) -> bool:
        """Tell whether a step was one decode row of each of the same requests, and all go on."""
        calm, rows = self._calm, plan.rows
        return (
            plan.step < calm.until
            and plan.sampled == calm.ids
            and not (result.finished or result.evicted)
            and [row.n_tokens for row in rows].count(1) == len(calm.ids) == len(rows)
            and min(result.tokens) >= 0
            and all(map(self._sequences.__contains__, calm.ids))
        )

    def _take_calm(
        self, plan: Plan, result: Result, ledger: Ledger, began_ns: int, now_ns: int, step: int
    ) -> None:
        """Do what :meth:`take` does in a calm step, of which it would find nothing else."""
        sequences, quantum = self._calm.sequences, self._quantum
        self._load.serve_decodes(sequences)
        for sequence in sequences:
            sequence.computed += 1
            sequence.generated += 1
            sequence.quantum_used += 1
            if quantum is not None and sequence.quantum_used % quantum == 0:
                sequence.restart_wait(now_ns, step)
        coverage = [row.coverage for row in plan.rows]
        ledger.decoded(list(plan.sampled), began_ns, coverage, now_ns)
        self._measure(sequences, None, coverage, result, ledger, now_ns)

    def _measure(
        self,
        sampled: list[Sequence],
        lanes: list[int] | None,
        coverage: list[float],
        result: Result,
        ledger: Ledger,
        now_ns: int,
    ) -> None:
        """Run the sensors and the coverage law on the rows that gave a token; log the tokens.

        ``lanes`` says which of the result's they are; None: all.
        """
        logged = (result.h_applied, result.signals.h_cal, result.commands, result.surprisal)
        signals = result.signals
        if lanes is not None and len(lanes) < len(result.tokens):
            index = np.array(lanes)
            signals = TokenSignal(*(column[index] for column in signals))
            logged = tuple(column[index] for column in logged)
        requests = [sequence.request for sequence in sampled]
        ids = [request.request_id for request in requests]
        self._coverage.observe(ids, requests, signals)
        self._load.collapse.observe_rows(ids, signals.h_cal.tolist())
        self._load.service.tokens([request.client for request in requests])
        positions = [sequence.generated - 1 for sequence in sampled]
        ledger.token_rows(ids, positions, now_ns, logged, coverage)
