"""priority.*: late and nearly finished requests rise, scores are bounded, waits end."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, Protocol, runtime_checkable

from controllers.certificates.certificate import Certificate
from controllers.certificates.feedback import VOCABULARY
from controllers.certificates.wrapping import brought, issue, replaces_ours
from controllers.core import require
from controllers.priority import SEED_FLOOR, EntropyPriority, Fcfs, SeedPriority
from controllers.schedulers import (
    LearnedRank,
    ShortestJob,
    SkipJoinMlfq,
    SrptOracle,
    UserPriority,
    Vtc,
)

URGENCY = "priority.urgency"
COMPLETION = "priority.completion"
BOUNDED = "priority.bounded"
AGING = "priority.aging"

HIGHEST_ENTROPY = math.log(VOCABULARY)  # nats, so of its mean fall too

_BLIND = Fcfs | UserPriority | ShortestJob | SrptOracle | LearnedRank | SkipJoinMlfq | Vtc
_NO_AGING = SeedPriority | UserPriority | ShortestJob | SrptOracle | Vtc
_LIKE = ("all other signals equal", "no term overflows float32")


@runtime_checkable
class ClaimsAging(Protocol):
    """A law that names a rate of aging and a wait after which nothing fresh outranks."""

    @property
    def kappa(self) -> float:
        """Return the rate of aging, score per second of wait."""
        ...

    @property
    def max_wait_s(self) -> float:
        """Return the claimed wait, seconds."""
        ...


def priority_urgency(law: Any) -> Certificate | None:
    """Bound by 0 what falling slack takes away from the priority."""
    found = brought(law, URGENCY)
    if found is not None or replaces_ours(law):
        return found
    match law:
        case EntropyPriority():
            statement = "urgency enters the numerator with rho_u >= 0"
            return _issue(law, URGENCY, statement, _LIKE, 0.0, {"rho_u": law.rho_u})
        case SeedPriority():
            statement = "urgency enters the denominator with gamma > 0: late requests sink"
            given = {"gamma": law.gamma}
            return _issue(law, URGENCY, statement, _LIKE, 0.0, given, holds=False)
        case _ if isinstance(law, _BLIND):
            return _issue(law, URGENCY, "does not read slack", _LIKE, 0.0)
        case _:
            return None


def priority_completion(law: Any) -> Certificate | None:
    """Bound by 0 what more completion takes away from the priority."""
    found = brought(law, COMPLETION)
    if found is not None or replaces_ours(law):
        return found
    match law:
        case EntropyPriority():
            statement = "completion enters the numerator with rho_c >= 0"
            return _issue(law, COMPLETION, statement, _LIKE, 0.0, {"rho_c": law.rho_c})
        case _ if isinstance(law, _BLIND | SeedPriority):
            return _issue(law, COMPLETION, "does not read completion", _LIKE, 0.0)
        case _:
            return None


def priority_bounded(law: Any, collapse_nats: float = HIGHEST_ENTROPY) -> Certificate | None:
    """Bound the priority at wait 0; Proposition 2 of the paper, which needs a floor under C.

    The printed law is bounded by our own floor, as far as ``collapse_nats`` bounds its numerator.
    """
    found = brought(law, BOUNDED)
    if found is not None or replaces_ours(law):
        return found
    match law:
        case EntropyPriority():
            statement = "clipped to [0, pi_max] before aging"
            return _issue(law, BOUNDED, statement, ("wait is 0",), law.pi_max)
        case SeedPriority():
            statement = "a ratio over our floor of 1e-6; as printed, without bound"
            given = ("wait is 0", f"E[dH+] <= {collapse_nats:.4g} nats")
            return _issue(law, BOUNDED, statement, given, collapse_nats / SEED_FLOOR)
        case _:
            return None


def aging(law: Any) -> Certificate | None:
    """Bound the wait, seconds, after which nothing fresh outranks: pi_max/kappa. README, Aging.

    A law that claims such a wait with kappa = 0 is refused with a ``ValueError``: its scores would
    not rise at all. So is a claim that is no number.
    """
    if isinstance(law, ClaimsAging):
        for key, value in (("kappa", law.kappa), ("max_wait_s", law.max_wait_s)):
            require(isinstance(value, Real), f"{key} must be a number", **{key: value})
        require(
            math.isfinite(law.kappa) and law.kappa > 0.0,
            "a claimed bound on the wait needs kappa > 0",
            law=type(law).__name__,
            kappa=law.kappa,
            max_wait_s=law.max_wait_s,
        )
    found = brought(law, AGING)
    if found is not None or replaces_ours(law):
        return found
    fresh = ("a fresh request has waited 0 s", "ties go to the earlier arrival")
    match law:
        case EntropyPriority():
            statement = f"pi_max/kappa = {law.max_wait_s:g} s"
            given = {"pi_max": law.pi_max, "kappa": law.kappa}
            return _issue(law, AGING, statement, fresh, law.max_wait_s, given)
        case Fcfs():
            statement = "age grows with every second waited, and a fresh request has none"
            return _issue(law, AGING, statement, (*fresh, "age >= wait"), 0.0)
        case LearnedRank():
            statement = f"put before all others after {law.guard_steps:g} plans, not seconds"
            given = {"guard_steps": law.guard_steps}
            steps = (*fresh, "plans go on")
            return _issue(law, AGING, statement, steps, law.guard_steps, given, "plans")
        case SkipJoinMlfq():
            statement = "back at the top, where fresh arrivals tie and lose by arrival"
            given = {"promote_after_s": law.promote_after_s}
            return _issue(law, AGING, statement, fresh, law.promote_after_s, given)
        case _ if isinstance(law, _NO_AGING):
            statement = "the score does not rise with the wait: fresh requests outrank for ever"
            return _issue(law, AGING, statement, fresh, math.inf, holds=False)
        case _:
            return None


_UNITS = {URGENCY: "priority", COMPLETION: "priority", BOUNDED: "priority", AGING: "s"}
_DERIVED = {URGENCY: "Order", COMPLETION: "Order", BOUNDED: "Order", AGING: "Aging"}


def _issue(
    law: Any,
    name: str,
    statement: str,
    assumptions: tuple[str, ...],
    bound: float,
    constants: dict[str, float] | None = None,
    unit: str = "",
    *,
    holds: bool = True,
) -> Certificate:
    return issue(
        law,
        name,
        kind="exact",
        holds=holds,
        statement=statement,
        assumptions=assumptions,
        constants=constants,
        bound=bound,
        unit=unit or _UNITS[name],
        derivation=_DERIVED[name],
    )
