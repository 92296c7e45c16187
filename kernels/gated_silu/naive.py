"""The gate of a gated MLP: the definition."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def gated_silu(gate: Tensor, up: Tensor) -> Tensor:
    """Return ``silu(gate) * up`` with ``silu(x) = x / (1 + exp(-x))``; all ``[..., d]``.

    Source: SwiGLU with beta = 1; Shazeer, arXiv 2002.05202, section 2.
    """
    return F.silu(gate) * up
