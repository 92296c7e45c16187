"""micro.windup, micro.cap, micro.bypass, and set-points out of reach: laws at their clips."""

from __future__ import annotations

import math
from typing import Any

from controllers.certificates.certificate import Certificate
from controllers.certificates.feedback import VOCABULARY, loop_of
from controllers.certificates.wrapping import bare, brought, issue
from controllers.compose import Gated
from controllers.core import require
from controllers.smoothed import SmoothedFeedback
from controllers.temperature import (
    EntropyFeedback,
    FeedforwardNewton,
    FixedTemperature,
    SeedLiteral,
)

WINDUP = "micro.windup"
CAP = "micro.cap"
BYPASS = "micro.bypass"
SATURATION = "micro.saturation"

_OURS = (FixedTemperature, FeedforwardNewton, EntropyFeedback, SmoothedFeedback, SeedLiteral)


def require_target(target_nats: float, n_outcomes: int = VOCABULARY) -> None:
    """Raise ``ValueError`` unless some distribution over ``n_outcomes`` has entropy target_nats."""
    require(n_outcomes >= 1, "an alphabet has one outcome or more", n_outcomes=n_outcomes)
    highest = math.log(n_outcomes)
    require(
        0.0 <= target_nats <= highest,  # false for NaN
        f"target_nats must lie in [0, ln n = {highest:.4g}]",
        target_nats=target_nats,
    )


def reachable(h_min: float, h_max: float, target_nats: float) -> bool:
    """Tell whether H* lies between the entropies at the two clips, nats; H rises in between."""
    return h_min <= target_nats <= h_max


def windup(law: Any) -> Certificate | None:
    """Bound the steps from the first error that points inward to the command leaving its clip."""
    if found := brought(law, WINDUP):
        return found
    wrapped = bare(law)
    if wrapped is None or not isinstance(wrapped.law, _OURS):
        return None
    if isinstance(wrapped.law, FixedTemperature):
        return None
    positive = isinstance(wrapped.law, SeedLiteral)
    # A smoothed error may arrive exactly at the clip, unclipped and so still remembered.
    steps = 2 if isinstance(wrapped.law, SmoothedFeedback) else 1
    return issue(
        law,
        WINDUP,
        kind="exact" if positive else "sufficient",
        holds=not positive,
        statement=(
            "an error that points inward drives the printed law outward"
            if positive
            else "the clipped command is the whole memory, so nothing winds up behind the clip"
        ),
        assumptions=(
            "the error points inward from then on",
            "the move does not round to zero",
            "the clips leave room: x_cap > x_min",
        ),
        constants={"delay": wrapped.delay_steps},
        bound=math.inf if positive else steps + wrapped.delay_steps,
        unit="steps",
        derivation="Clips",
    )


def saturates(law: Any, gap_nats: float, n_outcomes: int = VOCABULARY) -> Certificate | None:
    """Bound the steps to the clip nearest an unreachable H*, ``gap_nats`` away from it.

    ``gap_nats`` is the distance of H* from the entropy at that clip. The command moves one way and
    then rests: no oscillation. The printed law goes to the opposite clip.
    """
    require(gap_nats > 0.0, "gap_nats must be positive: H* is out of reach", gap_nats=gap_nats)
    if found := brought(law, SATURATION):
        return found
    wrapped = bare(law)
    if wrapped is None:
        return None
    positive = isinstance(wrapped.law, SeedLiteral)
    loop = loop_of(wrapped.law, n_outcomes)
    if not positive and (loop is None or loop.beta < 1.0 or wrapped.rates):
        return None
    bound = math.inf
    if loop is not None:
        stride = min(loop.rate, loop.gain_at(loop.n_max) * gap_nats)
        # One step more: strides summed in float32 may end an ulp short of the clip.
        steps = math.ceil((wrapped.law.x_max - wrapped.law.x_min) / stride) + 1
        bound = steps + wrapped.delay_steps
    return issue(
        law,
        SATURATION,
        kind="exact" if positive else "sufficient",
        holds=not positive,
        statement="ends on the wrong clip" if positive else "one way to the nearer clip, and rests",
        assumptions=(
            "H - H* keeps its sign between the clips",
            "no noise that turns it",
            "every move is large beside the rounding of ln T",
        ),
        constants={"gap_nats": gap_nats},
        bound=bound,
        unit="steps",
        derivation="Clips",
    )


def cap(law: Any) -> Certificate | None:
    """Bound the command's excess over a constant one-sided cap x_cap = x_user, ln T, by 0."""
    if found := brought(law, CAP):
        return found
    wrapped = bare(law)
    if wrapped is None or not isinstance(wrapped.law, _OURS):
        return None
    return issue(
        law,
        CAP,
        kind="exact",
        holds=True,
        statement="the command is the cap itself, or is clipped to it last of all",
        assumptions=(
            "x_cap = x_user, finite, constant, at or above the greedy floor",
            "the lane is switched on, or falls back to x_user",
        ),
        bound=0.0,
        unit="ln T",
        derivation="Clips",
    )


def bypass(law: Any) -> Certificate | None:
    """Bound the distance of a switched-off lane's command from x_user, ln T, by 0."""
    if found := brought(law, BYPASS):
        return found
    if not isinstance(law, Gated) or not isinstance(law.fallback, FixedTemperature):
        return None
    return issue(
        law,
        BYPASS,
        kind="exact",
        holds=True,
        statement="a lane with enabled = 0 takes the fallback's command, x_user, bit for bit",
        assumptions=("x_user is finite",),
        bound=0.0,
        unit="ln T",
        derivation="Clips",
    )
