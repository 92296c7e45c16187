"""Adaptive-p: feedback on the probability of sampled tokens, by reshaping the whole row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from controllers import ops
from controllers.core import TokenSignal, require
from controllers.ops import Array
from controllers.samplers import rows
from controllers.samplers.core import Shaped, lanes_like, select, unheated

PEAK = 5.0  # logit of a token at the target
SHARPNESS = 10.0
WIDTH = 0.3  # probability


class AdaptiveState(NamedTuple):
    """Decayed sum of accepted probabilities, and of their weights, ``[B]`` each."""

    weighted: Array
    weight: Array


class AdaptiveMemo(NamedTuple):
    """ln p of the row before it was reshaped, ``[B, n]``."""

    log_p: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveP:
    """z_i = 5 - 10 d^2/(1 + d), d = |p_i - t|/.3, t = clip(2 target - mean, 0, 1).

    llama.cpp pull request 17927. The mean is over the probabilities, before reshaping, of accepted
    tokens with weights decay^age; it starts at the target, because started at zero it holds t above
    the target until it has caught up. Masked tokens stay masked. Belongs last, after a truncation:
    it raises the tail of a row wherever t is small. llama.cpp has it off (target < 0) by default;
    off is here to leave it out.
    """

    target: float = 0.5  # probability, in [0, 1]
    decay: float = 0.9  # in [0, .99]

    def __post_init__(self) -> None:
        require(0.0 <= self.target <= 1.0, "target must lie in [0, 1]", target=self.target)
        require(0.0 <= self.decay <= 0.99, "decay must lie in [0, 0.99]", decay=self.decay)

    def init(self, signal: TokenSignal) -> AdaptiveState:
        """Start as if the target had always been met."""
        weight = 1.0 / (1.0 - self.decay)
        like = signal.x_user
        return AdaptiveState(lanes_like(like, self.target * weight), lanes_like(like, weight))

    def aim(self, state: AdaptiveState) -> Array:
        """Return t, the probability favoured next, ``[B]``."""
        return ops.clip(2.0 * self.target - state.weighted / state.weight, 0.0, 1.0)

    def shape(self, state: AdaptiveState, logits: Array, signal: TokenSignal) -> Shaped:
        """Favour tokens whose probability is near t."""
        log_p = rows.log_softmax(logits)
        d = abs(rows.exp(log_p) - self.aim(state)[:, None]) / WIDTH
        shaped = PEAK - SHARPNESS * d * d / (1.0 + d)
        return unheated(rows.keep_where(rows.finite(logits), shaped), AdaptiveMemo(log_p))

    def accept(self, state: AdaptiveState, shaped: Shaped, token: Array) -> AdaptiveState:
        """Blend in the probability that the kept token had before reshaping."""
        p = rows.exp(rows.take_along(shaped.memo.log_p, token))
        after = AdaptiveState(p + self.decay * state.weighted, 1.0 + self.decay * state.weight)
        return select(token >= 0, after, state)
