"""The engine: the serving loop around a live model, in wall time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from backend.executor import LiveExecutor, Recorder
from backend.models import LoadedModel
from controllers.presets import Preset
from controllers.serving.ledger import Ledger
from controllers.serving.limits import EngineLimits
from controllers.serving.loop import ServingLoop, Sink
from controllers.serving.messages import Plan, Result
from controllers.serving.request import Request
from controllers.steplaw import StepLaw


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A request, its prompt ids, and when it arrives, in seconds after the start of the run."""

    request: Request
    prompt: tuple[int, ...]
    at_s: float = 0.0
    cancel_after_tokens: int | None = None  # the user hangs up once this many tokens came


@dataclass(frozen=True, slots=True)
class Generation:
    """What a finished request gave."""

    request: Request
    tokens: tuple[int, ...]  # stop token included
    reason: str  # "stop", "length", "cancelled" or why it failed


@dataclass(slots=True)
class Engine:
    """Drives a ``ServingLoop`` and a ``LiveExecutor``; the only place that reads the clock."""

    loaded: LoadedModel
    preset: Preset
    limits: EngineLimits
    step_law: StepLaw
    recorder: Recorder | None = None
    sink: Sink | None = None
    on_step: Callable[[Plan, Result], None] | None = None
    t_cal: float = 1.0
    ignore_stop: bool = False  # go on past stop tokens, for runs of fixed length
    loop: ServingLoop = field(init=False)
    executor: LiveExecutor = field(init=False)
    done: dict[int, Generation] = field(init=False, default_factory=dict)
    _start_ns: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        """Build the loop and allocate the cache."""
        self.loop = ServingLoop(
            self.limits, self.preset, self.step_law, sink=self.sink, t_cal=self.t_cal
        )
        self.executor = LiveExecutor(
            self.loaded,
            self.preset,
            self.limits,
            t_cal=self.t_cal,
            recorder=self.recorder,
            ignore_stop=self.ignore_stop,
        )
        self._start_ns = time.perf_counter_ns()

    @property
    def ledger(self) -> Ledger:
        """The run's ledger."""
        return self.loop.ledger

    def now_ns(self) -> int:
        """Return nanoseconds since the engine was made."""
        return time.perf_counter_ns() - self._start_ns

    def submit(
        self, request: Request, prompt: Sequence[int], *, arrived_ns: int | None = None
    ) -> None:
        """Queue a request; raise ``ValueError`` if it can never be served.

        ``arrived_ns`` is when it came, if that was before now (while a step ran): its waiting
        counts from there.
        """
        self.executor.add(request, prompt)
        try:
            self.loop.submit(request, self.now_ns() if arrived_ns is None else arrived_ns)
        except ValueError:
            self.executor.release(request.request_id)
            raise

    def cancel(self, request_id: int) -> None:
        """Stop a request now; what it generated so far is kept in ``done``."""
        if self.loop.cancel(request_id, self.now_ns()):
            self._collect(request_id)

    def disable(self, request_id: int) -> None:
        """Return a request to baseline control from its next step on (the kill switch)."""
        if self.loop.disable(request_id, self.now_ns()):
            self.executor.disable(request_id)

    def step(self) -> Result | None:
        """Plan, execute and observe one step; ``None`` when nothing can run."""
        plan = self.loop.plan(self.now_ns())
        if not plan.rows:
            return None
        result = self.executor.execute(plan, self.loop.pages(plan))
        finished = self.loop.observe(result, self.now_ns())
        if self.on_step is not None:
            self.on_step(plan, result)
        for request_id in finished:
            self._collect(request_id)
        return result

    def run(self, submissions: Sequence[Submission]) -> list[Generation]:
        """Serve ``submissions`` as they arrive; return generations in the order given."""
        due = sorted(submissions, key=lambda s: s.at_s, reverse=True)
        limits = {s.request.request_id: s.cancel_after_tokens for s in submissions}
        origin = self.now_ns()
        while due or self.loop.has_work:
            while due and origin + due[-1].at_s * 1e9 <= self.now_ns():
                arrived = due.pop()
                due_ns = origin + round(arrived.at_s * 1e9)
                self.submit(arrived.request, arrived.prompt, arrived_ns=due_ns)
            if self.step() is None and due:
                time.sleep(max(0.0, (origin + due[-1].at_s * 1e9 - self.now_ns()) / 1e9))
            self._hang_up(limits)
        return [self.done[s.request.request_id] for s in submissions]

    def _hang_up(self, limits: dict[int, int | None]) -> None:
        for request_id, sequence in list(self.loop.sequences.items()):
            limit = limits.get(request_id)
            if limit is not None and sequence.generated >= limit:
                self.cancel(request_id)

    def _collect(self, request_id: int) -> None:
        held = self.executor.live[request_id]
        tokens = tuple(self.executor.generated(request_id))
        reason = self.ledger.reasons[self.ledger.row_of[request_id]] or "unfinished"
        self.done[request_id] = Generation(held.request, tokens, reason)
        self.executor.release(request_id)
