"""The progress watchdog: a server that spins in place says so, and names who waits."""

from __future__ import annotations

from collections.abc import Iterable

from controllers.core import require
from controllers.serving.request import Sequence


class Livelock(RuntimeError):
    """Plans went by, work was there, and nothing was computed."""


class Watchdog:
    """Counts plans in a row that had work and no rows; raises at ``limit_plans`` (INV-4)."""

    def __init__(self, limit_plans: int) -> None:
        require(limit_plans >= 1, "livelock_plans must be >= 1", livelock_plans=limit_plans)
        self._limit = limit_plans
        self._barren = 0

    def watch(self, n_rows: int, unfinished: Iterable[Sequence]) -> None:
        """Take one plan in; the oldest unfinished request is named when the limit is reached."""
        if n_rows:
            self._barren = 0
            return
        oldest = min(unfinished, key=lambda s: (s.arrival_ns, s.request.request_id), default=None)
        if oldest is None:
            self._barren = 0
            return
        self._barren += 1
        if self._barren >= self._limit:
            raise Livelock(
                f"request {oldest.request.request_id} waits since {oldest.wait_since_ns} ns: "
                f"{self._barren} plans in a row computed nothing"
            )
