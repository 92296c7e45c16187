"""The micro loop in numbers: what a feedback law's gains come to on a response of slope V."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from controllers.certificates.wrapping import bare
from controllers.core import require
from controllers.entropy import max_varentropy
from controllers.smoothed import SmoothedFeedback
from controllers.temperature import EntropyFeedback, FeedforwardNewton, FixedTemperature

VOCABULARY = 50_257  # outcomes, where a caller names none
ROUNDING = 1e-12  # relative: a gain given as 2/N_n must count as 2/N_n

FROZEN = "fixed logits over n outcomes, measured without noise"
REACHABLE = "H* is the entropy at some x* between the clips"
OPEN_LOOP = "no memory of the output: on fixed logits the command is constant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """x+ = x - (at most ``gain``) * smoothed error, for entropies of slope 0 to ``n_max``."""

    n_max: float  # N_n, nats^2
    gain: float  # ln T per nat
    c: float
    v0: float
    rate: float
    beta: float  # 1: the error is not smoothed

    @property
    def largest_k(self) -> float:
        """Gain N_n: the largest multiplier of an error by a secant slope, dimensionless."""
        return self.gain * self.n_max

    @property
    def local_k(self) -> float:
        """The largest g(V) V, at V = N_n, for both branches of g V rise with V."""
        return min(self.largest_k, self._capped(self.n_max))

    @property
    def plain(self) -> bool:
        """Whether g = gain for every V up to N_n, so that c never binds."""
        return self.c >= self.gain * (self.n_max + self.v0)

    def gain_at(self, v: float) -> float:
        """Return g = min(gain, c/(v + v0)), ln T per nat."""
        return min(self.gain, self.c / (v + self.v0))

    def _capped(self, v: float) -> float:
        return self.c * v / (v + self.v0) if math.isfinite(self.c) else math.inf

    def constants(self, **more: float) -> dict[str, float]:
        """Return what a certificate of this loop is computed from."""
        return {
            "n_max": self.n_max,
            "gain": self.gain,
            "c": self.c,
            "v0": self.v0,
            "rate": self.rate,
            "beta": self.beta,
            "gain_n_max": self.largest_k,
            **more,
        }


def loop_of(law: Any, n_outcomes: int) -> Loop | None:
    """Return the loop that a bare feedback law closes; None for laws of another kind."""
    require(n_outcomes >= 2, "entropy needs two outcomes or more", n_outcomes=n_outcomes)
    if not isinstance(law, EntropyFeedback | SmoothedFeedback):
        return None
    return Loop(
        n_max=max_varentropy(n_outcomes),
        gain=law.gain,
        c=law.c,
        v0=law.v0,
        rate=law.rate,
        beta=law.beta if isinstance(law, SmoothedFeedback) else 1.0,
    )


def inner(law: Any) -> Any:
    """Return the law in charge under the wrappers, or None where they are not ours to judge."""
    found = bare(law)
    return None if found is None else found.law


def open_loop(law: Any) -> bool:
    """Tell whether a bare temperature law never reads what it has steered."""
    return isinstance(law, FixedTemperature | FeedforwardNewton)


def constant(law: Any) -> bool:
    """Tell whether a law, wrappers and all, commands one ln T on fixed logits from the first step.

    A filter begins at the user's ln T, and so does ``FixedTemperature``; ``FeedforwardNewton``
    does not.
    """
    found = bare(law)
    if found is None or not open_loop(found.law):
        return False
    filtered = found.delay_steps > 0 or bool(found.rates)
    return not filtered or isinstance(found.law, FixedTemperature)


def at_most(value: float, limit: float) -> bool:
    """Compare with room for the rounding of products such as gain N_n."""
    return value <= limit * (1.0 + ROUNDING)


def smooth_monotone_limit(beta: float) -> float:
    """Return the largest gain N_n without overshoot under smoothing, (1 - q)/(1 + q).

    q = sqrt(1 - beta); 1 at beta = 1. README, "Smoothed error".
    """
    q = math.sqrt(1.0 - beta)
    return (1.0 - q) / (1.0 + q)


def smooth_linear_limit(beta: float) -> float:
    """Return the k = g V at which the smoothed loop oscillates for ever, 2(2 - beta)/beta."""
    return 2.0 * (2.0 - beta) / beta
