"""A server that runs ahead: the ledger of a serving loop, in stretches of steps between events."""

from __future__ import annotations

from typing import Literal, get_args

import simpy

from controllers.core import require
from controllers.presets import Preset
from controllers.serving.admission import Oracle
from controllers.serving.ledger import CANCELLED, Ledger
from controllers.serving.limits import EngineLimits
from controllers.steplaw import StepLaw
from simulator.array_check import check
from simulator.array_decisions import Decisions
from simulator.array_engine import Engine
from simulator.array_laws import CalledLaws
from simulator.array_life import Life, TrajectorySource
from simulator.arrival import Arrival
from simulator.replica import Boundary
from simulator.server import LOST, PASSING, OnFinish, Window

ArrayMode = Literal["macro", "steps", "calls"]


class ArrayReplica:
    """A :class:`simulator.server.Server` on columns of future steps, in one of three modes.

    On trajectories scanned ahead ``macro`` runs all steps between two events at once, and
    ``steps`` one at a time; so does ``calls``, which calls the laws at each. All leave the ledger
    that a ``Replica`` leaves, bit for bit but for the order of token rows. Not served: page hashes
    and presets that evict pages; these need mode ``online``. Nor, in mode ``calls``, windows.
    """

    def __init__(
        self,
        env: simpy.Environment,
        *,
        limits: EngineLimits,
        preset: Preset,
        step_law: StepLaw,
        trajectories: TrajectorySource,
        units_per_page: int,
        ledger: Ledger,
        mode: ArrayMode = "macro",
        lowest_coverage: float = 0.0,
        oracle: Oracle | None = None,
        on_finish: OnFinish = lambda _id, _reason: None,
        verify: bool = False,
        livelock_plans: int = 1000,
    ) -> None:
        """Start idle. ``units_per_page`` is layers times KV heads of the traced model.

        ``lowest_coverage`` is the lowest recorded one, for ``clamped_rows``; ``verify`` asserts
        every invariant after each stretch.
        """
        modes, called = get_args(ArrayMode), isinstance(trajectories, CalledLaws)
        require(mode in modes, f"mode must be one of {modes}", mode=mode)
        require(called == (mode == "calls"), "CalledLaws are for mode calls alone", mode=mode)
        self._env = env
        self._trajectories = trajectories
        self._on_finish = on_finish
        self._verify = verify
        self._here = Decisions(
            limits,
            preset,
            step_law,
            trajectories,
            units_per_page=units_per_page,
            ledger=ledger,
            lowest_coverage=lowest_coverage,
            oracle=oracle,
        )
        self._engine = Engine(self._here, macro=mode == "macro", livelock_plans=livelock_plans)
        self.stretches = 0  # planned so far; as many as steps in mode steps
        self._awaited: Boundary | None = None  # the end of the stretch in flight, or a wake-up
        self._crashed = False

    @property
    def ledger(self) -> Ledger:
        """What happened here, up to the last step that has ended."""
        here = self._here
        if not self._crashed:
            self._engine.catch_up(int(self._env.now))
            for life in here.lives.values():
                if life.run_step >= 0:
                    here.books.book(life, here.step)
                here.books.write(life)
            here.books.flush(here.step)
        return here.books.ledger

    @property
    def outstanding_tokens(self) -> int:
        """Tokens left to compute if every request ran to its ``max_tokens``."""
        return self._engine.outstanding(int(self._env.now))

    @property
    def n_waiting(self) -> int:
        """Requests submitted and not resident."""
        return len(self._here.scheduler.waiting)

    @property
    def n_running(self) -> int:
        """Residents."""
        return len(self._here.scheduler.running)

    @property
    def free_pages(self) -> int:
        """Pages of the pool that nobody holds."""
        return self._here.limits.n_pages - self._engine.pages_held(int(self._env.now))

    @property
    def clamped_rows(self) -> int:
        """Sampled rows whose coverage lay below the lowest recorded one."""
        return self._here.books.clamped_rows

    @property
    def step_ends_ns(self) -> int | None:
        """When the step under way ends; None while idle."""
        return self._engine.step_ends_ns(int(self._env.now))

    def submit(self, arrival: Arrival, *, window: Window | None = None) -> None:
        """Take a request in now, or the tokens of it that ``window`` names."""
        require(
            not arrival.page_hashes,
            "an array replica shares no pages",
            page_hashes=len(arrival.page_hashes),
        )
        now_ns, here, engine = int(self._env.now), self._here, self._engine
        if engine.in_flight and not engine.deaf:
            self._cut(now_ns)
        done = here.step + engine.done(now_ns)
        planned = done + here.books.plans_ahead + min(1, engine.in_flight)
        here.submit(arrival.request, now_ns, window, done, planned)
        if self._awaited is None:
            self._await(0)

    def cancel(self, request_id: int) -> bool:
        """Drop a request now; False if it is not here."""
        life = self._here.lives.get(request_id)
        if life is None:
            return False
        now_ns = int(self._env.now)
        self._cut(now_ns)
        self._engine.cancel(life, now_ns)
        self._left(life, CANCELLED)
        return True

    def disable(self, request_id: int) -> bool:
        """Return a request to baseline control from its next step on; False if it is not here."""
        life = self._here.lives.get(request_id)
        if life is None:
            return False
        self._cut(int(self._env.now))
        self._engine.disable(life)
        return True

    def crash(self) -> list[int]:
        """Lose everything now; return the unfinished requests in order of submission.

        The step in flight leaves no row: nobody saw its end.
        """
        now_ns, here = int(self._env.now), self._here
        self._cut(now_ns)
        _ = self.ledger  # brings it up to date
        lost = list(here.lives)
        for life in here.lives.values():
            here.books.close(life, now_ns, LOST)
        here.lives.clear()
        self._crashed = True
        self._awaited = None
        return lost

    def _await(self, delay_ns: int, fired: Boundary | None = None) -> None:
        """Go on in ``delay_ns``, and at no other time that was set before.

        ``fired`` is a boundary to use again.
        """
        self._awaited = boundary = Boundary(self._env) if fired is None else fired
        boundary.callbacks = [self._go_on]
        boundary.fire_in(delay_ns)

    def _cut(self, now_ns: int) -> None:
        if self._engine.cut(now_ns):
            self._await(self._engine.end_ns - now_ns)

    def _go_on(self, boundary: Boundary) -> None:
        """End the stretch in flight, if there is one, and begin the next."""
        if boundary is not self._awaited:
            return  # its stretch was cut
        now_ns, engine = int(self._env.now), self._engine
        if engine.in_flight:
            for life in engine.observe():
                self._here.leave(life, now_ns, life.reason)
                self._left(life, life.reason)
            if self._verify:
                check(self._here)
        elif not self._here.lives:
            engine.barren()  # woken for somebody who gave up in the same instant
        self._awaited = None
        if self._here.lives:
            self.stretches += 1
            self._await(engine.plan(now_ns) - now_ns, boundary)

    def _left(self, life: Life, reason: str) -> None:
        if reason not in PASSING:
            self._trajectories.forget(life.request_id)
        self._on_finish(life.request_id, reason)
