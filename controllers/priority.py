"""Priority laws: load signals in, priority out, float32 ``[B]``; larger goes first.

They read relative times and modelled costs, never absolute times or true output lengths. Those
here are stateless; published peers are in ``controllers/schedulers``. NaN policy: a non-finite
term counts as zero, so the order stays total.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

from controllers import ops
from controllers.core import Law, LoadSignal, require
from controllers.ops import Array

Stateless = tuple[()]

SEED_FLOOR = 1e-6


class PriorityLaw(Law, Protocol):
    """A law whose command is a priority, ``[B]``; larger first."""

    reserves: ClassVar[bool]  # a head of line that does not yet fit blocks those behind it
    oracle: ClassVar[bool]  # reads true output lengths, which only a simulation can know


@dataclass(frozen=True, slots=True, kw_only=True)
class Fcfs:
    """pi = age_s: first come, first served; the baseline. No feedback, no starvation."""

    reserves: ClassVar[bool] = True
    oracle: ClassVar[bool] = False

    def init(self, signal: LoadSignal) -> Stateless:
        """Return the empty state."""
        return ()

    def update(self, state: Stateless, signal: LoadSignal) -> tuple[Stateless, Array]:
        """Return the age, seconds."""
        return state, ops.finite_or(signal.age_s, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class EntropyPriority:
    """pi = clip(gain/max(c_min, alpha C + beta M), 0, pi_max) + kappa wait; larger first.

    gain = E[dH+] + rho_u urgency + rho_c completion,  urgency = clip(1 - slack/slack_scale, 0, 1).

    The paper's section 3.1 with its defects repaired: urgency raises priority, nearly finished
    requests are helped out, the denominator has a floor, and aging (kappa > 0) bounds every wait:
    after ``max_wait_s`` nothing fresh outranks. The bound on service also needs a scheduler that
    admits nobody past a head of line that does not fit, as ours does.
    """

    reserves: ClassVar[bool] = True
    oracle: ClassVar[bool] = False

    rho_u: float = 1.0  # nats
    rho_c: float = 0.5  # nats
    alpha: float = 1.0  # per second of modelled cost
    beta: float = 0.001  # per page held or needed: 1,000 pages weigh like one second
    c_min: float = 0.1  # floor of the dimensionless price
    pi_max: float = 10.0  # nats
    kappa: float = 10.0 / 60.0  # nats per second of wait: a minute outweighs any value
    slack_scale_s: float = 10.0  # slack at or above which nothing is urgent

    def __post_init__(self) -> None:
        for name in ("rho_u", "rho_c", "alpha", "beta"):
            value = getattr(self, name)
            require(math.isfinite(value) and value >= 0, f"{name} must be >= 0", **{name: value})
        for name in ("c_min", "pi_max", "kappa", "slack_scale_s"):
            value = getattr(self, name)
            require(math.isfinite(value) and value > 0, f"{name} must be positive", **{name: value})

    @property
    def max_wait_s(self) -> float:
        """Seconds of wait after which nothing with zero wait outranks: pi_max/kappa."""
        return self.pi_max / self.kappa

    def init(self, signal: LoadSignal) -> Stateless:
        """Return the empty state."""
        return ()

    def update(self, state: Stateless, signal: LoadSignal) -> tuple[Stateless, Array]:
        """Return the aged, clipped value per cost, nats."""
        gain = (
            ops.finite_terms(signal.collapse_nats)
            + self.rho_u * ops.finite_terms(_urgency(signal, self.slack_scale_s))
            + self.rho_c * ops.finite_terms(signal.completion)
        )
        price = ops.maximum(_price(signal, self.alpha, self.beta), self.c_min)
        # Clipped first: a quotient too large for float32 is worth the most, not nothing.
        value = ops.finite_terms(ops.clip(ops.divide(gain, price), 0.0, self.pi_max))
        return state, value + self.kappa * ops.finite_terms(signal.wait_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedPriority:
    """pi = E[dH+]/(alpha C + beta M + gamma L): the paper's section 3.1 as printed; L is urgency.

    Kept as a baseline with its defects: urgency in the denominator demotes late requests, resolved
    ones are held back with their pages, and a waiting request's entropy is frozen, so fresh
    arrivals outrank it for ever. Our only addition: a floor of 1e-6 keeps the denominator positive.
    """

    reserves: ClassVar[bool] = False
    oracle: ClassVar[bool] = False

    alpha: float = 1.0  # per second of modelled cost; the paper gives no values
    beta: float = 0.001  # per page
    gamma: float = 1.0  # per unit of urgency
    slack_scale_s: float = 10.0

    def __post_init__(self) -> None:
        for name in ("alpha", "beta", "gamma", "slack_scale_s"):
            value = getattr(self, name)
            require(math.isfinite(value) and value > 0, f"{name} must be positive", **{name: value})

    def init(self, signal: LoadSignal) -> Stateless:
        """Return the empty state."""
        return ()

    def update(self, state: Stateless, signal: LoadSignal) -> tuple[Stateless, Array]:
        """Return the printed ratio."""
        urgency = ops.finite_terms(_urgency(signal, self.slack_scale_s))
        price = _price(signal, self.alpha, self.beta) + self.gamma * urgency
        collapse = ops.finite_terms(signal.collapse_nats)
        return state, ops.divide(collapse, ops.maximum(price, SEED_FLOOR))


def _urgency(signal: LoadSignal, slack_scale_s: float) -> Array:
    return ops.clip(1.0 - signal.slack_s * (1.0 / slack_scale_s), 0.0, 1.0)


def _price(signal: LoadSignal, alpha: float, beta: float) -> Array:
    pages = ops.finite_terms(signal.pages_held) + ops.finite_terms(signal.pages_needed)
    return alpha * ops.finite_terms(signal.cost_s) + beta * pages
