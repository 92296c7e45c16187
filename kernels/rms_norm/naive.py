"""Root-mean-square normalisation of rows: the definition."""

from __future__ import annotations

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return ``w x / sqrt(mean(x^2) + eps)`` over the last axis, in x's format.

    Args:
        x: ``[..., d]``; 16-bit formats are normalised in float32, as models do.
        weight: ``[d]``; eps: added to the mean square.

    Source: Zhang and Sennrich, arXiv 1910.07467, equation 4.
    """
    wide = x if x.dtype is torch.float64 else x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return weight * (wide * scale).to(x.dtype)
