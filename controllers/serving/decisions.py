"""Why a plan is as it is: what the scheduler and the loop tell a witness, one row per decision.

Nobody decides here. Without a witness nothing is told, and with one no plan changes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Sequence as Seq
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from controllers.core import require
from controllers.serving.messages import Plan, Row
from controllers.serving.request import Sequence, Status

if TYPE_CHECKING:
    from controllers.serving.scheduler import Scheduler

DecisionRow = dict[str, Any]  # one JSON object; every row has "kind" and "now_ns"
Coverage = Callable[[Sequence], str]  # why the next row reads what it reads


class Why(StrEnum):
    """The rule of the scheduler that applied."""

    DECODE = "decode"  # a resident's next token, always first
    PREFILL = "prefill"  # a resident's next chunk of what it has to compute
    ADMITTED = "admitted"
    NO_SLOT = "no_slot"  # as many residents as there may be, none with its quantum used up
    NO_TOKENS = "no_tokens"  # the token budget of the step is spent
    PINNED = "pinned"  # goes first whatever the scores: it was short of pages before
    PINNED_SHORT = "pinned_short"  # the pinned head needs more pages than are free
    HEAD_SHORT = "head_short"  # the head needs more pages than are free, and none can be taken
    HEAD_NO_SLOT = "head_no_slot"  # no free slot, and no expired resident gives way to the head
    DISPLACED = "displaced"  # quantum used up, and outranked by a waiting request
    SHORTAGE = "shortage"  # the lowest resident when a decode row found no free page
    NO_ADMISSION = "no_admission"  # pages were short in this step: nobody enters


class Reads(StrEnum):
    """Why a row reads all of its pages, or some of them."""

    PROMPT = "prompt"  # not a one-token decode row: always dense
    OFF = "off"  # control is switched off for this request
    ASKED = "asked"  # the law asks for everything
    FLOOR = "floor"  # the request's own least coverage is above what the law asks
    SHORT = "short"  # the context is below the preset's ``sparse_min_context``
    PROBE = "probe"  # made dense in order to measure
    SPARSE = "sparse"  # as the law asks


class Witness(Protocol):
    """Who is told. Calls of one step come in the order of this class, ``told`` many times."""

    def scored(self, sequences: Seq[Sequence], scores: Seq[float]) -> None:
        """Take the priorities of an open decision, larger first."""
        ...

    def told(self, why: Why, about: Sequence | None, other: Sequence | None, needs: int) -> None:
        """Take one decision, before it takes effect.

        ``about`` is whom it is about, None for the whole queue; ``other`` who gains by it;
        ``needs`` the pages that ``about`` would take.
        """
        ...

    def planned(self, plan: Plan, now_ns: int, scheduler: Scheduler, reads: Coverage) -> None:
        """Take the plan as ``scheduler`` left it. ``reads`` tells why a row reads what it reads."""
        ...

    def left(self, sequence: Sequence, now_ns: int, reason: str) -> None:
        """Take a request that ended."""
        ...


class DecisionLog:
    """A witness that writes one row per arrival, decision and departure.

    A row of kind ``decision`` has ``rows`` ``[id, why, start, n_tokens, coverage, reads, evict]``,
    ``preempted`` ``[id, why, other]``, ``queue`` (None, or why those left waiting wait), and where
    a decision was open ``ranked`` ``[rank, id, score, side]`` from rank 1 down; ``side`` is
    "waiting" or "resident", a score of None is minus infinity. Of long rankings the ``leading``
    first are kept, all residents, and everybody the step decided about.
    """

    def __init__(self, sink: Callable[[DecisionRow], None], *, leading: int = 32) -> None:
        require(leading >= 1, "leading must be >= 1", leading=leading)
        self._sink = sink
        self._leading = leading
        self._seen: set[int] = set()
        self._scored: list[tuple[Sequence, float, str]] = []
        self._told: list[tuple[Why, int | None, int | None, int]] = []

    def scored(self, sequences: Seq[Sequence], scores: Seq[float]) -> None:
        """Keep the priorities of the decision under way."""
        sides = ["resident" if s.status is Status.RUNNING else "waiting" for s in sequences]
        self._scored = list(zip(sequences, scores, sides, strict=True))

    def told(self, why: Why, about: Sequence | None, other: Sequence | None, needs: int) -> None:
        """Keep a decision until the plan is known."""
        self._told.append((why, _id(about), _id(other), needs))

    def planned(self, plan: Plan, now_ns: int, scheduler: Scheduler, reads: Coverage) -> None:
        """Write who arrived since the last plan, and the decision row of this one."""
        sequences = {**scheduler.running, **scheduler.waiting}
        fresh = [s for request_id, s in sequences.items() if request_id not in self._seen]
        for sequence in sorted(fresh, key=_arrival):
            self._arrived(sequence)
        admitted = {about for rule, about, _, _ in self._told if rule is Why.ADMITTED}
        pinned = next((about for rule, about, _, _ in self._told if rule is Why.PINNED), None)
        taken = (Why.SHORTAGE, Why.DISPLACED)
        rows = [_row(row, sequences[row.request_id], admitted, reads) for row in plan.rows]
        found: DecisionRow = {
            "kind": "decision",
            "now_ns": int(now_ns),
            "step": plan.step,
            "free_pages": scheduler.pool.n_free,
            "rows": rows,
            "preempted": [[who, str(r), other] for r, who, other, _ in self._told if r in taken],
            "queue": self._queue(len(scheduler.waiting)),
        }
        if self._scored:
            found["ranked"], found["ranked_of"] = self._ranked(pinned), len(self._scored)
        if pinned is not None:
            found["pinned"] = pinned
        self._scored, self._told = [], []
        self._sink(found)

    def left(self, sequence: Sequence, now_ns: int, reason: str) -> None:
        """Write the departure."""
        self._arrived(sequence)
        request_id = sequence.request.request_id
        self._seen.discard(request_id)
        self._sink(
            {
                "kind": "left",
                "now_ns": int(now_ns),
                "request_id": request_id,
                "reason": reason,
                "tokens": sequence.generated,
                "preemptions": sequence.preemptions,
            }
        )

    def _arrived(self, sequence: Sequence) -> None:
        request = sequence.request
        if request.request_id in self._seen:
            return
        self._seen.add(request.request_id)
        self._sink(
            {
                "kind": "arrived",
                "now_ns": int(sequence.arrival_ns),
                "request_id": request.request_id,
                "prompt_tokens": request.prompt_tokens,
                "max_tokens": request.max_tokens,
                "task_class": request.task_class,
                "client": request.client,
            }
        )

    def _queue(self, n_waiting: int) -> DecisionRow | None:
        """Say why those who wait were not let in; None where nobody waits."""
        if n_waiting == 0:
            return None
        if any(rule is Why.SHORTAGE for rule, *_ in self._told):
            return {"n": n_waiting, "why": str(Why.NO_ADMISSION)}
        stops = (
            Why.NO_SLOT, Why.NO_TOKENS, Why.PINNED_SHORT, Why.HEAD_SHORT, Why.HEAD_NO_SLOT,
        )  # fmt: skip
        for rule, head, _, needs in self._told:
            if rule in stops:
                at = {} if head is None else {"head": head, "needs": needs}
                return {"n": n_waiting, "why": str(rule), **at}
        # Only those displaced in this step can wait with no rule told: the queue was let in.
        return {"n": n_waiting, "why": str(Why.DISPLACED)}

    def _ranked(self, pinned: int | None) -> list[list[object]]:
        order = sorted(
            self._scored,
            key=lambda one: (
                one[0].request.request_id != pinned,
                -one[1],
                one[0].arrival_ns,
                one[0].request.request_id,
            ),
        )
        about = {who for _, *ids, _ in self._told for who in ids}
        return [
            [rank, s.request.request_id, score if math.isfinite(score) else None, side]
            for rank, (s, score, side) in enumerate(order, start=1)
            if rank <= self._leading or side == "resident" or s.request.request_id in about
        ]


def _row(row: Row, sequence: Sequence, admitted: set[int | None], reads: Coverage) -> list[object]:
    rule = Why.DECODE if sequence.decoding else Why.PREFILL
    if row.request_id in admitted:
        rule = Why.ADMITTED
    values = (row.start, row.n_tokens, row.coverage)
    return [row.request_id, str(rule), *values, str(reads(sequence)), row.evict]


def _arrival(sequence: Sequence) -> tuple[int, int]:
    return sequence.arrival_ns, sequence.request.request_id


def _id(sequence: Sequence | None) -> int | None:
    return None if sequence is None else sequence.request.request_id
