"""Soak the engine: serve a random mix for long, and ask whether anything grows or is left over."""

from __future__ import annotations

import gc
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from backend.engine import Engine
from controllers.core import require
from controllers.serving.messages import Plan as StepPlan
from controllers.serving.messages import Result
from reports.soak.gauges import Samples
from reports.soak.remnants import remnants
from reports.soak.slope import FEWEST as FEWEST_SAMPLES
from reports.soak.slope import WARMUP, Slope, robust_slope
from reports.soak.traffic import Arrival

CAPACITY = 512  # samples kept
TOO_SHORT = "too short to judge"
REMNANTS = 20  # at most so many are listed
FEWEST = 100
LEVELS = ("rss_bytes", "python_blocks")

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """When a soak ends, and what it holds against the engine.

    ``requests`` and ``minutes`` each end the soak; None does not bind. A slope is judged per
    request: above ``rss_bound`` bytes of resident memory, or ``block_bound`` Python memory blocks
    (an object has one or more), the engine leaks.
    """

    requests: int | None = None
    minutes: float | None = None
    waiting: int = 8  # requests kept in the queue, so that pages and slots always bind
    samples_per_run: int = 160
    rss_bound: float = 256.0
    block_bound: float = 0.5

    def __post_init__(self) -> None:
        require(
            self.requests is not None or self.minutes is not None,
            "a soak must end: requests or minutes must be given",
            requests=None,
        )
        require(
            self.requests is None or self.requests >= FEWEST,
            f"requests must be >= {FEWEST}: fewer do not show growth",
            requests=self.requests,
        )
        require(
            self.minutes is None or (math.isfinite(self.minutes) and self.minutes > 0),
            "minutes must be finite and > 0",
            minutes=self.minutes,
        )
        require(self.waiting >= 1, "waiting must be >= 1", waiting=self.waiting)
        require(
            self.samples_per_run >= 60,
            "samples_per_run must be >= 60",
            samples_per_run=self.samples_per_run,
        )


@dataclass(slots=True)
class Soak:
    """What a soak found."""

    samples: Samples
    reasons: Counter[str]
    refused: int
    switched_off: int
    steps: int
    tokens: int
    preemptions: int
    sparse_rows: int
    pages_evicted: int
    tokens_found: int  # in pages shared with requests before
    wall_s: float
    leftovers: list[str]  # what the idle engine still held, one line each
    slopes: dict[str, Slope] = field(default_factory=dict)

    @property
    def finished(self) -> int:
        """Requests that ended, whatever the reason."""
        return self.reasons.total()

    def verdicts(self, plan: Plan) -> dict[str, str]:
        """Return "flat", "leak" or "undecided" for each gauge."""
        bounds = {"rss_bytes": plan.rss_bound, "python_blocks": plan.block_bound}
        return {name: slope.verdict(bounds[name]) for name, slope in self.slopes.items()}

    def verdict(self, plan: Plan) -> str:
        """Return "passed" (nothing grew, nothing left over), "failed" or ``TOO_SHORT``."""
        if self.leftovers:
            return "failed"
        if not self.slopes:
            return TOO_SHORT
        return "passed" if set(self.verdicts(plan).values()) == {"flat"} else "failed"


def least_requests(history: int | None) -> int:
    """Return how many requests a soak needs: half of them after the engine's history is full.

    The engine remembers up to twice ``history`` finished requests, and grows until then. Without
    a bound (None) it never stops growing, and the fit shows that.
    """
    return max(FEWEST, 4 * (history or 0))


def soak(
    engine: Engine, traffic: Iterator[Arrival], plan: Plan, *, progress: Progress | None = None
) -> Soak:
    """Serve ``traffic`` until ``plan`` ends it; sample, let the engine run dry, and judge.

    Raises ``ValueError`` if the plan's requests cannot be judged. A time that served fewer than
    ``least_requests``, or took too few samples, gives no slopes.
    """
    least = least_requests(engine.history)
    require(
        plan.requests is None or plan.requests >= least,
        f"requests must be >= {least}: fewer do not show growth beyond the engine's history",
        requests=plan.requests,
    )
    with _frozen_objects():
        run = _Run(engine, traffic, plan)
        run.serve(progress)
        run.drain()
    samples = run.samples
    slopes = _slopes(samples, 2 * (engine.history or 0)) if run.served >= least else {}
    return Soak(
        samples=samples,
        reasons=run.reasons,
        refused=run.refused,
        switched_off=run.switched_off,
        steps=run.steps,
        tokens=run.tokens,
        preemptions=run.preemptions,
        sparse_rows=run.sparse_rows,
        pages_evicted=run.pages_evicted,
        tokens_found=run.tokens_found,
        wall_s=run.elapsed_s,
        leftovers=leftovers(engine),
        slopes=slopes,
    )


