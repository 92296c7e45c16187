"""micro.stability and micro.settles: on fixed logits the error never grows, and then dies."""

from __future__ import annotations

from typing import Any

from controllers.certificates.certificate import Certificate, Kind
from controllers.certificates.feedback import (
    FROZEN,
    OPEN_LOOP,
    REACHABLE,
    VOCABULARY,
    Loop,
    at_most,
    constant,
    inner,
    loop_of,
    open_loop,
    smooth_linear_limit,
    smooth_monotone_limit,
)
from controllers.certificates.wrapping import brought, issue
from controllers.temperature import SeedLiteral

STABILITY = "micro.stability"
SETTLES = "micro.settles"


def stability(law: Any, n_outcomes: int = VOCABULARY) -> Certificate | None:
    """Bound max_t |u_t - x*| by the larger error at the start: a ratio of 1 (README, Contraction).

    Exact for the plain law (gain <= 2/N_n), the printed law (never) and laws without feedback.
    None for an open-loop law behind a filter, which may carry the command away from x*.
    """
    if found := brought(law, STABILITY):
        return found
    bare = inner(law)
    if constant(law):
        return _issue(law, STABILITY, "exact", "constant on fixed logits", (OPEN_LOOP,), 1.0)
    if isinstance(bare, SeedLiteral):
        return _printed(law, bare, STABILITY, 1.0)
    loop = loop_of(bare, n_outcomes)
    if loop is None:
        return None
    if loop.beta < 1.0:
        return _smoothed(law, loop, STABILITY, 1.0)
    holds = at_most(loop.largest_k, 2.0)
    return _issue(
        law,
        STABILITY,
        "exact" if loop.plain else "sufficient",
        f"gain N_n = {loop.largest_k:.4g}, {'within' if holds else 'beyond'} 2",
        (FROZEN, REACHABLE),
        1.0,
        loop.constants(gain_limit=2.0 / loop.n_max),
        holds=holds,
    )


def settles(law: Any, n_outcomes: int = VOCABULARY) -> Certificate | None:
    """Bound the swing back and forth of the command, ln T, by 0: no overshoot, so no cycle.

    Sufficient for gain <= 1/N_n (with smoothing, (1 - q)/(1 + q)/N_n); beyond 2/N_n the plain law
    cycles for ever. Between the two it converges, at no rate that holds for all logits, so a
    finite run may still show swings: the certificate then says nothing.
    """
    if found := brought(law, SETTLES):
        return found
    bare = inner(law)
    if open_loop(bare):
        way = "constant on fixed logits" if constant(law) else "one way to where it stays"
        return _issue(law, SETTLES, "exact", way, (OPEN_LOOP,), 0.0)
    if isinstance(bare, SeedLiteral):
        # It runs to a clip and stays: wrong, but not a swing.
        given = {"eta": bare.eta}
        return _issue(law, SETTLES, "sufficient", "one way, to a clip", (FROZEN,), 0.0, given)
    loop = loop_of(bare, n_outcomes)
    if loop is None:
        return None
    if loop.beta < 1.0:
        return _smoothed(law, loop, SETTLES, 0.0)
    return _issue(
        law,
        SETTLES,
        "exact" if loop.plain and not at_most(loop.largest_k, 2.0) else "sufficient",
        f"gain N_n = {loop.largest_k:.4g}; no overshoot to 1, asymptotic to 2, a cycle beyond",
        (FROZEN, REACHABLE),
        0.0,
        loop.constants(monotone_gain=1.0 / loop.n_max, gain_limit=2.0 / loop.n_max),
        holds=at_most(loop.largest_k, 1.0),
    )


def _smoothed(law: Any, loop: Loop, name: str, bound: float) -> Certificate:
    monotone, linear = smooth_monotone_limit(loop.beta), smooth_linear_limit(loop.beta)
    diverges = loop.plain and loop.largest_k > linear
    return issue(
        law,
        name,
        kind="exact" if diverges else "sufficient",
        holds=at_most(loop.largest_k, monotone),
        statement=(
            f"gain N_n = {loop.largest_k:.4g}; no overshoot to {monotone:.4g}, unstable beyond "
            f"{linear:.4g} at beta = {loop.beta:g}"
        ),
        assumptions=(FROZEN, REACHABLE),
        constants=loop.constants(monotone_k=monotone, linear_k=linear),
        bound=bound,
        unit=_UNITS[name],
        derivation="Smoothed error",
    )


def _printed(law: Any, bare: SeedLiteral, name: str, bound: float) -> Certificate:
    statement = f"error times 1 + eta V, eta = {bare.eta:g}: grows wherever V > 0"
    given = {"eta": bare.eta}
    frozen = (FROZEN, REACHABLE)
    return _issue(law, name, "exact", statement, frozen, bound, given, holds=False)


_UNITS = {STABILITY: "of the first error", SETTLES: "ln T"}


def _issue(
    law: Any,
    name: str,
    kind: Kind,
    statement: str,
    assumptions: tuple[str, ...],
    bound: float,
    constants: dict[str, float] | None = None,
    *,
    holds: bool = True,
) -> Certificate:
    return issue(
        law,
        name,
        kind=kind,
        holds=holds,
        statement=statement,
        assumptions=assumptions,
        constants=constants,
        bound=bound,
        unit=_UNITS[name],
        derivation="Contraction",
    )
