"""micro.tube: how close the command stays to a moving equilibrium under noise (README, Tube)."""

from __future__ import annotations

import math
from typing import Any

from controllers.certificates.certificate import Certificate, Kind
from controllers.certificates.feedback import VOCABULARY, Loop, loop_of
from controllers.certificates.wrapping import bare, brought, issue
from controllers.core import require
from controllers.temperature import SeedLiteral

NAME = "micro.tube"


def radius(loop: Loop, mu: float, noise_nats: float, drift: float, v_max: float) -> float:
    """Return the smallest tube that keeps |u_t - x*_t|, ln T; infinite where none does.

    The fixed point of R = max |1 - g V|(R + drift) + g noise over V in [mu, v_max] and the gains
    g that such V give; it is attained at a corner.
    """
    if drift > loop.rate:
        return math.inf
    worst = 0.0
    for g in (loop.gain_at(v_max), loop.gain_at(mu)):
        for v in (mu, v_max):
            factor = abs(1.0 - g * v)
            if factor >= 1.0:
                return math.inf
            worst = max(worst, (factor * drift + g * noise_nats) / (1.0 - factor))
    return worst


def iss(
    law: Any,
    mu: float,
    noise_nats: float,
    drift: float,
    *,
    n_outcomes: int = VOCABULARY,
    v_max: float | None = None,
) -> Certificate | None:
    """Bound |u_t - x*_t|, ln T, from the start if it is inside, else in the limit.

    ``mu`` and ``v_max`` (N_n where not given), nats^2, bound V on the way between x and x*_t;
    ``noise_nats`` bounds the error of each measured H, ``drift`` the move of x*_t per step, ln T;
    where ``drift`` is the rate limit itself, a start outside may stay outside.
    None for laws without such a bound: smoothed, open loop, or filtered slower than they move.
    """
    require(mu >= 0.0, "mu must be >= 0", mu=mu)
    require(noise_nats >= 0.0, "noise_nats must be >= 0", noise_nats=noise_nats)
    require(drift >= 0.0, "drift must be >= 0", drift=drift)
    if found := brought(law, NAME):
        return found
    wrapped = bare(law)
    if wrapped is None:
        return None
    given = {"mu": mu, "noise_nats": noise_nats, "drift": drift}
    if isinstance(wrapped.law, SeedLiteral):
        return _issue(law, "exact", "positive feedback keeps no tube", math.inf, given)
    loop = loop_of(wrapped.law, n_outcomes)
    if loop is None or loop.beta < 1.0 or any(rate < loop.rate for rate in wrapped.rates):
        return None
    top = loop.n_max if v_max is None else v_max
    require(mu <= top, "mu must not exceed v_max", mu=mu, v_max=top)
    tube = radius(loop, mu, noise_nats, drift, top) + wrapped.delay_steps * drift
    constants = loop.constants(**given, v_max=top, delay=wrapped.delay_steps)
    statement = f"radius {tube:.4g} for V in [{mu:.4g}, {top:.4g}]"
    return _issue(law, "sufficient", statement, tube, constants)


def _issue(
    law: Any, kind: Kind, statement: str, bound: float, constants: dict[str, float]
) -> Certificate:
    return issue(
        law,
        NAME,
        kind=kind,
        holds=math.isfinite(bound),
        statement=statement,
        assumptions=(
            "x*_t stays between the clips and moves by at most drift a step",
            "V lies in [mu, v_max] at x and between x and x*_t",
            "each measured H is off by at most noise_nats, each measured V by nothing",
        ),
        constants=constants,
        bound=bound,
        unit="ln T",
        derivation="Tube",
    )
