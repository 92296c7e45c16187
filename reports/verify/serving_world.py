"""A small server under a script: the real serving loop, a fake executor, and a judge at each step.

Nothing here is random: the same subject, setting and operations give the same run, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Seq
from typing import Any

from controllers.serving.admission import check_request
from controllers.serving.loop import ServingLoop
from controllers.serving.request import Request, Sequence
from controllers.serving.rows import LogRow
from controllers.steplaw import StepLaw
from reports.verify.fake_executor import MS, FakeExecutor, RowRefused
from reports.verify.serving_invariants import Broken, Moment, judge_plan, judge_state
from reports.verify.serving_script import Operation
from reports.verify.serving_subject import ServingSubject, Setting

_SPARES = 64  # more than a script submits
OTHER_FUTURE = 1  # salt of the stops in a world with the same past and another future

SLOW = StepLaw(  # seconds a step: costs and waits must differ enough for every law's order
    base_s=0.05,
    per_decode_s=0.01,
    per_kv_token_s=1e-4,
    per_prompt_token_s=0.02,
    per_prompt_square_s=1e-5,
    floor_s=0.06,
)

Rank = tuple[float, int, int]


class WatchedLoop(ServingLoop):
    """A serving loop that remembers in which order the law put who waits; it changes nothing."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self.ranks: dict[int, Rank] = {}  # of the last plan; smaller goes first
        super().__init__(*arguments, **keywords)

    def _score(self, sequences: Seq[Sequence], now_ns: int) -> list[float]:
        scores = super()._score(sequences, now_ns)
        for sequence, score in zip(sequences, scores, strict=True):
            request_id = sequence.request.request_id
            self.ranks[request_id] = (-score, sequence.arrival_ns, request_id)
        return scores


