"""Truncations: which tokens may be drawn at all, decided on the row after temperature.

Each keeps the largest logit of every row and masks the rest with -inf. They compare values, never
positions, so tied tokens stay or go together and the order of the vocabulary does not matter; at an
edge in the middle of a tie, the whole tie stays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from controllers import ops
from controllers.core import TokenSignal, require
from controllers.ops import Array
from controllers.samplers import rows
from controllers.samplers.core import NoState, Shaped, unheated


@dataclass(frozen=True, slots=True, kw_only=True)
class MinP:
    """Keep p >= p_base p_max, that is z >= z_max + ln p_base (Nguyen et al., arXiv:2407.01082).

    p_base .05 to .1 there; .05 in llama.cpp.
    """

    p_base: float = 0.05  # in (0, 1]

    def __post_init__(self) -> None:
        require(0.0 < self.p_base <= 1.0, "p_base must lie in (0, 1]", p_base=self.p_base)

    def init(self, signal: TokenSignal) -> NoState:
        """Return no state."""
        return NoState()

    def shape(self, state: NoState, logits: Array, signal: TokenSignal) -> Shaped:
        """Cut what is far below the largest logit."""
        edge = rows.largest(logits) + math.log(self.p_base)
        return unheated(rows.keep_where(logits >= edge[:, None], logits))

    def accept(self, state: NoState, shaped: Shaped, token: Array) -> NoState:
        """Return no state."""
        return state


@dataclass(frozen=True, slots=True, kw_only=True)
class TopNSigma:
    """Keep z >= z_max - n std(z), over the tokens a mask left; top-n-sigma (arXiv:2411.07641).

    n about 1. The set does not depend on temperature, which scales both sides.
    """

    n: float = 1.0  # standard deviations

    def __post_init__(self) -> None:
        require(math.isfinite(self.n) and self.n > 0.0, "n must be positive", n=self.n)

    def init(self, signal: TokenSignal) -> NoState:
        """Return no state."""
        return NoState()

    def shape(self, state: NoState, logits: Array, signal: TokenSignal) -> Shaped:
        """Cut below the largest logit by n standard deviations."""
        top = rows.largest(logits)[:, None]
        left = rows.finite(logits)
        z = ops.where(left, logits, top) - top
        one = ops.full_like(z, 1.0)
        count = rows.total(ops.where(left, one, 0.0 * one))
        d = z - (rows.total(z) / count)[:, None]
        spread = rows.sqrt(rows.total(ops.where(left, d * d, 0.0 * one)) / count)
        return unheated(rows.keep_where(left & (z >= -self.n * spread[:, None]), logits))

    def accept(self, state: NoState, shaped: Shaped, token: Array) -> NoState:
        """Return no state."""
        return state


@dataclass(frozen=True, slots=True, kw_only=True)
class TopP:
    """Keep the smallest set of most likely tokens with mass >= p (Holtzman et al., 1904.09751)."""

    p: float = 0.9  # in (0, 1]; 1 keeps everything

    def __post_init__(self) -> None:
        require(0.0 < self.p <= 1.0, "p must lie in (0, 1]", p=self.p)

    def init(self, signal: TokenSignal) -> NoState:
        """Return no state."""
        return NoState()

    def shape(self, state: NoState, logits: Array, signal: TokenSignal) -> Shaped:
        """Cut the tail beyond the mass p."""
        if self.p == 1.0:
            return unheated(logits)
        ordered = rows.descending(logits)
        share = rows.exp(rows.log_softmax(ordered))
        before = rows.cumulated(share) - share  # mass of the tokens ahead of each one
        return unheated(rows.keep_where(logits >= _edge(ordered, before < self.p), logits))

    def accept(self, state: NoState, shaped: Shaped, token: Array) -> NoState:
        """Return no state."""
        return state


@dataclass(frozen=True, slots=True, kw_only=True)
class TopK:
    """Keep the k largest logits, and what ties with the smallest of them."""

    k: int = 40

    def __post_init__(self) -> None:
        require(self.k >= 1, "k must be >= 1", k=self.k)

    def init(self, signal: TokenSignal) -> NoState:
        """Return no state."""
        return NoState()

    def shape(self, state: NoState, logits: Array, signal: TokenSignal) -> Shaped:
        """Cut below the k-th largest logit."""
        return unheated(top_k(logits, ops.full_like(logits[:, 0], float(self.k))))

    def accept(self, state: NoState, shaped: Shaped, token: Array) -> NoState:
        """Return no state."""
        return state


def top_k(logits: Array, k: Array) -> Array:
    """Keep the ``k [B]`` (real, at least one) largest logits of each row, with their ties."""
    ordered = rows.descending(logits)
    rank = rows.ranks(ordered)
    kept = rank[None, :] < ops.maximum(k, 1.0)[:, None]
    return rows.keep_where(logits >= _edge(ordered, kept), logits)


def _edge(ordered: Array, kept: Array) -> Array:
    """Return the smallest kept logit, ``[B, 1]``; the first of a row is always kept."""
    return rows.smallest(ops.where(kept, ordered, ordered[:, :1]))[:, None]
