"""Open decisions of an array replica: who goes for want of pages, who enters, who is displaced.

Where somebody may be displaced or pages are short, the loop's scheduler decides on sequences
brought up to date. Where nobody can be, admission is a walk down the ranked queue.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop

from controllers.serving.request import Sequence
from controllers.serving.scheduler import Grants
from simulator.array_life import Chunk, Life
from simulator.array_residents import Residents
from simulator.array_timeline import PAGES

NEVER = 2**62  # steps


class Decisions(Residents):
    """Residents, and how they come and go other than by finishing."""

    def relieve(self, now_ns: int) -> list[int]:
        """Preempt until every decode row has its page; return who went."""
        for life in self.joined.values():
            self._sync(life, grown=False)
        before = {i: life.outstanding for i, life in self.prefilling.items()}
        running = self.scheduler.running.values()
        self._pool.n_free = self.limits.n_pages - sum(len(s.pages) for s in running)
        preempted = self.scheduler.grow(now_ns)
        for request_id in preempted:
            life = self.lives[request_id]
            if request_id in before:
                del self.prefilling[request_id]
                self.prefill_pages -= life.held
                self.outstanding += life.outstanding - before[request_id]
                self._preempted(life, now_ns)
            else:
                self._drop(life, now_ns)
        return preempted

    def consider(self, now_ns: int, budget: int) -> tuple[int, list[Chunk], bool]:
        """Decide who enters, somebody waiting and ``budget`` tokens being left.

        Return how many were displaced, who was admitted with how many tokens and whether that is
        a decode row, and whether the decision stays closed until somebody leaves.
        """
        scheduler = self.scheduler
        if self.quantum is not None:
            self._expire()
        expired = self._expired
        slot_free = len(scheduler.running) < self.limits.max_seqs
        if not expired and not (slot_free and budget > 0):
            return 0, [], True
        held = self.timeline.rows[PAGES].item(self.step - self.timeline.base)
        free = self.limits.n_pages - self.prefill_pages - held
        if not expired and self._nobody_fits(free):
            return 0, [], True
        for life in expired.values():
            self._sync(life, grown=True)
        self._pool.n_free = free
        if not expired:
            admitted = self._admit(free, budget, now_ns)
            return 0, admitted, not slot_free or scheduler.reserved is not None
        grants: Grants = {i: (life.sequence, 1) for i, life in expired.items()}
        before = set(grants)
        displaced = scheduler.admit(grants, budget, now_ns)
        for request_id in displaced:
            self._drop(self.lives[request_id], now_ns)
        admitted = [
            self._enter(self.lives[i], sequence, n_tokens)
            for i, (sequence, n_tokens) in grants.items()
            if i not in before
        ]
        return len(displaced), admitted, False

    def deaf(self) -> bool:
        """Whether no newcomer can matter until somebody leaves or a quantum runs out."""
        scheduler = self.scheduler
        full = len(scheduler.running) >= self.limits.max_seqs
        if self.quantum is not None and not scheduler.waiting:
            return False  # then nobody looked when the next quantum runs out
        return full or scheduler.reserved is not None

    def next_expiry(self) -> int:
        """Return the first plan that finds a quantum used up; the present one if it does."""
        if self._expired:
            return self.step
        heap = self._expiry
        while heap and heap[0][2].order != heap[0][1]:
            heappop(heap)
        return heap[0][0] if heap else self.step + NEVER

    def _nobody_fits(self, free: int) -> bool:
        """Whether it is plain, without asking the law, that nobody enters."""
        scheduler = self.scheduler
        if scheduler.reserved is not None:
            return scheduler.pages_to_start(scheduler.waiting[scheduler.reserved]) > free
        if self._reserves or not self._stateless:
            return False
        return self.limits.pages_for(self.board.fewest_known() + 1) > free

    def _admit(self, free: int, budget: int, now_ns: int) -> list[Chunk]:
        """Admit in order while the head fits, as the scheduler does when nobody may be displaced.

        One request at least waits, a slot is free and so is budget.
        """
        scheduler, admitted = self.scheduler, []
        waiting, slots = scheduler.waiting, self.limits.max_seqs - len(scheduler.running)
        pinned = None if scheduler.reserved is None else waiting[scheduler.reserved]
        for head in self._heads(pinned, now_ns):
            needed = scheduler.pages_to_start(head)
            if not slots or needed > free:
                if self._reserves and slots:
                    scheduler.reserved = head.request.request_id
                break
            if budget <= 0:
                break
            scheduler.start(head)
            n_tokens = min(head.pending, budget)
            budget, slots, free = budget - n_tokens, slots - 1, free - needed
            admitted.append(self._enter(self.lives[head.request.request_id], head, n_tokens))
        return admitted

    def _heads(self, pinned: Sequence | None, now_ns: int) -> Iterator[Sequence]:
        """Yield who waits, the pinned one first, then as the law ranks them."""
        waiting = self.scheduler.waiting
        others = len(waiting) - (pinned is not None)
        if self._stateless and others <= 1:  # nobody to rank
            rest = [sequence for sequence in waiting.values() if sequence is not pinned]
            yield from rest if pinned is None else (pinned, *rest)
            return
        if self._by_arrival:
            ranked = self.board.by_arrival()
        else:
            self.service.settle(self.step)
            ranked = self.board.by_priority(self._bank, now_ns, self.plan_number)
        if pinned is not None:
            yield pinned
        yield from (sequence for sequence in ranked if sequence is not pinned)

    def _enter(self, life: Life, sequence: Sequence, n_tokens: int) -> Chunk:
        self._admissions += 1
        life.order = self._admissions
        life.imported = False
        self.board.remove(life.request_id)
        life.held = len(sequence.pages)
        self.prefill_pages += life.held
        self.prefilling[life.request_id] = life
        self.service.admit(sequence)
        if sequence.found:  # KV from before a preemption
            self.books.hit(life, sequence.found)
            self.outstanding -= sequence.found
            sequence.found = 0
        return Chunk(life, n_tokens, sequence.decoding)

    def _drop(self, life: Life, now_ns: int) -> None:
        """Take a preempted life off the timeline."""
        self.books.book(life, self.step)
        self.timeline.subtract(self.step, self.tail(life))
        self._serve(life)
        life.run_step = -1
        del self.joined[life.request_id]
        self._expired.pop(life.request_id, None)
        self.service.end(life.sequence.request.client, self.step)
        self.outstanding += life.sequence.known - 1
        self._preempted(life, now_ns)

    def _preempted(self, life: Life, now_ns: int) -> None:
        life.order = -1
        if life.sequence.wait_since_ns == now_ns:  # preempted after a full quantum
            life.sequence.restart_wait(now_ns, self.plan_number)
        self._serve(life)
        self.board.add(life.sequence)

    def _expire(self) -> None:
        heap = self._expiry
        while heap and heap[0][0] <= self.step:
            _, order, life = heappop(heap)
            if life.order == order:
                self._expired[life.request_id] = life
