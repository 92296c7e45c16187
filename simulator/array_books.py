"""The ledger of an array replica: runs and stretches of steps at once, the rows of the loop."""

from __future__ import annotations

import math

import numpy as np

from controllers.serving.ledger import NEVER, Ledger
from simulator.array_life import Life, TrajectorySource
from simulator.array_timeline import (
    DECODE,
    DENSE,
    DURATION,
    END,
    GIVEN,
    PAGES,
    PREEMPTED,
    PROMPT,
    READ,
    SCORED,
    Timeline,
)  # fmt: skip
from simulator.scan import Sums, sums

RUNS_AT_ONCE = 64  # whose token rows are written together
_FROM_TRAJECTORY = ("h_applied", "h_cal", "command", "surprisal", "coverage")
# Request, coverage of its first row if that is not its trajectory's, rows, and the columns of
# these: positions, times, and those of the trajectory.
_Run = tuple[int, float | None, int, np.ndarray, np.ndarray, tuple[np.ndarray, ...]]


class Books:
    """Writes what happened to ``ledger``; a life's columns are in the life until it is closed."""

    def __init__(
        self,
        ledger: Ledger,
        timeline: Timeline,
        trajectories: TrajectorySource,
        *,
        lowest_coverage: float,
        longest: int,
    ) -> None:
        """``longest`` is the most tokens that any request is given."""
        self.ledger = ledger
        self._trajectories = trajectories
        self.flushed = 0  # steps whose rows are written
        self.plans_ahead = 0  # plans that ran no step: what the number of a plan leads its step by
        self.clamped_rows = 0  # sampled rows whose coverage lay below ``lowest_coverage``
        self._timeline = timeline
        self._lowest = np.float64(lowest_coverage - 1e-6)  # as ``ShareTable.count_below`` counts
        self._positions = np.arange(longest, dtype=np.int32)
        self._runs: list[_Run] = []  # whose token rows are to be written
        self._resumed: list[int] = []  # gaps of tokens that a run began with, ns

    def served(self, life: Life, step: int, start_ns: int, end_ns: int) -> None:
        """Note that a life took part in a step outside of a run, or at its beginning."""
        if life.first_ns == NEVER:
            life.first_ns = start_ns
        if step - life.last_step > life.gap_steps:
            life.gap_steps = step - life.last_step
        if start_ns - life.last_ns > life.gap_ns:
            life.gap_ns = start_ns - life.last_ns
        life.last_step, life.last_ns = step + 1, end_ns

    def hit(self, life: Life, tokens: int) -> None:
        """Note the tokens that a request just admitted found computed."""
        self.ledger.requests.columns["preemptions"][life.row] = life.sequence.preemptions
        self.ledger.hit(life.request_id, tokens)

    def sampled(self, life: Life, end_ns: int) -> None:
        """Note the first token of a run."""
        if life.first_token_ns == NEVER:
            life.first_token_ns = end_ns
        elif not self.ledger.record_tokens:
            self._resumed.append(end_ns - life.token_ns)

    def book(self, life: Life, step: int) -> None:
        """Write the tokens that a run gave in steps before ``step`` and were not written yet."""
        start, stop = life.booked, life.run_token + step - life.run_step
        if stop == start:
            return
        trajectory = life.trajectory
        assert trajectory is not None, "a run without a trajectory"
        self._trajectories.settle(life.request_id, stop)
        life.booked = stop
        timeline = self._timeline
        last = step - 1 - timeline.base
        life.token_ns = life.last_ns = timeline.rows[END].item(last)
        life.last_step = step
        decode = max(start, life.run_token + 1)
        if life.least >= 1.0:
            life.coverage_sum += stop - decode
        elif stop > decode:
            coverage = trajectory.coverage[decode:stop]
            if life.coverage_sum:
                coverage = np.concatenate(([life.coverage_sum], coverage))
            # One by one, as the loop adds: a sum would go by pairs.
            life.coverage_sum = coverage.astype(np.float64).cumsum().item(-1)
        if life.least < self._lowest:
            below = trajectory.coverage[start:stop] < self._lowest
            self.clamped_rows += int(np.count_nonzero(below))
        life.coverage_rows += stop - decode
        if self.ledger.record_tokens:
            first = last + 1 - (stop - start)
            self._runs.append(
                (
                    life.request_id,
                    life.run_coverage if start == life.run_token else None,
                    stop - start,
                    self._positions[start:stop],
                    timeline.rows[END][first : last + 1],
                    (
                        trajectory.h_applied[start:stop],
                        trajectory.h_cal[start:stop],
                        trajectory.command[start:stop],
                        trajectory.surprisal[start:stop],
                        trajectory.coverage[start:stop],
                    ),
                )
            )
            if len(self._runs) >= RUNS_AT_ONCE:
                self._write_tokens()

    def write(self, life: Life) -> None:
        """Bring the ledger's row of a life up to date."""
        columns, row = self.ledger.requests.columns, life.row
        columns["tokens"][row] = life.booked - life.first
        columns["first_scheduled_ns"][row] = life.first_ns
        columns["first_token_ns"][row] = life.first_token_ns
        columns["preemptions"][row] = life.sequence.preemptions
        columns["last_service_step"][row] = life.last_step
        columns["max_service_gap_steps"][row] = life.gap_steps
        columns["last_service_ns"][row] = life.last_ns
        columns["max_service_gap_ns"][row] = life.gap_ns
        columns["coverage_sum"][row] = life.coverage_sum
        columns["coverage_rows"][row] = life.coverage_rows

    def close(self, life: Life, now_ns: int, reason: str) -> None:
        """Write the row of a life that ended, and close it."""
        self.write(life)
        ledger = self.ledger
        ledger.reasons[life.row] = reason
        ledger.requests.columns["finish_ns"][life.row] = now_ns
        if not ledger.record_tokens and life.booked > life.first:
            tokens, found = _sums(life)
            ledger.totals.request(tokens, *found, request_id=life.request_id)

    def flush(self, step: int) -> None:
        """Write the rows of all steps before ``step``, and of tokens."""
        self._write_tokens()
        a, b = self.flushed - self._timeline.base, step - self._timeline.base
        if a == b:
            return
        cells, ledger = self._timeline.cells, self.ledger
        durations = cells[DURATION, a:b]
        ledger.step_count = self.flushed
        ledger.ran_block(
            step=np.arange(self.flushed, step) + self.plans_ahead,
            now_ns=cells[END, a:b] - durations,
            duration_ns=durations,
            n_decode=cells[DECODE, a:b],
            prompt_tokens=cells[PROMPT, a:b],
            pages_held=cells[PAGES, a:b],
            page_units_read=cells[READ, a:b],
            page_units_dense=cells[DENSE, a:b],
            preempted=cells[PREEMPTED, a:b],
            pages_scored=cells[SCORED, a:b],
        )
        self.flushed = step
        if not ledger.record_tokens:
            ledger.totals.itl(durations, cells[GIVEN, a:b])
            ledger.totals.itl(np.array(self._resumed, np.int64))
            self._resumed.clear()

    def _write_tokens(self) -> None:
        """Write the token rows kept so far, all in one go: it costs by the call."""
        runs, self._runs = self._runs, []
        if not runs:
            return
        ids, first, counts, positions, times, parts = zip(*runs, strict=True)
        columns = self.ledger.tokens.columns
        coverage, begin = columns["coverage"], len(columns["coverage"])
        columns["request_id"].frombytes(np.repeat(np.array(ids, np.int64), counts).tobytes())
        columns["position"].frombytes(b"".join(positions))
        columns["now_ns"].frombytes(b"".join(times))
        for name, found in zip(_FROM_TRAJECTORY, zip(*parts, strict=True), strict=True):
            columns[name].frombytes(b"".join(found))
        for n, sampled in zip(counts, first, strict=True):
            if sampled is not None:  # the row that a run began with may have been dense
                coverage[begin] = sampled
            begin += n


def _sums(life: Life) -> tuple[int, Sums]:
    """Return how many tokens a life was given, and the sums over them."""
    trajectory, first, last = life.trajectory, life.first, life.booked
    assert trajectory is not None, "tokens without a trajectory"
    n = last - first
    if n < trajectory.n_tokens or math.isnan(trajectory.tau):  # or its end was not known ahead
        return n, sums(trajectory, first, last)  # the step from a token given elsewhere counts
    kept = trajectory
    return n, Sums(kept.tau, kept.tau_cal, kept.net, kept.nll, kept.on_bound)
