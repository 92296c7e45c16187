"""What a router and a cluster need of one server, whichever mode of the simulation runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from controllers.core import require
from controllers.serving.ledger import Ledger
from simulator.arrival import Arrival

LOST = "lost"  # its server crashed; another one may start it again
TRANSFERRED = "transferred"  # its window ended; another server goes on
WAITED = "waited"  # at the router, for a server to come up
REJECTED = "rejected"  # admission control turned it away
FAILED = "failed"  # lost more often than it may be retried
PASSING = (LOST, TRANSFERRED, WAITED)  # reasons that close a part of a request, never all of it

OnFinish = Callable[[int, str], None]  # request id, reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Serve generated tokens ``[first, last)`` of a request only.

    A request that reaches ``last`` before its end is closed with reason ``TRANSFERRED``. With
    ``kv_imported`` its first admission finds ``prompt + first - 1`` tokens computed; after a
    preemption everything is recomputed.
    """

    first: int = 0
    last: int | None = None  # None: to its end
    kv_imported: bool = False

    def __post_init__(self) -> None:
        require(self.first >= 0, "first must be >= 0", first=self.first)
        require(
            self.last is None or self.last > self.first,
            f"last must be > first = {self.first}",
            last=self.last,
        )
        require(
            self.first >= 1 or not self.kv_imported,
            "kv_imported needs first >= 1: a token is sampled where its KV was computed",
            first=self.first,
        )


class Server(Protocol):
    """One machine between its start and its end; it calls ``on_finish(request_id, reason)``.

    The callback comes within the event that ends the request (a step's end, a cancellation), after
    the request's ledger row is complete, and never from :meth:`crash`. It must not call back into
    the server. What is read between steps is the state after the last step that has ended.
    """

    @property
    def ledger(self) -> Ledger:
        """What happened here."""
        ...

    @property
    def outstanding_tokens(self) -> int:
        """Tokens left to compute if every request ran to its ``max_tokens``."""
        ...

    @property
    def n_waiting(self) -> int:
        """Requests submitted and not resident."""
        ...

    @property
    def n_running(self) -> int:
        """Residents."""
        ...

    @property
    def free_pages(self) -> int:
        """Pages of the pool that nobody holds."""
        ...

    @property
    def clamped_rows(self) -> int:
        """Decode rows whose coverage lay below the lowest recorded one."""
        ...

    @property
    def step_ends_ns(self) -> int | None:
        """When the step under way ends; None while idle."""
        ...

    def submit(self, arrival: Arrival, *, window: Window | None = None) -> None:
        """Take a request in now; ValueError where windows are not supported."""
        ...

    def cancel(self, request_id: int) -> bool:
        """Drop a request now; False if it is not here."""
        ...

    def disable(self, request_id: int) -> bool:
        """Return a request to baseline control from its next step on; False if it is not here."""
        ...

    def crash(self) -> list[int]:
        """Lose everything now; return the unfinished requests in order of submission.

        Their ledger rows are closed with reason ``LOST``. The server never runs again.
        """
        ...
