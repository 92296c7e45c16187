"""A server that plans ahead: each step is decided as the one before it starts.

Engines with asynchronous scheduling (vLLM since 0.14) hide their own work behind the step under
way. An arrival during a step has missed the plan of the next one, and is looked at for the one
after. That a finished request's slot and pages come free one step later is not modelled.
"""

from __future__ import annotations

import simpy

from controllers.serving.ledger import Ledger
from simulator.arrival import Arrival
from simulator.server import Server, Window

JUST_AFTER_NS = 1  # the end of a step, when the next one has been planned


class LateServer:
    """A :class:`simulator.server.Server` that hands arrivals to another one a step late.

    Ledger rows keep the true arrival. Requests held back count as waiting.
    """

    def __init__(self, env: simpy.Environment, server: Server) -> None:
        self._env, self._server = env, server
        self._held: dict[int, tuple[Arrival, Window | None, int]] = {}  # by request id
        self._crashed = False

    @property
    def ledger(self) -> Ledger:
        """What happened here; requests held back have no row yet."""
        return self._server.ledger

    @property
    def outstanding_tokens(self) -> int:
        """Tokens left to compute if every request ran to its ``max_tokens``."""
        held = sum(
            a.request.prompt_tokens + a.request.max_tokens for a, _, _ in self._held.values()
        )
        return held + self._server.outstanding_tokens

    @property
    def n_waiting(self) -> int:
        """Requests submitted and not resident."""
        return len(self._held) + self._server.n_waiting

    @property
    def n_running(self) -> int:
        """Residents."""
        return self._server.n_running

    @property
    def free_pages(self) -> int:
        """Pages of the pool that nobody holds."""
        return self._server.free_pages

    @property
    def clamped_rows(self) -> int:
        """Decode rows whose coverage lay below the lowest recorded one."""
        return self._server.clamped_rows

    @property
    def step_ends_ns(self) -> int | None:
        """When the step under way ends; None while idle."""
        return self._server.step_ends_ns

    def submit(self, arrival: Arrival, *, window: Window | None = None) -> None:
        """Take a request in, at once if idle, else for the step after the next."""
        now_ns, ends_ns = int(self._env.now), self._server.step_ends_ns
        if ends_ns is None:
            self._server.submit(arrival, window=window)
            return
        request_id = arrival.request.request_id
        self._held[request_id] = (arrival, window, now_ns)
        wait = self._env.timeout(ends_ns - now_ns + JUST_AFTER_NS)
        wait.callbacks.append(lambda _event: self._hand_over(request_id))

    def cancel(self, request_id: int) -> bool:
        """Drop a request now; False if it is not here."""
        self._hand_over(request_id)
        return self._server.cancel(request_id)

    def disable(self, request_id: int) -> bool:
        """Return a request to baseline control from its next step on; False if it is not here."""
        self._hand_over(request_id)
        return self._server.disable(request_id)

    def crash(self) -> list[int]:
        """Lose everything now; return the unfinished requests in order of submission."""
        for request_id in list(self._held):
            self._hand_over(request_id)
        self._crashed = True
        return self._server.crash()

    def _hand_over(self, request_id: int) -> None:
        if request_id not in self._held or self._crashed:
            return
        arrival, window, arrived_ns = self._held.pop(request_id)
        self._server.submit(arrival, window=window)
        ledger = self._server.ledger
        ledger.requests.columns["arrival_ns"][ledger.row_of[request_id]] = arrived_ns
