"""One server in simulated time: a serving loop, an executor, and a clock that only ever waits."""

from __future__ import annotations

from collections.abc import Generator

import simpy
from simpy.events import EventPriority

from controllers.core import require
from controllers.serving.ledger import Ledger
from controllers.serving.loop import ServingLoop
from simulator.arrival import Arrival
from simulator.executor import TraceExecutor
from simulator.server import LOST, OnFinish, Window

AFTER_ARRIVALS = EventPriority(2)  # SimPy fires 0 and 1 first: processes, then timeouts


class Boundary(simpy.Event):
    """An event that fires after every arrival of its instant: the end of a step, or a wake-up."""

    def fire_in(self, delay_ns: int) -> Boundary:
        """Schedule the event ``delay_ns`` from now and return it."""
        self._ok, self._value = True, None  # what simpy.Timeout does; succeed() has no priority
        self.env.schedule(self, AFTER_ARRIVALS, delay_ns)
        return self


class Replica:
    """A :class:`simulator.server.Server`: the definition of serving, laws called at every step.

    It steps back to back while there is work, and sleeps on an event while there is none.
    """

    def __init__(
        self,
        env: simpy.Environment,
        loop: ServingLoop,
        executor: TraceExecutor,
        *,
        on_finish: OnFinish = lambda _id, _reason: None,
        verify: bool = False,
    ) -> None:
        """Start the process in ``env``; ``verify`` asserts every invariant after each step."""
        self.loop = loop
        self.executor = executor
        self._env = env
        self._on_finish = on_finish
        self._verify = verify
        self._wake: Boundary | None = None
        self._step_ends_ns: int | None = None
        self._crashed = False
        env.process(self._run())

    @property
    def ledger(self) -> Ledger:
        """What happened here: the loop's ledger."""
        return self.loop.ledger

    @property
    def outstanding_tokens(self) -> int:
        """Tokens left to compute if every request ran to its ``max_tokens``: all the loop knows."""
        return sum(
            s.pending + s.request.max_tokens - s.generated for s in self.loop.sequences.values()
        )

    @property
    def n_waiting(self) -> int:
        """Requests submitted and not resident."""
        return len(self.loop.scheduler.waiting)

    @property
    def n_running(self) -> int:
        """Residents."""
        return len(self.loop.scheduler.running)

    @property
    def free_pages(self) -> int:
        """Pages of the pool that nobody holds."""
        return self.loop.scheduler.pool.n_free

    @property
    def clamped_rows(self) -> int:
        """Decode rows whose coverage lay below the lowest recorded one."""
        return self.executor.clamped_rows

    @property
    def step_ends_ns(self) -> int | None:
        """When the step under way ends; None while idle."""
        return self._step_ends_ns

    def submit(self, arrival: Arrival, *, window: Window | None = None) -> None:
        """Take a request in now, all of it: a window is a ValueError."""
        require(window is None, "mode online serves no window of a request", window=window)
        request = arrival.request
        self.loop.submit(request, int(self._env.now), page_hashes=tuple(arrival.page_hashes))
        self.executor.add(request, arrival.trace_index, arrival.output_tokens)
        if self._wake is not None:
            self._wake.fire_in(0)
            self._wake = None

    def cancel(self, request_id: int) -> bool:
        """Drop a request now; False if it has already finished."""
        cancelled = self.loop.cancel(request_id, int(self._env.now))
        if cancelled:
            self._forget(request_id)
        return cancelled

    def disable(self, request_id: int) -> bool:
        """Return a request to baseline control from its next step on; False if it has finished."""
        known = self.loop.disable(request_id, int(self._env.now))
        if known:
            self.executor.disable(request_id)
        return known

    def crash(self) -> list[int]:
        """Lose everything now; return the unfinished requests in order of submission.

        The step in flight leaves no row: nobody saw its end.
        """
        self._crashed = True
        lost, now_ns = list(self.loop.sequences), int(self._env.now)
        witness = self.loop.scheduler.witness
        for request_id in lost:
            self.loop.ledger.finished(request_id, now_ns, LOST)
            if witness is not None:
                witness.left(self.loop.sequences[request_id], now_ns, LOST)
            self.executor.release(request_id)
        self.loop.sequences.clear()
        return lost

    def _run(self) -> Generator[simpy.Event, None, None]:
        while True:
            if not self.loop.has_work:
                self._step_ends_ns = None
                self._wake = Boundary(self._env)
                yield self._wake
                if self._crashed:
                    return
            plan = self.loop.plan(int(self._env.now))
            if not plan.rows:  # preemption alone took this plan; the loop's watchdog bounds these
                continue
            pages = self.loop.pages(plan) if self.executor.reads_pages else {}
            result = self.executor.execute(plan, pages)
            self._step_ends_ns = int(self._env.now) + result.duration_ns
            yield Boundary(self._env).fire_in(result.duration_ns)
            if self._crashed:
                return
            for request_id in self.loop.observe(result, int(self._env.now)):
                self._forget(request_id)
            if self._verify:
                self.loop.check()

    def _forget(self, request_id: int) -> None:
        self.executor.release(request_id)
        ledger = self.loop.ledger
        reason = ledger.reasons[ledger.row_of[request_id]]
        assert reason is not None, "a request left without a reason"
        self._on_finish(request_id, reason)
