"""A sampler of your own: min-p whose floor falls where the row has been open lately.

Verify it with ``entropic verify examples/third_party_sampler.py:OpenMinP``.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from controllers import ops
from controllers.core import TokenSignal
from controllers.ops import Array
from controllers.samplers import Shaped, rows
from controllers.samplers.core import select, unheated


class Openness(NamedTuple):
    """Smoothed entropy of the accepted steps, nats, float32 ``[B]``; state and memo."""

    h: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenMinP:
    """Keep p >= base exp(-mean H) p_max: a cut in logits, z >= z_max + ln base - mean H."""

    base: float = 0.1  # in (0, 1]
    beta: float = 0.2  # weight of the newest step, in (0, 1]

    def init(self, signal: TokenSignal) -> Openness:
        """Start as if every row had been sure."""
        return Openness(ops.full_like(signal.x_user, 0.0))

    def shape(self, state: Openness, logits: Array, signal: TokenSignal) -> Shaped:
        """Cut below the floor; the memo is the state if the token is kept."""
        edge = rows.largest(logits) + float(np.log(self.base)) - state.h
        h, _ = rows.entropy_varentropy(logits)
        after = Openness(state.h + self.beta * (h - state.h))
        return unheated(rows.keep_where(logits >= edge[:, None], logits), after)

    def accept(self, state: Openness, shaped: Shaped, token: Array) -> Openness:
        """Take the memo where a token was kept; -1 holds the lane."""
        return select(token >= 0, shaped.memo, state)
