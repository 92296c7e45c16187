"""micro.delay: how much gain a loop may have whose sensor is m steps late."""

from __future__ import annotations

import math
from typing import Any

from controllers.certificates.certificate import Certificate, Kind
from controllers.certificates.feedback import (
    FROZEN,
    OPEN_LOOP,
    REACHABLE,
    VOCABULARY,
    at_most,
    constant,
    inner,
    loop_of,
    open_loop,
)
from controllers.certificates.wrapping import brought, issue
from controllers.core import require
from controllers.temperature import SeedLiteral

NAME = "micro.delay"
_STILL = "the command stood still before the first reading"


def linear_delay_limit(delay: int) -> float:
    """Return the k = g V at which x+ = x - k x_{t-m} is on the edge, 2 sin(pi/(4m + 2))."""
    require(delay >= 0, "delay must be >= 0", delay=delay)
    return 2.0 * math.sin(math.pi / (4 * delay + 2))


def swing(k: float, delay: int) -> float:
    """Return how far x+ = x - k_t x_{t-m}, k_t in [0, k], can swing past 0 from errors up to 1.

    max over u in [0, 1] of -u + k sum_{i=0..m} min(1, u + i k): an upper bound, attained for
    m <= 1. README, "Late sensor".
    """
    corners = [1.0 - i * k for i in range(1, delay + 1)]
    places = [0.0, 1.0, *(u for u in corners if 0.0 < u < 1.0)]
    return max(-u + k * sum(min(1.0, u + i * k) for i in range(delay + 1)) for u in places)


def delay_limit(delay: int) -> float:
    """Return the largest k for which the swing stays within 1: 2, 1, 2 - sqrt(2) for m = 0, 1, 2.

    Holds for slopes that change from step to step, as those of a curved response do.
    """
    require(delay >= 0, "delay must be >= 0", delay=delay)
    low, high = 0.0, 2.0  # the swing rises with k
    for _ in range(60):
        k = 0.5 * (low + high)
        low, high = (k, high) if swing(k, delay) <= 1.0 else (low, k)
    return low


def delay(law: Any, n_outcomes: int = VOCABULARY, delay_steps: int = 1) -> Certificate | None:
    """Bound the error of a loop with a sensor ``delay_steps`` late by the error at the start.

    Exact for the plain law and m <= 1, sufficient else; a loop whose gain at some equilibrium is
    past the linear limit diverges there. ``swing_x`` bounds every error, ln T, that the rate
    limit lets arise, whatever the gain: no error above it ever grows.
    """
    if found := brought(law, NAME):
        return found
    bare = inner(law)
    if constant(law):
        return _issue(law, "exact", "constant on fixed logits", {"delay": delay_steps})
    if isinstance(bare, SeedLiteral):
        statement = "positive feedback grows at every delay"
        given = {"eta": bare.eta, "delay": delay_steps}
        return _issue(law, "exact", statement, given, holds=False)
    loop = loop_of(bare, n_outcomes)
    if loop is None or loop.beta < 1.0:
        return None
    linear, whole = linear_delay_limit(delay_steps), delay_limit(delay_steps)
    holds = at_most(loop.largest_k, whole)
    diverges = not at_most(loop.local_k, linear)
    exact = diverges or (loop.plain and delay_steps <= 1)
    statement = (
        f"gain N_n = {loop.largest_k:.4g} against {whole:.4g}; at an equilibrium g V <= "
        f"{loop.local_k:.4g} against {linear:.4g}, sensor {delay_steps} late"
    )
    constants = loop.constants(
        delay=delay_steps,
        delay_limit=whole,
        linear_limit=linear,
        local_k=loop.local_k,
        swing_x=(delay_steps + 1) * loop.rate,
    )
    return _issue(law, "exact" if exact else "sufficient", statement, constants, holds=holds)


def _issue(
    law: Any, kind: Kind, statement: str, constants: dict[str, float], *, holds: bool = True
) -> Certificate:
    return issue(
        law,
        NAME,
        kind=kind,
        holds=holds,
        statement=statement,
        assumptions=(OPEN_LOOP,) if open_loop(inner(law)) else (FROZEN, REACHABLE, _STILL),
        constants=constants,
        bound=1.0,
        unit="of the first error",
        derivation="Late sensor",
    )
