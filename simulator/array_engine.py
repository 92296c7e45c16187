"""Steps of an array replica: what the serving loop and the executor would do, many at a time."""

from __future__ import annotations

import dataclasses
from bisect import bisect_left

import numpy as np

from controllers.serving.ledger import CANCELLED
from controllers.serving.watchdog import Watchdog
from simulator.array_decisions import Decisions
from simulator.array_life import Chunk, Life
from simulator.array_pricing import Pricer
from simulator.array_timeline import END, GIVEN, PAGES, PREEMPTED, PROMPT
from simulator.array_watch import Unfinished

MOST_STEPS = 256  # of a stretch: an arrival may cut it, and what lay behind was priced in vain


class Engine:
    """Plans a stretch of steps, and takes its end in; calls alternate, as those of the loop."""

    def __init__(self, residents: Decisions, *, macro: bool, livelock_plans: int) -> None:
        self.residents = residents
        self.in_flight = 0  # steps planned and not taken in
        self.end_ns = 0  # when the last of them ends
        self.deaf = False  # no newcomer can matter while these run
        self._macro = macro
        self._pricer = Pricer(residents)
        self._watchdog = Watchdog(livelock_plans, residents.limits)
        self._unfinished = Unfinished(residents.lives)
        self._started_ns = 0  # when the present step began
        self._chunks: list[Chunk] = []
        self._full = False  # each step in flight computes a chunk like the only one of ``_chunks``

    def plan(self, now_ns: int) -> int:
        """Plan from ``now_ns`` on, somebody being here; return when the stretch ends."""
        here, limits = self.residents, self.residents.limits
        while True:
            step, timeline = here.step, here.timeline
            if step >= timeline.limit:
                here.make_room(step + 1)
            at = step - timeline.base
            short = here.prefill_pages + timeline.rows[PAGES].item(at) > limits.n_pages
            preempted = len(here.relieve(now_ns)) if short else 0
            chunks, budget = self._continue(limits.token_budget - len(here.joined))
            closed = not preempted
            if closed and here.scheduler.waiting:
                preempted, admitted, closed = here.consider(now_ns, budget)
                chunks.extend(admitted)
            if chunks or here.joined:
                break
            self.barren()
        if chunks and not here.joined:  # else a decode row gives a token
            gives = any(chunk.n_tokens == chunk.life.sequence.pending for chunk in chunks)
            self._watchdog.watch(len(chunks), self._unfinished, gives_token=gives)
        else:
            self._watchdog.watch(1, ())
        self._started_ns, self._chunks, self._full = now_ns, chunks, False
        if preempted:
            timeline.rows[PREEMPTED][at] = preempted
        self.deaf, self.in_flight = False, 1
        if here.laws is not None:
            samples = [c.life for c in chunks if c.n_tokens == c.life.sequence.pending]
            here.laws.advance(here.joined, samples, timeline.cells[:, at])
        if not chunks:
            if self._macro and (closed or not here.scheduler.waiting):
                self.in_flight = self._steps_to_event()
            self.end_ns = self._pricer.decode(at, now_ns, self.in_flight)
            self.deaf = here.deaf()
        elif self._macro and self._fills(chunks):
            self.in_flight = self._steps_to_event(most=chunks[0].spare)
            self.end_ns = self._pricer.full(at, now_ns, chunks[0], self.in_flight)
            self._full, self.deaf = True, here.quantum is None
        else:
            self.end_ns = self._pricer.mixed(at, now_ns, chunks)
        return self.end_ns

    def barren(self) -> None:
        """Count a plan that computes nothing."""
        here = self.residents
        here.books.flush(here.step)
        here.books.plans_ahead += 1
        self._watchdog.watch(0, self._unfinished)

    def observe(self) -> list[Life]:
        """Take in all steps in flight; return who gave its last token, in the order of rows."""
        here = self.residents
        self._take_in(self.in_flight)
        ending = here.finished()
        if self._chunks and not self._full:
            last = [
                (0 if chunk.decoding else 1, chunk.life.order, chunk.life)
                for chunk in self._chunks
                if chunk.life.request_id in here.prefilling and self._computed(chunk, self.end_ns)
            ]
            if last:
                rows = [*((0, life.order, life) for life in ending), *last]
                ending = [life for _, _, life in sorted(rows, key=lambda row: row[:2])]
        for life in ending:
            here.outstanding -= 1 + life.cap - life.end
        return ending

    def done(self, now_ns: int) -> int:
        """Return how many of the steps in flight ended before ``now_ns``."""
        if self.in_flight < 2:
            return 0
        timeline = self.residents.timeline
        at = self.residents.step - timeline.base
        return bisect_left(timeline.rows[END], now_ns, at, at + self.in_flight) - at

    def step_ends_ns(self, now_ns: int) -> int | None:
        """Return when the step under way ends; None if none is."""
        return self._end_of(self.done(now_ns) + 1) if self.in_flight else None

    def catch_up(self, now_ns: int) -> None:
        """Take in the steps that ended before ``now_ns``."""
        done = self.done(now_ns)
        if done:
            self._take_in(done)

    def cut(self, now_ns: int) -> bool:
        """End the stretch with the step that is under way; return whether it was longer."""
        self.catch_up(now_ns)
        if self.in_flight < 2:
            return False
        if self._chunks:  # all the same, and the first one stays
            here, step = self.residents, self.residents.step
            behind = slice(
                step + 1 - here.timeline.base, step + self.in_flight - here.timeline.base
            )
            here.timeline.rows[PAGES][behind] -= here.prefill_pages
            here.timeline.rows[PROMPT][behind] = 0
        self.in_flight = 1
        self.end_ns = self._end_of(1)
        return True

    def outstanding(self, now_ns: int) -> int:
        """Return the tokens left to compute if everybody ran to its cap."""
        here, done = self.residents, self.done(now_ns)
        per_step = len(here.joined) + (self._chunks[0].n_tokens if self._full and done else 0)
        return here.outstanding - done * per_step

    def pages_held(self, now_ns: int) -> int:
        """Return the pages of the pool that somebody holds."""
        if not self.in_flight:
            return 0
        timeline = self.residents.timeline
        at = self.residents.step + self.done(now_ns) - timeline.base
        return timeline.rows[PAGES].item(at)

    def cancel(self, life: Life, now_ns: int) -> None:
        """Drop a life, one step at most being in flight: its row of it is not taken in."""
        here = self.residents
        row = here.timeline.rows[PAGES]
        at = here.step - here.timeline.base
        if life.request_id in here.joined:
            tail = here.tail(life)
            here.timeline.subtract(here.step + 1, tail[:, 1:])
            row[at] -= tail[PAGES, 0]
            here.outstanding -= 1 + life.cap - (life.end - tail.shape[1])
            if not here.books.ledger.record_tokens:
                here.timeline.rows[GIVEN][at] -= 1
        else:
            here.outstanding -= life.outstanding
            if life.request_id in here.prefilling:
                row[at] -= life.held
        here.leave(life, now_ns, CANCELLED)

    def disable(self, life: Life) -> None:
        """Switch control off after the step in flight, if any; there is one at most."""
        here = self.residents
        sequence = life.sequence
        sequence.request = dataclasses.replace(sequence.request, enabled=False)
        joined = life.request_id in here.joined
        if joined:
            tail = here.tail(life)
            here.timeline.subtract(here.step + 1, tail[:, 1:])
            first = life.end - tail.shape[1] + 1
        else:
            samples = any(
                chunk.life is life and chunk.n_tokens == sequence.pending for chunk in self._chunks
            )
            first = sequence.generated + (samples and self.in_flight > 0)
        here.disable(life, first)
        if joined:
            here.timeline.add(here.step + 1, here.tail(life)[:, 1:])

    def _end_of(self, steps: int) -> int:
        timeline = self.residents.timeline
        return timeline.rows[END].item(self.residents.step + steps - 1 - timeline.base)

    def _take_in(self, steps: int) -> None:
        here = self.residents
        if self._full and self._chunks[0].life.request_id in here.prefilling:
            self._compute_full(steps)
        here.step += steps
        here.outstanding -= steps * len(here.joined)
        self.in_flight -= steps

    def _continue(self, budget: int) -> tuple[list[Chunk], int]:
        """Give each resident outside of runs what is left of the budget, decode rows first."""
        prefilling = self.residents.prefilling
        if not prefilling:
            return [], budget
        chunks, others = [], []
        for life in prefilling.values():
            if life.sequence.decoding:
                chunks.append(Chunk(life, 1, True))
                budget -= 1
            else:
                others.append(life)
        for life in others:
            n_tokens = min(life.sequence.pending, budget)
            if n_tokens > 0:
                chunks.append(Chunk(life, n_tokens, False))
                budget -= n_tokens
        return chunks, budget

    def _fills(self, chunks: list[Chunk]) -> bool:
        """Whether one prefill takes the budget of this step, and more like it are to come."""
        left = self.residents.limits.token_budget - len(self.residents.joined)
        return len(chunks) == 1 and chunks[0].n_tokens == left and chunks[0].spare > 0

    def _compute_full(self, steps: int) -> None:
        """Advance a life by a full chunk in each of ``steps`` steps."""
        here, (life, n_tokens, _) = self.residents, self._chunks[0]
        sequence, step = life.sequence, here.step
        here.books.served(life, step, self._started_ns, self._end_of(1))
        life.last_step = step + steps
        life.last_ns = self._started_ns = self._end_of(steps)
        for _ in range(steps):
            life.chunks.append((sequence.computed, n_tokens))
            sequence.computed += n_tokens
        here.outstanding -= steps * n_tokens

    def _computed(self, chunk: Chunk, end_ns: int) -> bool:
        """Advance a life by its chunk; return whether that gave its last token."""
        life, n_tokens, decoding = chunk
        here, sequence, books = self.residents, chunk.life.sequence, self.residents.books
        step = here.step - 1
        books.served(life, step, self._started_ns, end_ns)
        life.chunks.append((sequence.computed, 0 if decoding else n_tokens))
        sequence.computed += n_tokens
        here.outstanding -= n_tokens
        if sequence.pending > 0:
            return False
        here.script(life)
        token = sequence.generated
        life.run_step, life.run_token, life.run_coverage = step, token, 1.0
        if decoding:
            assert life.trajectory is not None, "a decode row without a trajectory"
            life.run_coverage = float(life.trajectory.coverage[token])
            life.coverage_sum += life.run_coverage
            life.coverage_rows += 1
        sequence.generated = token + 1
        sequence.quantum_used = 1
        here.service.token(sequence.request.client)
        books.sampled(life, end_ns)
        if token + 1 == life.end:
            return True
        del here.prefilling[life.request_id]
        here.prefill_pages -= life.held
        here.join(life)
        return False

    def _steps_to_event(self, *, most: int = MOST_STEPS) -> int:
        """Return the steps until a resident finishes, pages run short or a quantum is used up.

        The decision of the present step must stay closed until one of these, or somebody comes.
        """
        here = self.residents
        steps = min(here.next_finish() - here.step + 1, most) if here.joined else most
        if here.quantum and here.scheduler.waiting:
            steps = max(1, min(steps, here.next_expiry() - here.step))
        at = here.step - here.timeline.base
        if at + steps > here.timeline.rows[PAGES].size:
            steps = here.timeline.rows[PAGES].size - at
        pages, most_pages = here.timeline.rows[PAGES], here.limits.n_pages - here.prefill_pages
        if pages.item(at + steps - 1) > most_pages:  # they only grow until one leaves
            steps = int(np.searchsorted(pages[at : at + steps], most_pages, "right"))
        return steps