class ServingWorld:
    """One run. Every method raises :class:`Broken` as soon as a rule does not hold."""

    def __init__(
        self,
        subject: ServingSubject,
        setting: Setting,
        *,
        future: int = 0,
        judged: bool = True,
        rising: bool = True,
    ) -> None:
        """Make an empty server; only a ``judged`` one looks for broken rules.

        ``future`` salts the stops to come; ``rising`` is for :func:`spare_sequences`.
        """
        self.judged = judged
        self.draining = False
        self.broken = False  # and so of no further use
        self.subject = subject
        self.setting = setting
        self.preset = setting.apply(subject.preset)
        self.log: list[LogRow] = []
        self.operations: list[Operation] = []
        self.requests: dict[int, Request] = {}
        self.disabled: set[int] = set()
        self.now_ns = 0
        self.samples = 0  # rows that sampled
        self._barren = 0  # steps in a row that sampled nothing
        self._owed: int | None = None
        self._oracle: dict[int, int] | None = {} if self.preset.priority.oracle else None
        self.executor = FakeExecutor(
            stop_share=setting.stop_percent / 100,
            fail_share=setting.fail_percent / 100,
            stop_salt=future,
            law=self.preset.temperature,
            step_law=SLOW,
        )
        self.loop = WatchedLoop(
            setting.limits,
            self.preset,
            SLOW,
            sink=self.log.append,
            oracle=self._oracle,
            scheduler_type=subject.scheduler_type,
        )
        self._spares = spare_sequences(rising=rising)

    def apply(self, operation: Operation) -> None:
        """Do one operation."""
        self.operations.append(operation)
        first, *rest = operation.arguments
        match operation.verb:
            case "submit" | "submit_greedy":
                request = self._request(first, rest[0], greedy=operation.verb == "submit_greedy")
                self._guard(self._enter, request)
            case "wait":
                self.now_ns += first * MS
            case "step":
                for _ in range(first):
                    self._guard(self._step)
            case "cancel":
                self._guard(self._cancel, first)
            case "cancel_during_step":
                self._guard(self._step, cancelling=first)
            case "disable":
                self._guard(self._disable, first)
            case _:
                raise ValueError(f"unknown operation {operation}")

    def drain(self) -> None:
        """Run until nothing is left; a step without progress too often breaks a rule first."""
        self.draining = True
        while self.loop.has_work:
            self._guard(self._step)

    def serve_alone(self, request: Request) -> None:
        """Submit ``request`` as it is, with its own number, and serve it to the end."""
        self._guard(self._enter, request)
        self.drain()

    @property
    def patience(self) -> int:
        """Steps in a row that may sample nothing.

        Between two samples only prefills run. They fill at most the pool, a budget at a time, and
        each resident can be displaced once, for nobody used up a quantum meanwhile.
        """
        limits = self.setting.limits
        fills = -(-limits.n_pages * limits.page_tokens // limits.token_budget)
        return (fills + 1) * (limits.max_seqs + 1)

    def _guard(self, action: Any, *arguments: Any, **keywords: Any) -> None:
        try:
            action(*arguments, **keywords)
            return
        except Broken as error:
            broken = error
        except RowRefused as error:
            broken = Broken({"rows": str(error)})
        except Exception as error:  # a stranger's scheduler may raise anything
            broken = Broken({"raises": f"{type(error).__name__}: {error}"})
        self.broken = True
        raise broken

    def _request(self, prompt: int, length: int, *, greedy: bool) -> Request:
        request = Request(
            request_id=len(self.requests),
            prompt_tokens=prompt,
            max_tokens=length,
            temperature=0.0 if greedy else 1.0,
        )
        check_request(request, self.setting.limits)
        return request

    def _enter(self, request: Request) -> None:
        self.requests[request.request_id] = request
        self.executor.requests[request.request_id] = request
        if self._oracle is not None:
            self._oracle[request.request_id] = self.executor.length_of(request)
        if self._spares:
            self._spares.pop()
        self.loop.submit(request, self.now_ns)
        self._judge()

    def _cancel(self, request_id: int) -> None:
        known = request_id in self.loop.sequences
        if self.loop.cancel(request_id, self.now_ns) != known:
            raise Broken({"requests": f"cancel of request {request_id} says the wrong thing"})
        self.executor.release(request_id)
        self._judge()

    def _judge(self) -> None:
        if self.judged:
            judge_state(self.loop)

    def _disable(self, request_id: int) -> None:
        if self.loop.disable(request_id, self.now_ns):
            self.disabled.add(request_id)
            self.executor.requests[request_id] = self.loop.sequences[request_id].request

    def _step(self, cancelling: int | None = None) -> None:
        loop = self.loop
        loop.ranks.clear()
        residents = dict(loop.scheduler.running)
        decoding = frozenset(i for i, s in residents.items() if s.decoding)
        waiting = frozenset(loop.scheduler.waiting)
        if self._owed not in waiting:
            self._owed = None
        had_work = loop.has_work
        waits = self._waits()
        plan = loop.plan(self.now_ns)
        moment = Moment(
            loop=loop,
            plan=plan,
            had_work=had_work,
            decoding=decoding,
            residents=frozenset(residents),
            waiting=waiting,
            owed=self._owed,
            waits=waits,
        )
        if self.judged:
            judge_plan(moment)
        self._note_blocked_head(moment)
        if plan.rows:
            self._run(moment, cancelling)

    def _waits(self) -> dict[int, tuple[int, bool]]:
        """Return when each wait began, and whether a full quantum allows it to restart."""
        quantum = self.preset.quantum_tokens or math.inf
        return {
            request_id: (sequence.wait_since_ns, sequence.quantum_used >= quantum)
            for request_id, sequence in self.loop.sequences.items()
        }

    def _note_blocked_head(self, moment: Moment) -> None:
        """Remember the first in the law's order whom free pages did not suffice for."""
        scheduler, limits = self.loop.scheduler, self.setting.limits
        still = [i for i in moment.waiting if i in scheduler.waiting and i in self.loop.ranks]
        slot_free = len(scheduler.running) < limits.max_seqs
        if not (self.preset.priority.reserves and still and slot_free) or self._owed in still:
            return
        head = min(still, key=lambda i: self.loop.ranks[i])
        needed = limits.pages_for(scheduler.waiting[head].known + 1)
        if needed > scheduler.pool.n_free:
            self._owed = head

    def _run(self, moment: Moment, cancelling: int | None) -> None:
        loop, plan = self.loop, moment.plan
        result = self.executor.execute(plan, loop.pages(plan))
        self.now_ns += result.duration_ns
        if cancelling is not None:
            self._cancel(cancelling)
        finished = loop.observe(result, self.now_ns)
        if cancelling in finished:
            raise Broken({"requests": f"request {cancelling} finished after it was cancelled"})
        for request_id in finished:
            self.executor.release(request_id)
        self._judge()
        self.samples += len(plan.sampled)
        self._barren = 0 if plan.sampled else self._barren + 1
        if self._barren > self.patience:
            raise Broken({"progress": f"livelock: {self._barren} steps in a row gave no token"})


def spare_sequences(*, rising: bool) -> list[Sequence]:
    """Return objects that make room for the next sequences at rising or at falling addresses.

    CPython fills the hole that was made last. A world drops one of these at each arrival, so an
    order by address shows at once, and the same way each time.
    """
    request = Request(request_id=0, prompt_tokens=1, max_tokens=1)
    objects = [Sequence(request=request, arrival_ns=0) for _ in range(_SPARES)]
    return sorted(objects, key=id, reverse=rising)