def _slopes(samples: Samples, full_after: int) -> dict[str, Slope]:
    """Fit each gauge after the history is full and a warm-up; nothing of too few samples."""
    requests = samples.column("requests")
    fitted = requests >= full_after
    if fitted.sum() - int(WARMUP * fitted.sum()) < FEWEST_SAMPLES:
        return {}
    x = requests[fitted]
    return {name: robust_slope(x, samples.column(name)[fitted]) for name in LEVELS}


def leftovers(engine: Engine) -> list[str]:
    """Return what an idle engine should not hold any more, one line each."""
    engine.loop.check()
    counts = {
        "unfinished requests": len(engine.loop.sequences),
        "pages held": engine.loop.scheduler.pool.n_held,
    }
    held = [f"{name}: {count}" for name, count in counts.items() if count]
    return held + remnants(engine, engine.done)[:REMNANTS]


@contextmanager
def _frozen_objects() -> Iterator[None]:
    """Spare the collector the half million objects of the libraries, which stay."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class _Run:
    """The loop of a soak, its counts and its users' intentions."""

    def __init__(self, engine: Engine, traffic: Iterator[Arrival], plan: Plan) -> None:
        self._engine, self._traffic, self._plan = engine, traffic, plan
        self._users: dict[int, Arrival] = {}
        self._began = time.perf_counter()
        self._sampled = 0.0  # progress at the last sample
        self.samples = Samples(CAPACITY)
        self.reasons: Counter[str] = Counter()
        self.refused = self.switched_off = self.steps = self.tokens = self.preemptions = 0
        self.sparse_rows = self.pages_evicted = self.tokens_found = 0
        self.served = 0  # requests that ended before the engine ran dry
        engine.on_step = self._count

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self._began

    @property
    def share(self) -> float:
        """How much of the soak is over: 1 ends it."""
        plan = self._plan
        by_count = 0.0 if plan.requests is None else self.reasons.total() / plan.requests
        by_time = 0.0 if plan.minutes is None else self.elapsed_s / (60.0 * plan.minutes)
        return max(by_count, by_time)

    def serve(self, progress: Progress | None) -> None:
        while (share := self.share) < 1.0:
            self._fill()
            self._step()
            if share >= self._sampled + 1.0 / self._plan.samples_per_run:
                self._sampled = share
                gc.collect()  # what waits for the collector is no leak
                self.samples.take(
                    self._engine, requests=self.reasons.total(), wall_s=self.elapsed_s
                )
                if progress is not None:
                    done = self.reasons.total()
                    progress(done, max(done, round(done / share)))

    def drain(self) -> None:
        """Let what is under way finish, and cancel half of it."""
        self.served = self.reasons.total()
        for request_id in list(self._engine.loop.sequences)[::2]:
            self._cancel(request_id)
        while self._engine.loop.has_work:
            self._step()

    def _fill(self) -> None:
        loop = self._engine.loop
        while len(loop.scheduler.waiting) < self._plan.waiting:
            arrival = next(self._traffic)
            try:
                self._engine.submit(arrival.request, arrival.prompt)
            except ValueError:
                require(
                    not arrival.well_formed,
                    "the engine refused a well-formed request",
                    request_id=arrival.request.request_id,
                )
                self.refused += 1
            else:
                self._users[arrival.request.request_id] = arrival

    def _step(self) -> None:
        before = set(self._engine.loop.sequences)
        self._engine.step()
        for request_id in sorted(before - set(self._engine.loop.sequences)):
            self._end(request_id)
        for request_id, sequence in list(self._engine.loop.sequences.items()):
            user = self._users[request_id]
            if user.cancel_after == sequence.generated:
                self._cancel(request_id)
            elif user.off_after == sequence.generated and sequence.request.enabled:
                self._engine.disable(request_id)
                self.switched_off += 1

    def _count(self, plan: StepPlan, result: Result) -> None:
        self.steps += 1
        self.tokens += sum(token >= 0 for token in result.tokens)
        self.preemptions += len(plan.preempted)
        self.sparse_rows += sum(row.coverage < 1.0 for row in plan.rows)
        self.pages_evicted += sum(len(pages) for pages in result.evicted.values())

    def _cancel(self, request_id: int) -> None:
        self._engine.cancel(request_id)
        self._end(request_id)

    def _end(self, request_id: int) -> None:
        del self._users[request_id]
        ledger = self._engine.ledger
        self.tokens_found += int(
            ledger.requests.columns["prefix_hit_tokens"][ledger.row_of[request_id]]
        )
        self.reasons[self._engine.done[request_id].reason] += 1
