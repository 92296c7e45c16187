"""Mirostat: feedback on the surprise of sampled tokens, with truncation as its actuator.

Basu et al., ICLR 2021, arXiv:2007.14966; constants from basusourya/mirostat and llama.cpp. Both
versions keep mu, the largest surprise let through, in bits: mu starts at 2 tau and moves by
-rate (S - tau), S the surprise of the accepted token. ``surprise`` says which S: "pre" is
-log2 p before truncation, as the authors' code has it; "post" is after truncation and
renormalisation, as llama.cpp has it, which regulates another and smaller quantity. Neither bounds
mu: where tau is out of reach it winds up without end, as published.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from controllers import ops
from controllers.core import TokenSignal, require
from controllers.ops import Array
from controllers.samplers import rows
from controllers.samplers.core import Shaped, lanes_like, select, unheated
from controllers.samplers.truncation import top_k
from controllers.temperature import require_positive

Surprise = Literal["pre", "post"]


class MirostatState(NamedTuple):
    """The largest surprise let through, bits, ``[B]``."""

    mu: Array


class MirostatMemo(NamedTuple):
    """ln of the mass that a token's surprise is relative to, ``[B]``."""

    log_total: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class MirostatV1:
    """Top-k with k from a Zipf fit: k = round((eps 2^mu/(1 - n^-eps))^(1/s)) + 1, eps = s - 1.

    s = sum b_i t_i / sum t_i^2 over the first ``pairs`` neighbours, b_i = ln(p_i/p_{i+1}),
    t_i = ln((i+2)/(i+1)). ``llama_cpp()`` gives that port: k = max(floor, 1) and other constants.
    Two traps are guarded: near eps = 0 the quotient is 0/0 and goes to 1/ln n; and k stays
    in [1, n], where an integer cast would overflow on nearly uniform rows and keep one token.
    """

    tau_bits: float = 3.0
    rate: float = 1.0  # per token
    pairs: int = 100
    n: int | None = None  # size of the alphabet in the formula; None: the row's, published 50,000
    surprise: Surprise = "pre"
    plus_one: bool = True  # round and add one; false: round down

    def __post_init__(self) -> None:
        require_positive(tau_bits=self.tau_bits, rate=self.rate)
        require(self.pairs >= 1, "pairs must be >= 1", pairs=self.pairs)
        require(self.n is None or self.n >= 2, "n must be >= 2 or None", n=self.n)
        _require_surprise(self.surprise)

    @classmethod
    def llama_cpp(cls) -> MirostatV1:
        """Return the variant and defaults of llama.cpp, which fits 99 pairs."""
        return cls(tau_bits=5.0, rate=0.1, pairs=99, surprise="post", plus_one=False)

    def init(self, signal: TokenSignal) -> MirostatState:
        """Start at mu = 2 tau."""
        return MirostatState(lanes_like(signal.x_user, 2.0 * self.tau_bits))

    def shape(self, state: MirostatState, logits: Array, signal: TokenSignal) -> Shaped:
        """Keep the k most likely tokens."""
        n = logits.shape[-1] if self.n is None else self.n
        s = zipf_exponent(logits, self.pairs)
        log_k = (state.mu * rows.LN2 + log_quotient(s - 1.0, n)) / ops.maximum(s, 1e-6)
        k = rows.exp(ops.clip(log_k, -50.0, math.log(logits.shape[-1])))
        # "rank < k" keeps ceil(k): a half more is round(k) + 1, a whole less is floor(k).
        kept = top_k(logits, k + 0.5 if self.plus_one else k - 1.0 + 1e-6)
        return unheated(kept, _memo(logits, kept, self.surprise))

    def accept(self, state: MirostatState, shaped: Shaped, token: Array) -> MirostatState:
        """Move mu by the surprise of the kept token."""
        return _moved(state, shaped, token, self.tau_bits, self.rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class MirostatV2:
    """Keep the tokens with -log2 p <= mu, and always the most likely one.

    Defaults are the authors' (tau 3, rate 1); ``llama_cpp()`` has tau 5, rate .1, "post".
    """

    tau_bits: float = 3.0
    rate: float = 1.0  # per token
    surprise: Surprise = "pre"

    def __post_init__(self) -> None:
        require_positive(tau_bits=self.tau_bits, rate=self.rate)
        _require_surprise(self.surprise)

    @classmethod
    def llama_cpp(cls) -> MirostatV2:
        """Return the variant and defaults of llama.cpp."""
        return cls(tau_bits=5.0, rate=0.1, surprise="post")

    def init(self, signal: TokenSignal) -> MirostatState:
        """Start at mu = 2 tau."""
        return MirostatState(lanes_like(signal.x_user, 2.0 * self.tau_bits))

    def shape(self, state: MirostatState, logits: Array, signal: TokenSignal) -> Shaped:
        """Cut the tokens more surprising than mu."""
        top = rows.largest(logits)
        edge = ops.minimum(rows.log_total(logits) - state.mu * rows.LN2, top)
        kept = rows.keep_where(logits >= edge[:, None], logits)
        return unheated(kept, _memo(logits, kept, self.surprise))

    def accept(self, state: MirostatState, shaped: Shaped, token: Array) -> MirostatState:
        """Move mu by the surprise of the kept token."""
        return _moved(state, shaped, token, self.tau_bits, self.rate)


def zipf_exponent(logits: Array, pairs: int) -> Array:
    """Fit s of p_i ~ i^-s to the ``pairs`` steps between the most likely tokens, ``[B]``.

    Steps to a masked token are left out; 0 where nothing is left to fit.
    """
    ordered = rows.descending(logits)[:, : pairs + 1]
    rank = rows.ranks(ordered)[:-1]
    t = rows.log((rank + 2.0) / (rank + 1.0))[None, :]
    high, low = ordered[:, :-1], ordered[:, 1:]
    left, nil = rows.finite(low), ops.full_like(low, 0.0)
    b = ops.where(left, high, nil) - ops.where(left, low, nil)
    t = ops.where(left, t + nil, nil)
    return rows.total(b * t) / ops.maximum(rows.total(t * t), 1e-30)


def log_quotient(eps: Array, n: int) -> Array:
    """Return ln(eps / (1 - n^-eps)), ``[B]``; its limit -ln ln n at eps = 0."""
    log_n = math.log(max(n, 2))  # a row of one token has no quotient, and no choice
    y = ops.clip(eps * log_n, -80.0, 80.0)
    near = abs(y) < 1e-3
    one = lanes_like(y, 1.0)
    safe = ops.where(near, one, y)
    ratio = ops.where(near, one + 0.5 * y, safe / (one - rows.exp(-safe)))
    # Past the clip n^-eps is nil, and the quotient is eps itself.
    far = ops.where(y >= 80.0, eps, one)
    return ops.where(y >= 80.0, rows.log(far), rows.log(ratio) - math.log(log_n))


def _memo(before: Array, kept: Array, surprise: Surprise) -> MirostatMemo:
    return MirostatMemo(rows.log_total(before if surprise == "pre" else kept))


def _moved(
    state: MirostatState, shaped: Shaped, token: Array, tau_bits: float, rate: float
) -> MirostatState:
    log_total, logit = shaped.memo.log_total, rows.take_along(shaped.logits, token)
    # A token that was cut, forced from outside, has no surprise to learn from.
    learns = (token >= 0) & rows.finite(logit)
    surprise = (log_total - ops.where(learns, logit, log_total)) / rows.LN2
    return select(learns, MirostatState(state.mu - rate * (surprise - tau_bits)), state)


def _require_surprise(surprise: str) -> None:
    require(surprise in ("pre", "post"), 'surprise must be "pre" or "post"', surprise=surprise)
