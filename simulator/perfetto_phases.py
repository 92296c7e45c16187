"""What each request was doing when: from a ledger alone, or exactly from a decision log."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from controllers.serving.decisions import DecisionRow, Reads, Why
from controllers.serving.ledger import NEVER, Ledger

WAITING, PREFILL, DECODE = "waiting", "prefill", "decode"
PREEMPTED, RECOMPUTE = "preempted", "recompute"
QUEUED = (WAITING, PREEMPTED)


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of a request's life, ``[begin_ns, end_ns]``."""

    name: str
    begin_ns: int
    end_ns: int


def end_of(ledger: Ledger) -> int:
    """Return when a ledger ends, ns: its last step's end, or the last time a request had."""
    steps, requests = ledger.steps, ledger.requests
    ends = (steps["now_ns"] + steps["duration_ns"]).max(initial=0)
    times = [requests[name].max(initial=0) for name in ("arrival_ns", "finish_ns")]
    return int(max(ends, *times))


def phases_of(
    ledger: Ledger, turns: dict[int, list[tuple[str, int]]] | None = None
) -> list[list[Phase]]:
    """Return the phases of each row of ``ledger.requests``, without gaps from arrival to finish.

    ``turns`` (:func:`turns_of`) splits off the time that preemption took; without it that time
    lies in prefill or decode, for a ledger counts preemptions and does not date them. A request
    still there is followed to the end of the ledger.
    """
    requests, last_ns = ledger.requests, end_of(ledger)
    names = ("request_id", "arrival_ns", "first_scheduled_ns", "first_token_ns", "finish_ns")
    rows = zip(*(requests[name].tolist() for name in names), strict=True)
    found = []
    for request_id, arrival_ns, first_ns, token_ns, finish_ns in rows:
        marks = [(WAITING, arrival_ns), (PREFILL, first_ns), (DECODE, token_ns)]
        marks = [(name, when) for name, when in marks if when != NEVER]
        if turns is not None:
            marks = sorted([*marks, *turns.get(request_id, ())], key=lambda mark: mark[1])
        marks = [m for i, m in enumerate(marks) if i == 0 or m[0] != marks[i - 1][0]]
        end_ns = last_ns if finish_ns == NEVER else finish_ns
        ends = pairwise([*marks, ("", end_ns)])
        found.append([Phase(name, begin, end) for (name, begin), (_, end) in ends])
    return found


def turns_of(rows: Iterable[DecisionRow]) -> dict[int, dict[int, list[tuple[str, int]]]]:
    """Return, by replica and request, when it was preempted, let in again, and decoded again.

    Each is ``(phase that begins, ns)``; times are those at which a plan was made.
    """
    found: dict[int, dict[int, list[tuple[str, int]]]] = {}
    for row in rows:
        if row["kind"] != "decision":
            continue
        turns, now_ns = found.setdefault(row["replica"], {}), row["now_ns"]
        for request_id, *_ in row["preempted"]:
            turns.setdefault(request_id, []).append((PREEMPTED, now_ns))
        for request_id, why, _, _, _, reads, *_ in row["rows"]:
            marks = turns.get(request_id)
            if not marks:
                continue
            if marks[-1][0] == PREEMPTED and why == Why.ADMITTED:
                marks.append((RECOMPUTE, now_ns))
            elif marks[-1][0] == RECOMPUTE and reads != Reads.PROMPT:
                marks.append((DECODE, now_ns))
    return found


def occupancy(phases: list[list[Phase]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return moments ``[n]``, ns, and from each on how many requests wait, and how many are in.

    Requests in are those with pages: prefill, recompute or decode.
    """
    changes: dict[int, list[int]] = {}
    for one in phases:
        for phase in one:
            side = 0 if phase.name in QUEUED else 1
            changes.setdefault(phase.begin_ns, [0, 0])[side] += 1
            changes.setdefault(phase.end_ns, [0, 0])[side] -= 1
    moments = sorted(changes)
    totals = np.cumsum([changes[moment] for moment in moments] or np.zeros((0, 2)), axis=0)
    return np.array(moments, np.int64), totals[:, 0], totals[:, 1]
