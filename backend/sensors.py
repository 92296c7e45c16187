"""Sensors reduce logit rows to lanes: the one place where exp, log and sums over rows live."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.dispatch import row_stats

__all__ = ["entropy_varentropy", "kl_divergence", "row_stats"]


def entropy_varentropy(logits: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Measure H (nats) and V (nats^2) of ``softmax(logits / T)`` at ``x = ln T``, float32 ``[S]``.

    ``logits [S, n]``, -inf allowed; ``x [S]``. Rows that are not healthy give NaN.
    """
    stats = row_stats(logits, x[:, None])
    return stats.h[:, 0], stats.v[:, 0]


def kl_divergence(dense: Tensor, other: Tensor) -> Tensor:
    """Return KL(dense || other) at T = 1 between logit rows ``[S, n]``, nats, ``[S]``."""
    p, q = dense.log_softmax(-1), other.log_softmax(-1)
    share = p.exp()
    # A token without mass adds nothing; where both logits are -inf its ratio is NaN.
    return torch.where(share > 0.0, share * (p - q), 0.0).sum(-1).clamp_min(0.0)
