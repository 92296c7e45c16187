"""coverage.*: unsure models read more, changes are rare and small, masked lanes read all."""

from __future__ import annotations

import math
from typing import Any

from controllers.certificates.certificate import Certificate
from controllers.certificates.wrapping import bare, brought, issue
from controllers.compose import Gated
from controllers.coverage import (
    DENSE,
    HIGHEST_SPARSE,
    EntropyCoverage,
    FixedCoverage,
    SeedCoverage,
)

MONOTONE = "coverage.monotone"
DIRECTION = "coverage.direction"
CHATTER = "coverage.chatter"
MASKED = "coverage.masked"

_LAWS = EntropyCoverage | FixedCoverage | SeedCoverage
_STEADY = "the entropy is constant for settle_steps or more, and finite"


def coverage_monotone(law: Any) -> Certificate | None:
    """Bound by 0 what a higher steady entropy takes away from the coverage."""
    bare_law, found = _find(law, MONOTONE)
    if found is not None or not isinstance(bare_law, _LAWS):
        return found
    return _issue(
        law,
        MONOTONE,
        "constant" if isinstance(bare_law, FixedCoverage) else "a ramp that rises with H",
        (_STEADY,),
        0.0,
        {"settle_steps": settle_steps(bare_law)},
    )


def coverage_direction(law: Any) -> Certificate | None:
    """Bound by 0 what a larger margin, a less certain estimate, takes away from the coverage."""
    bare_law, found = _find(law, DIRECTION)
    if found is not None:
        return found
    match bare_law:
        case EntropyCoverage():
            statement = "H_up = max(H + margin, h_min) rises with the margin, and the ramp with it"
            holds = True
        case SeedCoverage():
            statement = "the floor H - margin falls with the margin: unsure, it prunes more"
            holds = bare_law.p_min == bare_law.p_max
        case _:
            return None
    given = {"margin": bare_law.margin}
    return _issue(law, DIRECTION, statement, (_STEADY,), 0.0, given, holds=holds)


def coverage_chatter(law: Any) -> Certificate | None:
    """Bound the change of the coverage from one step to the next, and space the changes.

    ``constants``: changes are ``dwell`` steps apart or more. Where p_max = 1, the command jumps
    over (.99, 1), so a change may be 1 - .99 though the rate is less.
    """
    bare_law, found = _find(law, CHATTER)
    if found is not None:
        return found
    on = "steps with enabled = 1; the state holds while off"
    match bare_law:
        case FixedCoverage():
            return _issue(law, CHATTER, "never changes", (on,), 0.0, {"dwell": math.inf})
        case EntropyCoverage():
            jump = DENSE - HIGHEST_SPARSE if bare_law.p_max == DENSE else 0.0
            bound = max(bare_law.rate, jump)
            return _issue(
                law,
                CHATTER,
                f"changes by {bound:g} at most, {bare_law.dwell} steps apart or more",
                (on,),
                bound,
                {"dwell": bare_law.dwell, "rate": bare_law.rate},
            )
        case SeedCoverage():
            span = bare_law.p_max - bare_law.p_min
            statement = f"no dwell and no rate limit: any step may change it by {span:g}"
            free = {"dwell": 1.0}
            return _issue(law, CHATTER, statement, (on,), span, free, holds=span == 0.0)
        case _:
            return None


def coverage_masked(law: Any) -> Certificate | None:
    """Bound by 0 the distance of a masked lane's coverage from 1."""
    bare_law, found = _find(law, MASKED)
    if found is not None or not isinstance(bare_law, _LAWS):
        return found
    # On a masked lane the outermost gate's fallback commands, by default an ln T.
    if isinstance(law, Gated) and not isinstance(_find(law.fallback, MASKED)[0], _LAWS):
        return None
    statement = "masked lanes get exactly 1; every command lies in (0, .99] or is 1"
    return _issue(law, MASKED, statement, ("lanes with enabled = 0",), 0.0)


def settle_steps(law: Any) -> int:
    """Return the steps after which a steady entropy gives a steady coverage."""
    if not isinstance(law, EntropyCoverage):
        return 1
    # One change more than the quotient: rounding may leave a rest of one ulp.
    return law.dwell * (math.ceil((law.p_max - law.p_min) / law.rate) + 1)


def _find(law: Any, name: str) -> tuple[Any, Certificate | None]:
    wrapped = bare(law)
    # A filter changes coverage commands in ways not derived here.
    filtered = wrapped is not None and (wrapped.delay_steps > 0 or wrapped.rates)
    return (None if wrapped is None or filtered else wrapped.law), brought(law, name)


def _issue(
    law: Any,
    name: str,
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
        kind="exact",
        holds=holds,
        statement=statement,
        assumptions=assumptions,
        constants=constants,
        bound=bound,
        unit="coverage",
        derivation="Coverage",
    )
