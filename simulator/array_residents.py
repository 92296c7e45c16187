"""Who is on an array replica: residents as sums on the timeline.

The serving loop is the definition. While no decision is open, no sequence is brought up to date.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from heapq import heappop, heappush

import numpy as np

from controllers.core import LoadSignal, require
from controllers.law_graph import traced
from controllers.presets import Preset
from controllers.priority import Fcfs
from controllers.serving.admission import Oracle, check_oracle, check_request, true_tokens
from controllers.serving.ledger import Ledger
from controllers.serving.limits import EngineLimits
from controllers.serving.load import LoadSensors
from controllers.serving.request import Request, Sequence
from controllers.steplaw import StepLaw
from simulator.array_board import Board
from simulator.array_books import Books
from simulator.array_laws import CalledLaws
from simulator.array_life import Contexts, Life, TrajectorySource
from simulator.array_parts import (
    ArrayScheduler,
    BatchedService,
    NoService,
    ScannedCollapse,
    fields_read,
)
from simulator.array_ranking import Scoring
from simulator.array_timeline import END, PAGES, Timeline
from simulator.server import Window

Heap = list[tuple[int, int, Life]]  # step, order of admission (which tells stale entries), life


class Residents:
    """Requests of one replica, waiting and resident, between the steps of an engine."""

    def __init__(
        self,
        limits: EngineLimits,
        preset: Preset,
        step_law: StepLaw,
        trajectories: TrajectorySource,
        *,
        units_per_page: int,
        ledger: Ledger,
        lowest_coverage: float,
        oracle: Oracle | None,
    ) -> None:
        check_oracle(preset.priority, oracle)
        require(
            preset.kv_budget_pages is None,
            "an array replica evicts no pages",
            kv_budget_pages=preset.kv_budget_pages,
        )
        self.limits = limits
        self.step_law = step_law
        self.lives: dict[int, Life] = {}  # unfinished, in order of submission
        self.joined: dict[int, Life] = {}  # residents in a run, in order of admission
        self.prefilling: dict[int, Life] = {}  # the other residents, likewise
        self.prefill_pages = 0  # that these hold
        self.outstanding = 0  # tokens left to compute if everybody ran to its cap
        self.step = 0  # steps taken in
        self.timeline = Timeline()
        self.books = Books(
            ledger,
            self.timeline,
            trajectories,
            lowest_coverage=lowest_coverage,
            longest=limits.max_context,
        )
        self.scheduler = ArrayScheduler(
            limits,
            quantum_tokens=preset.quantum_tokens,
            reserves=preset.priority.reserves,
            score=self._score,
        )
        self._pool = self.scheduler.pool
        self._load = LoadSensors(preset, limits, step_law, oracle)
        asked = fields_read(preset.priority)
        self.service = BatchedService() if "client_service" in asked else NoService()
        self._load.service, self._load.asked = self.service, asked
        self._load.collapse = ScannedCollapse(
            preset.collapse_prior_nats,
            preset.collapse_prior_weight,
            self._collapse,
        )
        self._trajectories = trajectories
        # Where nothing is known ahead, the laws are to be called at every step.
        self.laws = trajectories if isinstance(trajectories, CalledLaws) else None
        context = np.arange(limits.max_context + 1)
        pages = -(-context // limits.page_tokens)
        units = pages * units_per_page
        self._contexts = Contexts(np.stack([context, units]) * 1.0, np.stack([units, pages]))
        self.units_per_page = units_per_page
        self.quantum = preset.quantum_tokens
        self._reserves = preset.priority.reserves
        # What a law without state says of nobody else's business need not be asked.
        self._law = preset.priority
        self._stateless = preset.priority.init(_nobody()) == ()
        graph = traced(self._law, LoadSignal) if self._stateless else None
        self._scoring = None if graph is None else Scoring(graph)
        self._by_arrival = isinstance(preset.priority, Fcfs) and preset.quantum_tokens is None
        self._asks_served = "served_s" in asked
        self._bank = None if self._stateless else self._load.bank
        self.board = Board(preset, limits, step_law, self._load)
        self._admissions = 0
        self._finish: Heap = []  # step of the last token
        self._expiry: Heap = []  # first plan at which the quantum is used up
        self._expired: dict[int, Life] = {}

    @property
    def plan_number(self) -> int:
        """Plans made before the next one, or the one in flight."""
        return self.step + self.books.plans_ahead

    def submit(
        self, request: Request, now_ns: int, window: Window | None, done: int, planned: int
    ) -> Life:
        """Queue a request after ``done`` steps and ``planned`` plans."""
        if self._too_long(request):
            check_request(request, self.limits)  # says why
        true_tokens(self._load.oracle, request.request_id)
        ledger = self.books.ledger
        ledger.step_count = done
        ledger.submitted(request.request_id, request.prompt_tokens, request.max_tokens, now_ns)
        sequence = Sequence(request=request, arrival_ns=now_ns)
        sequence.restart_wait(now_ns, planned)
        life = Life(sequence, window, len(ledger.reasons) - 1, done)
        self.lives[request.request_id] = life
        if life.imported:
            self.scheduler.imported[request.request_id] = sequence.known - 1
        self.scheduler.add(sequence)
        self.board.add(sequence)
        self.service.settle(done)
        self.service.arrive(sequence)
        self.outstanding += life.outstanding
        return life

    def _too_long(self, request: Request) -> bool:
        length, limits = request.prompt_tokens + request.max_tokens, self.limits
        return length > limits.max_context or limits.pages_for(length) > limits.n_pages

    def script(self, life: Life) -> np.ndarray:
        """Return what each token of a life adds to a step."""
        if life.block is None:
            trajectory = self._trajectories.of(life.request_id)
            return life.script(trajectory, self._contexts)
        return life.block

    def disable(self, life: Life, first_token: int) -> None:
        """Switch control off from a token on; what is to come is written anew."""
        trajectory = self._trajectories.disable(life.request_id, first_token)
        life.collapse = None
        if life.block is not None:
            life.script(trajectory, self._contexts)

    def join(self, life: Life) -> None:
        """Let a life that has just given the first token of a run go on from the next step."""
        step, block = self.step, life.block
        assert block is not None, "a run without a script"
        left = life.end - life.run_token - 1
        if step + left > self.timeline.limit:
            self.make_room(step + left)
        self.timeline.add(step, block[:, life.run_token + 1 :])
        heappush(self._finish, (step + left - 1, life.order, life))
        if self.quantum is not None:
            heappush(self._expiry, (life.run_step + self.quantum, life.order, life))
        self.joined[life.request_id] = life
        self.service.begin(life.sequence.request.client, step)

    def leave(self, life: Life, now_ns: int, reason: str) -> None:
        """Let a life go, wherever it is; what it would have added is the caller's to take back."""
        if life.run_step >= 0:
            self.books.book(life, self.step)
        request_id, sequence = life.request_id, life.sequence
        pages = 0
        if self.joined.pop(request_id, None) is not None:
            pages = 0 if self.scheduler.retained is None else self._pages(life)
            self.service.end(sequence.request.client, self.step)
            self._expired.pop(request_id, None)
        elif self.prefilling.pop(request_id, None) is not None:
            self.prefill_pages -= life.held
            pages = life.held
        else:
            self.board.remove(request_id)
        if self.scheduler.retained is not None:
            sequence.pages = list(range(pages))  # of which the scheduler counts those freed
        life.order = -1
        self.scheduler.imported.pop(request_id, None)
        self.scheduler.remove(sequence)
        del self.lives[request_id]
        self._load.leave(sequence)
        self.books.close(life, now_ns, reason)

    def _pages(self, life: Life) -> int:
        """Return the pages that a life in a run held in the step before the present one."""
        assert life.block is not None, "a run without a script"
        return life.block[PAGES].item(life.run_token + self.step - life.run_step - 1)

    def tail(self, life: Life) -> np.ndarray:
        """Return what a life in a run adds from the present step on."""
        assert life.block is not None, "a run without a script"
        return life.block[:, life.run_token + self.step - life.run_step : life.end]

    def make_room(self, upto: int) -> None:
        """Write down and forget the past, but for what runs still need of it."""
        self.books.flush(self.step)
        oldest = min([life.run_step for life in self.joined.values()], default=self.step)
        self.timeline.make_room(upto, min(oldest, self.step - 1) if self.step else 0)

    def next_finish(self) -> int:
        """Return the step in which the next resident gives its last token."""
        heap = self._finish
        while heap[0][2].order != heap[0][1]:
            heappop(heap)
        return heap[0][0]

    def finished(self) -> list[Life]:
        """Take out who gave its last token in the step before the present one."""
        heap, found = self._finish, []
        while heap and heap[0][0] < self.step:
            _, order, life = heappop(heap)
            if life.order == order:
                found.append(life)
        return found

    def _sync(self, life: Life, *, grown: bool) -> None:
        """Bring the sequence of a life in a run up to date, its wait included."""
        life.sync(self.step, self.limits.page_tokens, self._pool, grown=grown)
        if self.quantum is not None:
            full = life.sequence.quantum_used // self.quantum * self.quantum
            if full:
                at = life.run_step + full - 1
                end_ns = self.timeline.rows[END].item(at - self.timeline.base)
                life.sequence.restart_wait(end_ns, at + self.books.plans_ahead + 1)

    def _collapse(self, request_id: int) -> tuple[float, int]:
        """Return the falls of entropy of a request so far, and over how many tokens."""
        life = self.lives[request_id]
        generated, laws = life.sequence.generated, self.laws
        if laws is None and generated > 1 and life.collapse is not None:
            total, seen = life.collapse
            if seen is None:  # every entropy is finite, as is usual
                return total.item(generated - 2), generated
        if generated and life.trajectory is None:
            self.script(life)
        if laws is not None and generated:
            laws.settle(request_id, generated)
            life.collapse = None  # it knows only the tokens that were settled then
        return life.collapse_after(generated)

    def _serve(self, life: Life) -> None:
        """Bring the attained service of a life up to date, where the law looks at it."""
        if self._asks_served:
            life.serve(self.step_law)

    def _score(self, sequences: Seq[Sequence], now_ns: int) -> list[float]:
        if self._by_arrival or (self._stateless and len(sequences) == 1):
            return [0.0] * len(sequences)  # the scheduler orders equals by arrival
        self.service.settle(self.step)
        if self._asks_served:
            for sequence in sequences:
                self._serve(self.lives[sequence.request.request_id])
        if not self._stateless:
            return self._load.priorities(sequences, now_ns, self.plan_number)
        signal = self._load.read(sequences, now_ns, self.plan_number)
        if self._scoring is not None:
            found = self._scoring.of(signal)
        else:
            with np.errstate(invalid="ignore", over="ignore"):
                _, found = self._law.update((), signal)
        return np.where(np.isfinite(found), found, -np.inf).tolist()


def _nobody() -> LoadSignal:
    return LoadSignal(*(np.zeros(0, np.float32) for _ in LoadSignal._fields))
