"""micro.variance: whether feedback lowers the variance of an entropy that wanders by itself."""

from __future__ import annotations

from typing import Any

from controllers.certificates.certificate import Certificate
from controllers.certificates.feedback import VOCABULARY, loop_of
from controllers.certificates.wrapping import bare, brought, issue
from controllers.core import require

NAME = "micro.variance"


def variance_ratio(k: float, rho: float) -> float:
    """Return Var H closed over open loop where the command acts one token late.

    2(1 - rho)/((1 + c)(1 - c rho)), c = 1 - k, k = g V in (0, 2); rho in (-1, 1) is the lag-1
    correlation of the open-loop entropy, an AR(1). Below 1 iff rho > 1/(3 - k). README, "Noise".
    """
    c = _multiplier(k, rho)
    return 2.0 * (1.0 - rho) / ((1.0 + c) * (1.0 - c * rho))


def same_step_variance_ratio(k: float, rho: float) -> float:
    """Return the ratio where the command acts on the logits it was measured on: c^2 times that.

    Below 1 iff c(2 - rho) > -1; so for every rho where 0 < k <= 1.
    """
    return _multiplier(k, rho) ** 2 * variance_ratio(k, rho)


def least_correlation(k: float) -> float:
    """Return 1/(3 - k): above this lag-1 correlation, late feedback lowers the variance."""
    require(0.0 < k < 2.0, "k = g V must lie in (0, 2)", k=k)
    return 1.0 / (3.0 - k)


def variance(
    law: Any, v: float, rho: float, n_outcomes: int = VOCABULARY, *, same_step: bool = True
) -> Certificate | None:
    """Give the variance ratio of a loop on a response of constant slope ``v``, nats^2; exact.

    ``same_step``: the command applies to the logits it was measured on, as in our loop; False is
    the paper's one token later, and so is ``delayed(law, 1)``. None for smoothed and foreign laws,
    for those later still, and where g V is not below 2.
    """
    if found := brought(law, NAME):
        return found
    wrapped = bare(law)
    loop = None if wrapped is None else loop_of(wrapped.law, n_outcomes)
    if wrapped is None or loop is None or loop.beta < 1.0:
        return None
    late = wrapped.delay_steps + (not same_step)
    if late > 1:
        return None
    k = loop.gain_at(v) * v
    if not 0.0 < k < 2.0:
        return None
    ratio = variance_ratio(k, rho) if late else same_step_variance_ratio(k, rho)
    return issue(
        law,
        NAME,
        kind="exact",
        holds=ratio < 1.0,
        statement=f"Var H closed over open loop = {ratio:.4g} at g V = {k:.4g}, rho = {rho:g}",
        assumptions=(
            "open-loop entropy is a stationary AR(1) with lag-1 correlation rho",
            "the response has one slope v for all tokens",
            "neither the clips nor a rate limit bind",
        ),
        constants=loop.constants(
            v=v, rho=rho, k=k, late=late, least_correlation=least_correlation(k)
        ),
        bound=ratio,
        unit="of the open-loop variance",
        derivation="Noise",
    )


def _multiplier(k: float, rho: float) -> float:
    require(0.0 < k < 2.0, "k = g V must lie in (0, 2)", k=k)
    require(-1.0 < rho < 1.0, "rho must lie in (-1, 1)", rho=rho)
    return 1.0 - k
