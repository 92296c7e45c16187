"""One server in simulated time: a serving loop, an executor, and a clock that only ever waits."""

from __future__ import annotations

from collections.abc import Callable, Generator

import simpy
from simpy.events import EventPriority

from controllers.serving.loop import ServingLoop
from simulator.executor import TraceExecutor
from simulator.workload import Arrival

AFTER_ARRIVALS = EventPriority(2)  # SimPy fires 0 and 1 first: processes, then timeouts


class Boundary(simpy.Event):
    """An event that fires after every arrival of its instant: the end of a step, or a wake-up."""

    def fire_in(self, delay_ns: int) -> Boundary:
        """Schedule the event ``delay_ns`` from now and return it."""
        self._ok, self._value = True, None  # what simpy.Timeout does; succeed() has no priority
        self.env.schedule(self, AFTER_ARRIVALS, delay_ns)
        return self


class Replica:
    """Steps back to back while there is work, sleeps on an event while there is none."""

    def __init__(
        self,
        env: simpy.Environment,
        loop: ServingLoop,
        executor: TraceExecutor,
        *,
        on_finish: Callable[[int], None] = lambda _: None,
        verify: bool = False,
    ) -> None:
        """Start the process in ``env``; ``verify`` asserts every invariant after each step."""
        self.loop = loop
        self.executor = executor
        self._env = env
        self._on_finish = on_finish
        self._verify = verify
        self._wake: Boundary | None = None
        env.process(self._run())

    @property
    def outstanding_tokens(self) -> int:
        """Tokens left to compute if every request ran to its ``max_tokens``: all the loop knows."""
        return sum(
            s.pending + s.request.max_tokens - s.generated for s in self.loop.sequences.values()
        )

    def submit(self, arrival: Arrival) -> None:
        """Take a request in now."""
        request = arrival.request
        self.loop.submit(request, int(self._env.now), page_hashes=arrival.page_hashes)
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

    def _run(self) -> Generator[simpy.Event, None, None]:
        while True:
            if not self.loop.has_work:
                self._wake = Boundary(self._env)
                yield self._wake
            plan = self.loop.plan(int(self._env.now))
            if not plan.rows:  # preemption alone took this plan; the loop's watchdog bounds these
                continue
            result = self.executor.execute(plan, self.loop.pages(plan))
            yield Boundary(self._env).fire_in(result.duration_ns)
            for request_id in self.loop.observe(result, int(self._env.now)):
                self._forget(request_id)
            if self._verify:
                self.loop.check()

    def _forget(self, request_id: int) -> None:
        self.executor.release(request_id)
        self._on_finish(request_id)
