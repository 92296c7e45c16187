"""The scheduler: who is resident, who advances, who gives way. Decisions only; it runs nothing.

Every decode-ready resident gets its token first, then the prefill under way, then admissions.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq

from controllers.serving import eviction
from controllers.serving.decisions import Why, Witness
from controllers.serving.limits import EngineLimits
from controllers.serving.messages import Row
from controllers.serving.pages import HOLE, PagePool
from controllers.serving.prefix import publish, shareable
from controllers.serving.request import Sequence, Status
from controllers.serving.retained import Retained

Score = Callable[[Seq[Sequence], int], list[float]]  # sequences, now_ns -> priorities
Grants = dict[int, tuple[Sequence, int]]  # request id -> sequence, tokens to compute; in row order


class Scheduler:
    """Continuous batching over one page pool with recompute preemption.

    The order is (-priority, arrival, id). ``score`` is called only when a decision is open:
    someone waits and a slot is free or a quantum has expired, or pages are short. Semantics and
    invariants: this folder's README.
    """

    def __init__(
        self, limits: EngineLimits, *, quantum_tokens: int | None, reserves: bool, score: Score
    ) -> None:
        self.limits = limits
        self.pool = PagePool(limits.n_pages)
        self.retained = Retained(limits) if limits.keeps_preempted else None
        self.waiting: dict[int, Sequence] = {}
        self.running: dict[int, Sequence] = {}  # in order of admission
        self.reserved: int | None = None  # the blocked head nobody may pass
        self._quantum = math.inf if quantum_tokens is None else quantum_tokens
        self._reserves = reserves
        self._score = score
        self.witness: Witness | None = None  # who is told why

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence; it must hold nothing."""
        assert sequence.status is Status.WAITING
        assert not sequence.pages
        if self.retained is not None and sequence.page_hashes:
            raise ValueError("limits.keeps_preempted allows no page_hashes")
        self.waiting[sequence.request.request_id] = sequence

    def remove(self, sequence: Sequence) -> None:
        """Finish a sequence wherever it is and free its pages."""
        request_id = sequence.request.request_id
        self.waiting.pop(request_id, None)
        self.running.pop(request_id, None)
        if self.retained is not None:
            self.retained.left(sequence)
        self._free_pages(sequence)
        sequence.move(Status.FINISHED)
        if self.reserved == request_id:
            self.reserved = None

    def schedule(self, now_ns: int) -> tuple[Grants, tuple[int, ...]]:
        """Decide one step: tokens per sequence in row order, and who was preempted."""
        preempted = self._grow(now_ns)
        grants, budget = self._continue_residents()
        if not preempted and self.waiting:
            preempted = self._admit(grants, budget, now_ns)
        return grants, tuple(preempted)

    def settle(
        self,
        sequence: Sequence,
        row: Row,
        evicted: Mapping[int, tuple[int, ...]],
        *,
        failed: bool = False,
    ) -> int:
        """Publish the prompt pages a row has filled, free those it gave up; return how many.

        A failed request's prompt is hidden instead: what made it fail may be in its pages.
        """
        if failed:
            self.pool.withdraw(sequence.page_hashes[: sequence.published])
            return 0
        publish(sequence, self.pool, self.limits.page_tokens)
        chosen = evicted.get(row.request_id, ())
        return eviction.apply(sequence, chosen, row, self.pool) if chosen else 0

    def check(self) -> None:
        """Assert conservation of pages and the limits (INV-1, INV-3)."""
        self.pool.check()
        assert len(self.running) <= self.limits.max_seqs, "more residents than slots"
        assert self.reserved is None or self.reserved in self.waiting, "reservation of nobody"
        holders: Counter[int] = Counter()
        for sequence in self.running.values():
            assert sequence.status is Status.RUNNING, f"{sequence} is among the residents"
            room = len(sequence.pages) * self.limits.page_tokens
            assert sequence.computed <= room, f"{sequence} has computed past its pages"
            own = [page for page in sequence.pages if page != HOLE]
            assert len(own) == sequence.held, f"{sequence} has miscounted its holes"
            holders.update(own)
        held = len(holders)
        assert held == self.pool.n_held, f"residents hold {held} pages, pool {self.pool.n_held}"
        for page, count in holders.items():
            references = self.pool.references(page)
            assert references == count, f"page {page}: {references} references, {count} holders"
        for sequence in self.waiting.values():
            assert sequence.status is Status.WAITING, f"{sequence} is among the waiting"
            assert not sequence.pages, f"{sequence} waits with pages"
            assert sequence.computed == 0, f"{sequence} waits with computed tokens"

    def _grow(self, now_ns: int) -> list[int]:
        """Give a page to each decode row at a page boundary; preempt from below if short."""
        page_tokens = self.limits.page_tokens
        needy = [
            s
            for s in self.running.values()
            if s.computed >= len(s.pages) * page_tokens and s.decoding
        ]
        if len(needy) <= self.pool.n_free:
            for sequence in needy:
                self.pool.extend(sequence.pages)
            return []
        residents = list(self.running.values())
        scores = self._score(residents, now_ns)
        ranked = sorted(zip(scores, residents, strict=True), key=lambda pair: _key(*pair))
        survivors = [sequence for _, sequence in ranked]
        wanting = {s.request.request_id for s in needy}
        preempted: list[int] = []
        rank = 0
        while rank < len(survivors):  # descending priority: the first always gets its page
            sequence = survivors[rank]
            if sequence.request.request_id in wanting:
                while sequence.status is Status.RUNNING and not self.pool.extend(sequence.pages):
                    lowest = survivors.pop()
                    self._tell(Why.SHORTAGE, lowest, sequence)
                    self._preempt(lowest, now_ns)
                    preempted.append(lowest.request.request_id)
            rank += 1
        return preempted

    def _continue_residents(self) -> tuple[Grants, int]:
        budget = self.limits.token_budget
        grants: Grants = {}
        prefilling: list[Sequence] = []
        for request_id, sequence in self.running.items():
            done = sequence.generated
            if done and sequence.request.prompt_tokens + done - sequence.computed == 1:  # decodes
                grants[request_id] = (sequence, 1)
            else:
                prefilling.append(sequence)
        budget -= len(grants)
        for sequence in prefilling:
            n_tokens = min(sequence.pending, budget)
            if n_tokens > 0:
                grants[sequence.request.request_id] = (sequence, n_tokens)
                budget -= n_tokens
        return grants, budget

    def _admit(self, grants: Grants, budget: int, now_ns: int) -> list[int]:
        """Admit in order while the head fits; displace expired residents of lower priority."""
        expired = [s for s in self.running.values() if s.quantum_used >= self._quantum]
        slot_free = len(self.running) < self.limits.max_seqs
        if not expired and not (slot_free and budget > 0):
            self._tell(Why.NO_TOKENS if slot_free else Why.NO_SLOT)
            return []
        pinned = None if self.reserved is None else self.waiting[self.reserved]
        if pinned is not None and not expired and not self._fits(pinned):
            self._tell(Why.PINNED_SHORT, pinned)
            return []
        if pinned is not None:
            self._tell(Why.PINNED, pinned)
        candidates = [*self.waiting.values(), *expired]
        scores = self._score(candidates, now_ns)
        queue = [
            (s is not pinned, *_key(score, s))
            for score, s in zip(scores[: len(self.waiting)], candidates, strict=False)
        ]
        expired_scores = list(zip(scores[len(self.waiting) :], expired, strict=True))
        heapq.heapify(queue)
        displaced: list[int] = []
        while queue:
            _, negative, _, request_id = heapq.heappop(queue)
            head = self.waiting[request_id]
            if not self._fits(head):
                victims = self._victims(head, -negative, expired_scores)
                if not victims:
                    slot_free = len(self.running) < self.limits.max_seqs
                    self._tell(Why.HEAD_SHORT if slot_free else Why.HEAD_NO_SLOT, head)
                    if self._reserves and slot_free:
                        self.reserved = request_id
                    break
                for victim in victims:
                    victim_id = victim.request.request_id
                    self._tell(Why.DISPLACED, victim, head)
                    self._preempt(victim, now_ns)
                    budget += grants.pop(victim_id)[1]
                    displaced.append(victim_id)
                expired_scores = [
                    pair for pair in expired_scores if pair[1].status is Status.RUNNING
                ]
            if budget <= 0:
                self._tell(Why.NO_TOKENS)
                break
            self._tell(Why.ADMITTED, head)
            self._start(head)
            grants[request_id] = (head, min(head.pending, budget))
            budget -= grants[request_id][1]
        return displaced

    def _victims(
        self, head: Sequence, priority: float, expired: list[tuple[float, Sequence]]
    ) -> list[Sequence]:
        """Return expired residents of strictly lower priority, lowest first, just enough."""
        needed, room = self._pages_to_start(head), self.pool.n_free
        found = set(self._shareable(head))
        dropped: Counter[int] = Counter()
        victims: list[Sequence] = []
        for score, sequence in sorted(expired, key=lambda pair: _key(*pair), reverse=True):
            if score >= priority:
                break
            victims.append(sequence)
            own = [page for page in sequence.pages if page != HOLE]
            dropped.update(own)
            freed = [page for page in own if dropped[page] == self.pool.references(page)]
            room += len(freed)
            needed += len(found.intersection(freed))  # shared so far, and then taken from the free
            if room >= needed:
                return victims
        return []

    def _fits(self, sequence: Sequence) -> bool:
        free_slot = len(self.running) < self.limits.max_seqs
        return free_slot and self._pages_to_start(sequence) <= self.pool.n_free

    def _pages_to_start(self, sequence: Sequence) -> int:
        """Free pages that admission takes; a shared page that somebody holds takes none.

        They cover the whole known length and the next token, so that a prefill cannot deadlock.
        """
        held = sum(self.pool.references(page) > 0 for page in self._shareable(sequence))
        return self.limits.pages_for(sequence.known + 1) - held

    def _shareable(self, sequence: Sequence) -> list[int]:
        return shareable(sequence, self.pool, self.limits.page_tokens)

    def _start(self, sequence: Sequence) -> None:
        request_id = sequence.request.request_id
        kept = 0 if self.retained is None else self.retained.found(sequence, self.pool.n_free)
        shared = self._shareable(sequence)
        self.pool.share(shared)  # first, so that allocation cannot reclaim them
        pages = self.pool.allocate(self.limits.pages_for(sequence.known + 1) - len(shared))
        assert pages is not None, "started without room"
        del self.waiting[request_id]
        sequence.pages = shared + pages
        sequence.published = len(shared)
        sequence.computed = sequence.found = kept or len(shared) * self.limits.page_tokens
        sequence.quantum_used = 0
        sequence.move(Status.RUNNING)
        self.running[request_id] = sequence
        if self.reserved == request_id:
            self.reserved = None

    def _preempt(self, sequence: Sequence, now_ns: int) -> None:
        """Send a resident back to wait; its wait restarts only if it had its full quantum."""
        request_id = sequence.request.request_id
        del self.running[request_id]
        if self.retained is not None:
            self.retained.preempted(sequence)
        self._free_pages(sequence)
        if sequence.quantum_used >= self._quantum:
            sequence.wait_since_ns = now_ns
        sequence.preemptions += 1
        sequence.move(Status.WAITING)
        self.waiting[request_id] = sequence

    def _tell(self, why: Why, about: Sequence | None = None, other: Sequence | None = None) -> None:
        if self.witness is not None:
            needs = 0 if about is None else self._pages_to_start(about)
            self.witness.told(why, about, other, needs)

    def _free_pages(self, sequence: Sequence) -> None:
        self.pool.free(page for page in sequence.pages if page != HOLE)
        sequence.pages = []
        sequence.holes = sequence.published = sequence.computed = 0


def _key(score: float, sequence: Sequence) -> tuple[float, int, int]:
    """Order by falling priority, then arrival, then id: total, so that ties never differ."""
    return (-score, sequence.arrival_ns, sequence.request.request_id)
