"""The ledger: what happened, as append-only columns. Metrics are functions of it alone."""

from __future__ import annotations

from array import array
from itertools import pairwise

import numpy as np

from controllers.core import require
from controllers.serving.messages import Plan, Result

NEVER = -1  # a time that has not come
COMPLETED = ("stop", "length")
CANCELLED = "cancelled"

_STEPS = {
    "step": "q",
    "now_ns": "q",  # when the step began
    "duration_ns": "q",
    "n_decode": "l",
    "prompt_tokens": "l",
    "pages_held": "l",
    "page_units_read": "q",
    "page_units_dense": "q",
    "preempted": "l",
    "pages_scored": "q",
}
_REQUESTS = {
    "request_id": "q",
    "prompt_tokens": "l",
    "max_tokens": "l",
    "arrival_ns": "q",
    "first_scheduled_ns": "q",
    "first_token_ns": "q",
    "finish_ns": "q",
    "tokens": "l",
    "preemptions": "l",
    "last_service_step": "q",
    "max_service_gap_steps": "l",  # over services so far, counted from submission
    "coverage_sum": "d",  # over one-token decode rows
    "coverage_rows": "l",
    "prefix_hit_tokens": "l",  # prompt tokens whose KV was found at first admission
    "rehit_tokens": "l",  # the same at admissions after a preemption, summed
    "pages_evicted": "l",
}
_TOKENS = {
    "request_id": "q",
    "position": "l",  # generated tokens before this one
    "now_ns": "q",  # when the step that gave it ended
    "h_applied": "f",
    "h_cal": "f",
    "command": "f",
    "surprisal": "f",
    "coverage": "f",
}


class Table:
    """Typed columns of equal length: a struct of arrays that grows at the end."""

    __slots__ = ("columns",)

    def __init__(self, columns: dict[str, str]) -> None:
        self.columns = {name: array(code) for name, code in columns.items()}

    def append(self, *values: float) -> None:
        """Append one row, values in column order."""
        for column, value in zip(self.columns.values(), values, strict=True):
            column.append(value)

    def keep(self, kept: np.ndarray) -> None:
        """Drop the rows where ``kept``, bool ``[rows]``, is false; the order stays."""
        for column in self.columns.values():
            left = np.array(column)[kept]
            del column[:]
            column.frombytes(left.tobytes())

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a copy of a column as a numpy array."""
        return np.array(self.columns[name])

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


class Ledger:
    """Rows per step, per request and (unless ``record_tokens`` is off) per token.

    The loop writes it; everyone else reads. Times are integer nanoseconds, entropies nats.
    """

    def __init__(self, *, record_tokens: bool = True) -> None:
        self.record_tokens = record_tokens
        self.steps = Table(_STEPS)
        self.requests = Table(_REQUESTS)
        self.tokens = Table(_TOKENS)
        self.reasons: list[str | None] = []  # one per request; None while unfinished
        self.row_of: dict[int, int] = {}  # request id -> row of ``requests``
        self.step_count = 0  # steps that ran, the unit of service gaps
        self.forgotten = 0  # finished requests dropped by ``trim``

    def submitted(
        self, request_id: int, prompt_tokens: int, max_tokens: int, arrival_ns: int
    ) -> None:
        """Open the row of a request; ids are never used twice."""
        require(request_id not in self.row_of, "request_id is already used", request_id=request_id)
        self.row_of[request_id] = len(self.reasons)
        self.reasons.append(None)
        times = (arrival_ns, NEVER, NEVER, NEVER)
        counts = (0, 0, self.step_count, 0, 0.0, 0, 0, 0, 0)
        self.requests.append(request_id, prompt_tokens, max_tokens, *times, *counts)

    def ran(self, *values: int) -> None:
        """Append a step row, values in the order of its columns."""
        self.steps.append(*values)
        self.step_count += 1

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

    def served(self, request_id: int, now_ns: int, coverage: float | None) -> None:
        """Note that a request took part in the step that began at ``now_ns``.

        Call it before :meth:`ran`. ``coverage`` is that of a one-token decode row, else None.
        """
        columns, row = self.requests.columns, self.row_of[request_id]
        if columns["first_scheduled_ns"][row] == NEVER:
            columns["first_scheduled_ns"][row] = now_ns
        gap = self.step_count - columns["last_service_step"][row]
        if gap > columns["max_service_gap_steps"][row]:
            columns["max_service_gap_steps"][row] = gap
        columns["last_service_step"][row] = self.step_count + 1
        if coverage is not None:
            columns["coverage_sum"][row] += coverage
            columns["coverage_rows"][row] += 1

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
            return
        columns = self.tokens.columns
        columns["request_id"].extend(request_ids)
        columns["position"].extend(positions)
        columns["now_ns"].extend([now_ns] * len(request_ids))
        names = ("h_applied", "h_cal", "command", "surprisal")
        for name, lanes in zip(names, signals, strict=True):
            columns[name].frombytes(lanes.astype(np.float32, copy=False).tobytes())
        columns["coverage"].extend(coverage)

    def finished(self, request_id: int, now_ns: int, reason: str) -> None:
        """Close the row of a request."""
        row = self.row_of[request_id]
        require(self.reasons[row] is None, "request already finished", request_id=request_id)
        self.reasons[row] = reason
        self.requests.columns["finish_ns"][row] = now_ns

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
        self.reasons = [reason for reason, stays in zip(self.reasons, kept, strict=True) if stays]
        left = self.requests["request_id"].tolist()
        self.row_of = {request_id: row for row, request_id in enumerate(left)}
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
