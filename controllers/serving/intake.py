"""The intake of results: what a step that was executed changes in the requests it served."""

from __future__ import annotations

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
        return ending

    def _measure(
        self,
        sampled: list[Sequence],
        lanes: list[int],
        coverage: list[float],
        result: Result,
        ledger: Ledger,
        now_ns: int,
    ) -> None:
        """Run the sensors and the coverage law on the rows that gave a token; log the tokens."""
        logged = (result.h_applied, result.signals.h_cal, result.commands, result.surprisal)
        signals = result.signals
        if len(lanes) < len(result.tokens):
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
