"""Sensors reduce logit rows to lanes: the one place where exp, log and sums over rows live."""

from __future__ import annotations

import torch
from torch import Tensor

_FAR = -100.0  # exp(-100) is 0 in float32 sums; keeps -inf logits out of 0 * inf
_STEEP = 1e30  # 1/T beyond which a logit times it, or its inverse, leaves float32


def healthy_rows(logits: Tensor) -> Tensor:
    """Tell which rows of ``[S, n]`` have no NaN, no +inf and at least one finite logit, ``[S]``."""
    return logits.amax(-1).isfinite()  # amax carries NaN through


def inverse_temperature(x: Tensor) -> Tensor:
    """Return 1/T at ``x = ln T``, kept where a product with a logit cannot become 0 * inf."""
    return torch.exp(-x).clamp(1.0 / _STEEP, _STEEP)


def entropy_varentropy(logits: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Measure H and V of ``softmax(logits / T)`` at ``x = ln T``, exactly, in one pass.

    Args:
        logits: ``[S, n]``, -inf allowed; x: ``[S]``.

    Returns:
        H in nats and V in nats^2, float32 ``[S]``: H = ln s - w/s, V = q/s - (w/s)^2 with
        d = (z - max z)/T, s = sum e^d, w = sum d e^d, q = sum d^2 e^d.
    """
    distance = (logits - logits.amax(-1, keepdim=True)) * inverse_temperature(x)[:, None]
    distance = distance.clamp_min_(_FAR)
    weight = distance.exp()
    s = weight.sum(-1)
    weight *= distance
    mean = weight.sum(-1) / s
    weight *= distance
    return s.log() - mean, (weight.sum(-1) / s - mean.square()).clamp_min(0.0)


def surprisal_at_one(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return -ln p(token) at T = 1, nats, ``[S]``."""
    chosen = logits.gather(1, tokens[:, None])[:, 0]
    return logits.logsumexp(-1) - chosen


def kl_divergence(dense: Tensor, other: Tensor) -> Tensor:
    """Return KL(dense || other) at T = 1 between logit rows ``[S, n]``, nats, ``[S]``."""
    p, q = dense.log_softmax(-1), other.log_softmax(-1)
    share = p.exp()
    # A token without mass adds nothing; where both logits are -inf its ratio is NaN.
    return torch.where(share > 0.0, share * (p - q), 0.0).sum(-1).clamp_min(0.0)
