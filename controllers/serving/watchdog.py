"""The progress watchdog: a server that spins in place says so, and names the culprit."""

from __future__ import annotations

from collections.abc import Collection, Reversible
from typing import Protocol

from controllers.core import require
from controllers.serving.limits import EngineLimits
from controllers.serving.request import Sequence


class Livelock(RuntimeError):
    """Plans went by, work was there, and nothing came of it."""


class Unfinished(Collection[Sequence], Reversible[Sequence], Protocol):
    """The unfinished requests, the newest last."""


class Watchdog:
    """Raises where work is there and nothing comes of it for too many plans in a row (INV-4).

    Either nothing is computed, for ``limit_plans``; or rows are computed and lost again, no request
    comes or leaves and none gets a token, for ``limit_plans`` beyond those that the longest prompt
    of ``limits`` takes alone.
    """

    def __init__(self, limit_plans: int, limits: EngineLimits | None = None) -> None:
        require(limit_plans >= 1, "livelock_plans must be >= 1", livelock_plans=limit_plans)
        self._limit = limit_plans
        prefill = 0 if limits is None else limits.max_context // limits.token_budget + 1
        self._fruitless_limit = limit_plans + prefill
        self._barren = 0
        self._fruitless = 0
        self._present = (0, -1)  # how many are unfinished, id of the newest

    def watch(self, n_rows: int, unfinished: Unfinished, *, gives_token: bool = True) -> None:
        """Take one plan in; ``gives_token`` is whether a row of it samples.

        Where nothing is computed the oldest unfinished request is named, else the one that lost
        its pages most often.
        """
        if n_rows and gives_token:
            self._start_anew()
            return
        if len(unfinished) == 0:
            self._start_anew()
            return
        self._barren = 0 if n_rows else self._barren + 1
        present = (len(unfinished), next(reversed(unfinished)).request.request_id)
        self._fruitless = self._fruitless + 1 if present == self._present else 1
        self._present = present
        if self._barren >= self._limit:
            oldest = min(unfinished, key=lambda s: (s.arrival_ns, s.request.request_id))
            raise Livelock(
                f"request {oldest.request.request_id} waits since {oldest.wait_since_ns} ns: "
                f"{self._barren} plans in a row computed nothing"
            )
        if self._fruitless >= self._fruitless_limit:
            worst = max(unfinished, key=lambda s: (s.preemptions, -s.request.request_id))
            raise Livelock(
                f"request {worst.request.request_id} lost its pages {worst.preemptions} times: "
                f"{self._fruitless} plans in a row gave no token"
            )

    def _start_anew(self) -> None:
        self._barren = self._fruitless = 0
        self._present = (0, -1)
