"""The engine: the serving loop around a live model, in wall time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from backend.errors import EngineFault, RequestTooLong
from backend.executor import LiveExecutor, Recorder
from backend.models import LoadedModel
from backend.setup import check_memory
from backend.sparse import SparseAttention
from backend.stops import Reply
from backend.surprisal import PromptScore
from controllers.core import TokenSignal
from controllers.presets import Preset
from controllers.serving.admission import check_request
from controllers.serving.ledger import Ledger
from controllers.serving.limits import EngineLimits
from controllers.serving.loop import ServingLoop, Sink
from controllers.serving.messages import Plan, Result
from controllers.serving.prefix import page_hashes
from controllers.serving.request import Request
from controllers.steplaw import StepLaw

ENGINE_FAULT = "engine_fault"  # why the requests of a step that raised ended


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
    prompt: PromptScore  # of its prompt's tokens, where the engine scores them


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
    history: int | None = None  # finished requests to remember, for servers that never end
    sparse: SparseAttention = field(default_factory=SparseAttention)
    prefix_caching: bool = False  # share the pages of equal prompt beginnings
    score_prompts: bool = False  # also take the surprisal of each prompt token
    shadow_coverage: dict[int, float] = field(init=False, default_factory=dict)  # of the last step
    loop: ServingLoop = field(init=False)
    executor: LiveExecutor = field(init=False)
    done: dict[int, Generation] = field(init=False, default_factory=dict)
    _start_ns: int = field(init=False, default=0)
    _all_disabled: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        """Build the loop and allocate the cache, unless it is larger than the free memory."""
        check_memory(self.loaded, self.limits)
        self.loop = ServingLoop(
            self.limits, self.preset, self.step_law, sink=self.sink, t_cal=self.t_cal
        )
        self.executor = LiveExecutor(
            self.loaded,
            self.preset,
            self.limits,
            t_cal=self.t_cal,
            sparse=self.sparse,
            recorder=self.recorder,
            ignore_stop=self.ignore_stop,
            score_prompts=self.score_prompts,
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
        self,
        request: Request,
        prompt: Sequence[int],
        *,
        arrived_ns: int | None = None,
        reply: Reply | None = None,
    ) -> None:
        """Queue a request.

        ``arrived_ns`` is when it came, if that was before now (while a step ran): its waiting
        counts from there. With ``reply`` that follows its text and alone decides where it stops.

        Raises:
            RequestTooLong: it can never be served.
            ValueError: another field is wrong, or the id is in use.
        """
        self.check(request, prompt)
        if self._all_disabled:
            request = replace(request, enabled=False)
        self.executor.add(request, prompt, reply=reply)
        try:
            self.loop.submit(
                request,
                self.now_ns() if arrived_ns is None else arrived_ns,
                page_hashes=self._page_hashes(prompt),
            )
        except ValueError:
            self.executor.release(request.request_id)
            raise

    def check(self, request: Request, prompt: Sequence[int]) -> None:
        """Raise as :meth:`submit` would for what the request itself gets wrong; any thread may."""
        try:
            check_request(request, self.limits)
        except ValueError as error:
            raise RequestTooLong(str(error)) from None
        self.executor.check(request, prompt)

    def cancel(self, request_id: int) -> None:
        """Stop a request now; what it generated so far is kept in ``done``."""
        if self.loop.cancel(request_id, self.now_ns()):
            self._collect(request_id)

    def disable(self, request_id: int) -> None:
        """Return a request to baseline control from its next step on (the kill switch)."""
        if self.loop.disable(request_id, self.now_ns()):
            self.executor.disable(request_id)

    def disable_all(self) -> None:
        """Return every request, now and later, to baseline control; there is no way back."""
        self._all_disabled = True
        for request_id in self.loop.sequences:
            self.disable(request_id)

    def step(self) -> Result | None:
        """Plan, execute and observe one step; ``None`` when nothing can run.

        Raises:
            EngineFault: the execution raised. The requests of the step have failed and freed
                their pages; the others can be stepped on.
        """
        self._forget()  # not at the end: whoever steps must see first what the last step finished
        plan = self.loop.plan(self.now_ns())
        if not plan.rows:
            return None
        self.shadow_coverage = self.loop.shadow_coverage(plan)
        try:
            result = self.executor.execute(plan, self.loop.pages(plan))
        except Exception as error:
            raise self._fail(plan, error) from error
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

    def _fail(self, plan: Plan, error: Exception) -> EngineFault:
        """End every request of a step that raised, by a result in which all of them failed."""
        ids = tuple(row.request_id for row in plan.rows)
        lanes = len(plan.sampled)
        nothing = np.zeros(lanes, dtype=np.float32)
        failed = Result(
            step=plan.step,
            tokens=(-1,) * lanes,
            finished=dict.fromkeys(ids, ENGINE_FAULT),
            signals=TokenSignal(*[nothing] * len(TokenSignal._fields)),
            commands=nothing,
            h_applied=nothing,
            surprisal=nothing,
            page_units_read=0,
            page_units_dense=0,
            duration_ns=1,
        )
        for request_id in self.loop.observe(failed, self.now_ns()):
            self._collect(request_id)
        what = next(iter(str(error).splitlines()), "")
        return EngineFault(
            f"step {plan.step} of {len(ids)} requests raised {type(error).__name__}: {what}",
            request_ids=ids,
        )

    def _page_hashes(self, prompt: Sequence[int]) -> tuple[int, ...]:
        if not self.prefix_caching:
            return ()
        return page_hashes(prompt, self.limits.page_tokens, self.loaded.weights_sha256)

    def _hang_up(self, limits: dict[int, int | None]) -> None:
        for request_id, sequence in list(self.loop.sequences.items()):
            limit = limits.get(request_id)
            if limit is not None and sequence.generated >= limit:
                self.cancel(request_id)

    def _forget(self) -> None:
        """Cut ledger and ``done`` back to ``history`` once they hold twice that.

        Many at once, so that a request costs the same however many came before it.
        """
        history = self.history
        if history is None or len(self.ledger.requests) - len(self.loop.sequences) < 2 * history:
            return
        self.ledger.trim(history)
        for request_id in [i for i in self.done if i not in self.ledger.row_of]:
            del self.done[request_id]

    def _collect(self, request_id: int) -> None:
        held = self.executor.live[request_id]
        tokens = tuple(self.executor.generated(request_id))
        if held.reply is not None:
            held.reply.finish()
        reason = self.ledger.reasons[self.ledger.row_of[request_id]] or "unfinished"
        score = self.executor.prompt_score(request_id)
        self.done[request_id] = Generation(held.request, tokens, reason, score)
        self.executor.release(request_id)
