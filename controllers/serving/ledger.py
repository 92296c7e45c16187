"""The ledger: what happened, as append-only columns. Metrics are functions of it alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from controllers.core import require
from controllers.serving.decode_run import DecodeRun
from controllers.serving.messages import Plan, Result
from controllers.serving.open_sums import OpenSums
from controllers.serving.row_index import RowIndex
from controllers.serving.table import Table
from controllers.serving.token_buffer import TokenBuffer
from controllers.serving.totals import Totals

__all__ = ["CANCELLED", "COMPLETED", "NEVER", "Ledger", "Table"]

NEVER = -1  # a time that has not come
COMPLETED = ("stop", "length")
CANCELLED = "cancelled"

_STEPS = {
    "step": "q",
    "now_ns": "q",  # when the step began
    "duration_ns": "q",
    "n_decode": "i",
    "prompt_tokens": "i",
    "pages_held": "i",
    "page_units_read": "q",
    "page_units_dense": "q",
    "preempted": "i",
    "pages_scored": "q",
}
_REQUESTS = {
    "request_id": "q",
    "prompt_tokens": "i",
    "max_tokens": "i",
    "arrival_ns": "q",
    "first_scheduled_ns": "q",
    "first_token_ns": "q",
    "finish_ns": "q",
    "tokens": "i",
    "preemptions": "i",
    "last_service_step": "q",
    "max_service_gap_steps": "i",  # over services so far, counted from submission
    "last_service_ns": "q",  # end of the last step that served it; before any, its arrival
    "max_service_gap_ns": "q",  # from there to the next step that served it, the longest so far
    "coverage_sum": "d",  # over one-token decode rows
    "coverage_rows": "i",
    "prefix_hit_tokens": "i",  # prompt tokens whose KV was found at first admission
    "rehit_tokens": "i",  # the same at admissions after a preemption, summed
    "pages_evicted": "i",
}
_TOKENS = {
    "request_id": "q",
    "position": "i",  # generated tokens before this one
    "now_ns": "q",  # when the step that gave it ended
    "h_applied": "f",
    "h_cal": "f",
    "command": "f",
    "surprisal": "f",
    "coverage": "f",
}


class Ledger:
    """Rows per step, per request and per token, as many of these as are recorded.

    The loop writes it; everyone else reads. Times are integer nanoseconds, entropies nats. Without
    ``record_steps`` or ``record_tokens``, ``totals`` has what metrics need of them.
    """

    def __init__(
        self, *, record_tokens: bool = True, record_steps: bool = True, totals_from_ns: int = 0
    ) -> None:
        """``totals_from_ns`` is the warm-up cut of ``totals``, which keep no time to cut later."""
        self.record_tokens = record_tokens
        self.record_steps = record_steps
        self.steps = Table(_STEPS)
        self._requests = Table(_REQUESTS)
        self._run: DecodeRun | None = None  # decode steps not yet in ``_requests``
        self._tokens = TokenBuffer(Table(_TOKENS))
        self.totals = Totals(totals_from_ns)
        self.reasons: list[str | None] = []  # one per request; None while unfinished
        self.row_of = RowIndex(self._requests.columns["request_id"])
        self.step_count = 0  # steps that ran, the unit of service gaps
        self.forgotten = 0  # finished requests dropped by ``trim``
        self._open = OpenSums()  # of requests under way, while token rows are not recorded

    @property
    def requests(self) -> Table:
        """The table of requests, up to date."""
        if self._run is not None:
            self._run.book(self._requests.columns)
        return self._requests

    @property
    def tokens(self) -> Table:
        """The table of tokens, up to date."""
        self._tokens.flush()
        return self._tokens.table

    def submitted(
        self, request_id: int, prompt_tokens: int, max_tokens: int, arrival_ns: int
    ) -> None:
        """Open the row of a request; ids are never used twice."""
        require(request_id not in self.row_of, "request_id is already used", request_id=request_id)
        self.reasons.append(None)
        times = (arrival_ns, NEVER, NEVER, NEVER)
        gaps = (self.step_count, 0, arrival_ns, 0)
        self._requests.append(
            request_id, prompt_tokens, max_tokens, *times, 0, 0, *gaps, 0.0, 0, 0, 0, 0
        )

    def ran(self, *values: int) -> None:
        """Append a step row, values in the order of its columns."""
        if self.record_steps:
            self.steps.append(*values)
        _, now, duration, n_decode, prompt, held, read, dense, preempted, scored = values
        self.totals.step(now, duration, n_decode, prompt, held, read, dense, scored, preempted)
        self.step_count += 1

    def ran_block(self, **columns: np.ndarray | int) -> None:
        """Append k step rows at once, every column by name; ``now_ns`` is ``[k]``.

        A number stands for all k rows; arrays are copied.
        """
        if self.record_steps:
            self.steps.extend(columns)
        names = ("now_ns", "duration_ns", "n_decode", "prompt_tokens", "pages_held")
        names = (*names, "page_units_read", "page_units_dense", "pages_scored", "preempted")
        self.totals.steps(*(columns[name] for name in names))
        now_ns = columns["now_ns"]
        self.step_count += len(now_ns) if isinstance(now_ns, np.ndarray) else 1

    def stepped(self, plan: Plan, result: Result, now_ns: int, pages_held: int) -> None:
        """Append the row of a step that began at ``now_ns`` and left ``pages_held`` pages held."""
        prompt_tokens = plan.prompt_tokens
        self.ran(
            plan.step,
            now_ns,
            result.duration_ns,
            sum(row.n_tokens for row in plan.rows) - prompt_tokens,
            prompt_tokens,
            pages_held,
            result.page_units_read,
            result.page_units_dense,
            len(plan.preempted),
            result.pages_scored,
        )

    def served(
        self, request_id: int, now_ns: int, coverage: float | None, ended_ns: int | None = None
    ) -> None:
        """Note that a request took part in the step from ``now_ns`` to ``ended_ns``.

        Call it before :meth:`ran`. ``coverage`` is that of a one-token decode row, else None. A
        gap in nanoseconds is from the end of a service to the next begin.
        """
        columns, row = self.requests.columns, self.row_of[request_id]
        if columns["first_scheduled_ns"][row] == NEVER:
            columns["first_scheduled_ns"][row] = now_ns
        gap = self.step_count - columns["last_service_step"][row]
        if gap > columns["max_service_gap_steps"][row]:
            columns["max_service_gap_steps"][row] = gap
        columns["last_service_step"][row] = self.step_count + 1
        gap_ns = now_ns - columns["last_service_ns"][row]
        if gap_ns > columns["max_service_gap_ns"][row]:
            columns["max_service_gap_ns"][row] = gap_ns
        columns["last_service_ns"][row] = now_ns if ended_ns is None else ended_ns
        if coverage is not None:
            columns["coverage_sum"][row] += coverage
            columns["coverage_rows"][row] += 1

    def decoded(
        self, request_ids: list[int], now_ns: int, coverage: list[float], ended_ns: int
    ) -> None:
        """Note that each of ``request_ids`` got a token from a one-token decode row.

        The same as :meth:`served` and :meth:`sampled` for each. ``coverage`` is that of its row.
        """
        run, step = self._run, self.step_count
        if run is not None and run.takes(request_ids, step):
            run.take(now_ns, ended_ns, coverage, self._requests.columns)
            return
        if run is not None:
            run.book(self._requests.columns)
        for request_id, kept in zip(request_ids, coverage, strict=True):
            self.served(request_id, now_ns, kept, ended_ns)
            self.sampled(request_id, ended_ns)
        self._run = DecodeRun(request_ids, [self.row_of[i] for i in request_ids], step, ended_ns)

    def hit(self, request_id: int, tokens: int) -> None:
        """Note the tokens that a request just admitted found in shared pages."""
        columns, row = self.requests.columns, self.row_of[request_id]
        again = columns["preemptions"][row] > 0
        columns["rehit_tokens" if again else "prefix_hit_tokens"][row] += tokens

    def evicted(self, request_id: int, pages: int) -> None:
        """Count pages that a request gave up."""
        self.requests.columns["pages_evicted"][self.row_of[request_id]] += pages

    def preempted(self, request_id: int) -> None:
        """Count one preemption."""
        self.requests.columns["preemptions"][self.row_of[request_id]] += 1

    def sampled(self, request_id: int, now_ns: int) -> None:
        """Count one token, given at ``now_ns``."""
        columns, row = self.requests.columns, self.row_of[request_id]
        columns["tokens"][row] += 1
        if columns["first_token_ns"][row] == NEVER:
            columns["first_token_ns"][row] = now_ns

    def token_rows(
        self,
        request_ids: list[int],
        positions: list[int],
        now_ns: int,
        signals: tuple[np.ndarray, ...],
        coverage: list[float],
    ) -> None:
        """Append token rows; ``signals`` are h_applied, h_cal, command, surprisal, float32."""
        if not self.record_tokens:
            self.totals.itl(self._open.take(request_ids, now_ns, signals))
            return
        self._tokens.add(request_ids, positions, now_ns, signals, coverage)

    def finished(self, request_id: int, now_ns: int, reason: str) -> None:
        """Close the row of a request."""
        row = self.row_of[request_id]
        require(self.reasons[row] is None, "request already finished", request_id=request_id)
        self.reasons[row] = reason
        self.requests.columns["finish_ns"][row] = now_ns
        if not self.record_tokens:
            self._open.close(request_id, self.totals)

    def trim(self, keep: int) -> int:
        """Forget finished requests but the ``keep`` that finished last; return how many went.

        Their tokens go with them, and the steps that began before any request left had arrived.
        For servers that never end: metrics then speak of the requests left. Ids of forgotten
        requests are no longer guarded against a second use.
        """
        require(keep >= 0, "keep must be >= 0", keep=keep)
        ended_ns = self.requests.columns["finish_ns"]
        finished = [row for row, reason in enumerate(self.reasons) if reason is not None]
        finished.sort(key=lambda row: ended_ns[row])
        gone = finished[: max(0, len(finished) - keep)]
        if not gone:
            return 0
        kept = np.ones(len(self.reasons), dtype=bool)
        kept[gone] = False
        leaving = self.requests["request_id"][~kept]
        self.requests.keep(kept)
        self.tokens.keep(~np.isin(self.tokens["request_id"], leaving))
        sums = self.totals.requests
        sums.keep(~np.isin(sums["request_id"], leaving))
        self.reasons = [reason for reason, stays in zip(self.reasons, kept, strict=True) if stays]
        self._run = None  # it knows rows by number
        self.row_of.renew()
        began, arrived = self.steps["now_ns"], self.requests["arrival_ns"]
        since = arrived.min() if len(arrived) else np.iinfo(np.int64).max
        self.steps.keep(began >= since)
        self.forgotten += len(gone)
        return len(gone)

    def counts(self) -> dict[str, int]:
        """Return how many requests were submitted and how they stand, forgotten ones left out."""
        completed = sum(reason in COMPLETED for reason in self.reasons)
        cancelled = self.reasons.count(CANCELLED)
        unfinished = self.reasons.count(None)
        return {
            "submitted": len(self.reasons),
            "completed": completed,
            "cancelled": cancelled,
            "failed": len(self.reasons) - completed - cancelled - unfinished,
            "unfinished": unfinished,
        }

    def check(self) -> None:
        """Assert causality, the monotone clock and agreement of the tables (INV-6)."""
        requests, steps, tokens = self.requests, self.steps, self.tokens
        assert len(requests) == len(self.reasons) == len(self.row_of), "request rows disagree"
        chain = ("arrival_ns", "first_scheduled_ns", "first_token_ns", "finish_ns")
        for earlier, later in pairwise(chain):
            before, after = requests[earlier], requests[later]
            known = (before != NEVER) & (after != NEVER)
            assert np.all(before[known] <= after[known]), f"{later} lies before {earlier}"
        done = np.array([reason is not None for reason in self.reasons], dtype=bool)
        assert np.array_equal(requests["finish_ns"] != NEVER, done), "finish without a reason"
        assert np.all(requests["tokens"] <= requests["max_tokens"]), "more tokens than asked for"
        found = requests["prefix_hit_tokens"] < requests["prompt_tokens"]
        assert np.all(found), "a whole prompt was found: nothing was left to compute"
        assert np.all(np.diff(steps["now_ns"]) >= 0), "a step began before the previous one"
        assert np.all(steps["duration_ns"] >= 0), "a step took negative time"
        if self.record_tokens:
            assert len(tokens) == int(requests["tokens"].sum()), "token rows disagree"
