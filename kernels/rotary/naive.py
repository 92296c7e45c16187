"""Rotary position embedding of a step's queries and keys: the definition."""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(x: Tensor, cos: Tensor, sin: Tensor, heads: int) -> None:
    """Rotate the leading ``heads`` heads of every row in place.

    x is ``[N, heads or more, D]``, rows of projected queries, keys and values; cos and sin are
    ``[N, D]``, an angle for each pair of dimensions i and i + D/2, given twice.
    Source: Su et al., arXiv 2104.09864, equation 34, with pairs half a head apart.
    """
    turned = x[:, :heads]
    low, high = turned.chunk(2, dim=-1)
    across = torch.cat((-high, low), dim=-1)
    turned.copy_(turned * cos[:, None] + across * sin[:, None])
