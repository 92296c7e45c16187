"""Statistics of logit rows and draws from them: the definition every faster twin must match.

Shapes: S rows of n logits, m temperatures per row. A logit of -inf is a masked token. A row is
measurable if its largest logit is finite; any other (NaN, +inf, nothing left) gives NaN and -1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

FAR = -100.0  # exp(-100) is 0 in float32 sums; keeps -inf logits out of 0 * inf
STEEP = 1e30  # 1/T beyond which a logit times it, or its inverse, leaves float32

# Philox4x32 (Salmon et al., SC 2011): multipliers and key increments.
_MULTIPLY = (0xD2511F53, 0xCD9E8D57)
_RAISE = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_WORD = 0xFFFFFFFF
TO_UNIT = 4.6566127342e-10  # a 31-bit integer times this is below 1 in float32
LEAST_UNIFORM = 2.0**-32  # half the grid: an exact 0 would win every draw
SERIES_BELOW = 2.0**-6  # where 1 - u has lost too many bits of u


class RowStats(NamedTuple):
    """What ``row_stats`` returns."""

    argmax: Tensor  # int64 [S]: first index of the largest logit, -1 where there is none
    lse: Tensor  # [S, m]: ln sum exp(z/T)
    h: Tensor  # [S, m]: entropy of softmax(z/T), nats
    v: Tensor  # [S, m]: varentropy there, nats^2


class Drawn(NamedTuple):
    """What ``draw`` returns."""

    tokens: Tensor  # int64 [S], -1 where the row is not measurable
    h: Tensor  # [S]: entropy of the distribution drawn from, nats


def inverse_temperature(x: Tensor) -> Tensor:
    """Return 1/T at ``x = ln T``, kept where a product with a logit cannot become 0 * inf."""
    return torch.exp(-x).clamp(1.0 / STEEP, STEEP)


def row_stats(logits: Tensor, x: Tensor) -> RowStats:
    """Measure every row of ``logits [S, n]`` at ln T = ``x [S, m]``; float32 results.

    With d = (z - max z)/T, s = sum e^d, w = sum d e^d, q = sum d^2 e^d: lse = max z/T + ln s,
    H = ln s - w/s and V = q/s - (w/s)^2 (DESIGN section 3, "Estimators").
    """
    z = logits.float()
    peak = z.amax(-1)  # carries NaN
    fine = peak.isfinite()
    argmax = torch.where(fine, z.argmax(-1), -1)
    z = z - peak[:, None]
    inverse = inverse_temperature(x.float())
    columns = [_one_temperature(z, inverse[:, i]) for i in range(x.shape[1])]
    s, h, v = (torch.stack(part, dim=1) for part in zip(*columns, strict=True))
    lse = peak[:, None] * inverse + s.log()
    dead = ~fine[:, None]
    return RowStats(argmax, *(part.masked_fill(dead, math.nan) for part in (lse, h, v)))


def _one_temperature(distance: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return s, H and V of rows whose largest logit has been subtracted."""
    d = (distance * inverse[:, None]).clamp_min_(FAR)
    weight = d.exp()
    s = weight.sum(-1)
    weight *= d
    mean = weight.sum(-1) / s
    weight *= d
    return s, s.log() - mean, (weight.sum(-1) / s - mean.square()).clamp_min(0.0)


def draw(logits: Tensor, x: Tensor, noise: Tensor) -> Drawn:
    """Draw one token per row by inverting the CDF of softmax(z/T), and measure H there.

    ``logits [S, n]``, ``x [S]``, ``noise`` float64 in [0, 1), ``[S]``. The token is the first whose
    cumulative probability exceeds the noise, so one without probability is never drawn.
    """
    stats = row_stats(logits, x[:, None])
    fine = stats.argmax >= 0
    z = torch.where(fine[:, None], logits.float(), 0.0)
    d = (z - z.amax(-1, keepdim=True)) * inverse_temperature(x.float())[:, None]
    cumulative = d.exp().cumsum(-1, dtype=torch.float64)
    # "right" and a strict draw below the total never land on a zero-probability token.
    target = (noise * cumulative[:, -1])[:, None]
    tokens = torch.searchsorted(cumulative, target, right=True)[:, 0].clamp_max(z.shape[1] - 1)
    return Drawn(torch.where(fine, tokens, -1), stats.h[:, 0])


def gumbel_sample(logits: Tensor, x: Tensor, seeds: Tensor, positions: Tensor) -> Tensor:
    """Draw one token per row as argmax of z/T plus Gumbel noise, int64 ``[S]``.

    ``logits [S, n]``, ``x [S]``; ``seeds`` int64 ``[S]``; ``positions`` int64 ``[S]`` in [0, 2^31).
    The noise of token t is ``gumbel(uniform(seed, position, t))``: it depends on nothing else, so
    a draw does not depend on the batch. Ties go to the first index; -1 where not measurable.
    """
    z = logits.float()
    fine = z.amax(-1).isfinite()
    tokens = torch.arange(z.shape[1], device=z.device)
    noise = gumbel(uniform(seeds[:, None], positions[:, None], tokens))
    scores = z * inverse_temperature(x.float())[:, None] + noise
    return torch.where(fine, scores.argmax(-1), -1)


def gumbel(u: Tensor) -> Tensor:
    """Return -ln E with E = -ln(1 - u): standard Gumbel, fine-grained where it is large."""
    u = u.clamp_min(LEAST_UNIFORM)
    series = u * (1.0 + u * (0.5 + u * (1.0 / 3.0 + u * 0.25)))
    return -torch.where(u < SERIES_BELOW, series, -torch.log(1.0 - u)).log()


def uniform(seed: Tensor, position: Tensor, token: Tensor) -> Tensor:
    """Return float32 uniforms in [0, 1); integer arguments broadcast.

    Philox4x32-10 with the 64 bits of ``seed`` as key and (token, position, 0, 0) as counter, first
    word, brought to [0, 1) as Triton does: ``tl.rand(seed, position << 32 | token)``, bit for bit.
    """
    word = _philox4x32(token.long(), position.long(), seed.long())
    signed = torch.where(word > 0x7FFFFFFF, ~word & _WORD, word)
    return signed.float() * TO_UNIT


def _philox4x32(low: Tensor, high: Tensor, seed: Tensor) -> Tensor:
    """Return the first output word of counter (low, high, 0, 0), int64 in [0, 2^32)."""
    c0, c1, k0, k1 = low & _WORD, high & _WORD, seed & _WORD, (seed >> 32) & _WORD
    c2 = c3 = torch.zeros((), dtype=torch.int64, device=low.device)
    for _ in range(_ROUNDS):
        # The products wrap at 64 bits; their two halves are still the right 32 bits each.
        p0, p1 = c0 * _MULTIPLY[0], c2 * _MULTIPLY[1]
        c0, c2 = (p1 >> 32 & _WORD) ^ c1 ^ k0, (p0 >> 32 & _WORD) ^ c3 ^ k1
        c1, c3 = p1 & _WORD, p0 & _WORD
        k0, k1 = (k0 + _RAISE[0]) & _WORD, (k1 + _RAISE[1]) & _WORD
    return c0
