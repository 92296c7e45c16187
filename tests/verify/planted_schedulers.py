"""Schedulers and page pools with one planted mistake each, which the verifier must find."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from controllers.serving.ledger import CANCELLED
from controllers.serving.pages import PagePool
from controllers.serving.request import Sequence
from controllers.serving.scheduler import Grants, Scheduler


class LeaksOnPreempt(Scheduler):
    """Forgets to give back the pages of who is preempted."""

    def _preempt(self, sequence: Sequence, now_ns: int) -> None:
        sequence.pages = []
        super()._preempt(sequence, now_ns)


class LeaksOnCancel(Scheduler):
    """Keeps the pages of a cancelled request for ever."""

    def remove(self, sequence: Sequence) -> None:
        if sequence.finish_reason == CANCELLED:
            sequence.pages = []
        super().remove(sequence)


class FreesTwice(Scheduler):
    """Gives the pages of a finished request back two times."""

    def remove(self, sequence: Sequence) -> None:
        self.pool.free(sequence.pages)
        super().remove(sequence)


class LosesThePreempted(Scheduler):
    """Does not put a preempted request back in the queue."""

    def _preempt(self, sequence: Sequence, now_ns: int) -> None:
        super()._preempt(sequence, now_ns)
        del self.waiting[sequence.request.request_id]


class OverBudget(Scheduler):
    """Takes the token budget for twice as large."""

    def _continue_residents(self) -> tuple[Grants, int]:
        grants, budget = super()._continue_residents()
        return grants, budget + self.limits.token_budget


class TooManyResidents(Scheduler):
    """Counts pages but not slots once it admits."""

    def _fits(self, sequence: Sequence) -> bool:
        return self._pages_to_start(sequence) <= self.pool.n_free


class RestsEveryThirdStep(Scheduler):
    """Idles while work waits."""

    calls = 0

    def schedule(self, now_ns: int) -> tuple[Grants, tuple[int, ...]]:
        self.calls += 1
        return ({}, ()) if self.calls % 3 == 0 else super().schedule(now_ns)


class ForgetsReservations(Scheduler):
    """Lets whoever fits pass a head of line that did not."""

    def schedule(self, now_ns: int) -> tuple[Grants, tuple[int, ...]]:
        self.reserved = None
        return super().schedule(now_ns)


class SkipsTheUnfitting(Scheduler):
    """Hides who does not fit, so that small requests always pass a large one."""

    def schedule(self, now_ns: int) -> tuple[Grants, tuple[int, ...]]:
        self.reserved = None
        hidden = {i: s for i, s in self.waiting.items() if not self._fits(s)}
        if len(hidden) < len(self.waiting):
            for request_id in hidden:
                del self.waiting[request_id]
            planned = super().schedule(now_ns)
            self.waiting.update(hidden)
            return planned
        return super().schedule(now_ns)


class PingPong(Scheduler):
    """Takes residents out for whoever waits, before they gave a token."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._quantum = 0

    def schedule(self, now_ns: int) -> tuple[Grants, tuple[int, ...]]:
        displaced = [s for s in self.running.values() if self.waiting and not s.decoding]
        for sequence in displaced:
            self._preempt(sequence, now_ns)
        grants, preempted = super().schedule(now_ns)
        return grants, (*(s.request.request_id for s in displaced), *preempted)

    def _preempt(self, sequence: Sequence, now_ns: int) -> None:
        since_ns = sequence.wait_since_ns
        super()._preempt(sequence, now_ns)
        sequence.wait_since_ns = since_ns


class WaitRestartsAtPreemption(Scheduler):
    """Lets the wait begin anew at every preemption, also where the progress was lost."""

    def _preempt(self, sequence: Sequence, now_ns: int) -> None:
        super()._preempt(sequence, now_ns)
        sequence.wait_since_ns = now_ns


class PrefillsLast(Scheduler):
    """Goes on with a prompt only while nobody decodes."""

    def _continue_residents(self) -> tuple[Grants, int]:
        decoding = {i: (s, 1) for i, s in self.running.items() if s.decoding}
        if not decoding:
            return super()._continue_residents()
        return decoding, self.limits.token_budget - len(decoding)


class Unchanged(Scheduler):
    """Ours under another name: sound."""


class LeavesADecodeRowOut(Scheduler):
    """Serves all residents but the last when there are three."""

    def _continue_residents(self) -> tuple[Grants, int]:
        grants, budget = super()._continue_residents()
        if len(grants) > 2:
            grants.popitem()
        return grants, budget


class RanksByAddress(Scheduler):
    """Orders requests by where they lie in memory."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._score = lambda sequences, now_ns: [float(id(s)) for s in sequences]


class RemembersOtherRuns(Scheduler):
    """Keeps a number that outlives the run, and orders by it."""

    turn = 1

    def schedule(self, now_ns: int) -> tuple[Grants, tuple[int, ...]]:
        turn = type(self).turn = (7 * self.turn + 3) % 101
        self._score = lambda sequences, _: [
            float(turn * (s.request.request_id + 1) % 11) for s in sequences
        ]
        return super().schedule(now_ns)


class KeepsStaleTokens(Scheduler):
    """Preempts without forgetting what was computed, so that the KV cache is not rebuilt."""

    def _free_pages(self, sequence: Sequence) -> None:
        self.pool.free(sequence.pages)
        sequence.pages = []


class PeeksAtLengths(Scheduler):
    """Serves the shortest output first: it walks up the stack to the executor and asks."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._score = lambda sequences, now_ns: [-_true_length(s) for s in sequences]


class Crashes(Scheduler):
    """Divides by the number of free slots."""

    def schedule(self, now_ns: int) -> tuple[Grants, tuple[int, ...]]:
        assert 1 / (self.limits.max_seqs - len(self.running)) > 0
        return super().schedule(now_ns)


def _true_length(sequence: Sequence) -> float:
    frame = inspect.currentframe()
    while frame is not None:
        executor = getattr(frame.f_locals.get("self"), "executor", None)
        if executor is not None:
            return float(executor.length_of(sequence.request))
        frame = frame.f_back
    return 0.0


class GivesHighestFirst(PagePool):
    """Takes pages from the wrong end."""

    def _lowest(self, n: int) -> list[int]:
        return super()._lowest(self.n_free)[-n:]

    def allocate(self, n: int) -> list[int] | None:
        if not 0 < n <= self.n_free:
            return super().allocate(n)
        pages = self._lowest(n)
        self._take(pages)
        return pages


class AllowsDoubleFree(PagePool):
    """Takes back what nobody holds and says nothing."""

    def free(self, pages: Iterable[int]) -> None:
        super().free(page for page in pages if self.references(page))


class FreesSharedPages(PagePool):
    """Gives a page away while others still hold it."""

    def free(self, pages: Iterable[int]) -> None:
        for page in pages:
            super().free([page])
            while self.references(page):
                super().free([page])


class MiscountsOnExtend(PagePool):
    """Forgets to count a page that extends a table."""

    def extend(self, pages: list[int]) -> bool:
        extended = super().extend(pages)
        self.n_free += extended
        return extended


class OverAllocates(PagePool):
    """Gives what it has when more is asked for."""

    def allocate(self, n: int) -> list[int] | None:
        return super().allocate(min(n, self.n_free))


class SchedulerWithBadPool(Scheduler):
    """A sound scheduler over a pool that is not."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.pool = OverAllocates(self.limits.n_pages)
