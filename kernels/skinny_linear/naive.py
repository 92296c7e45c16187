"""A linear layer over a weight packed for few rows: the definition, and how weights are packed."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

LANES = 16  # outputs in a block


def pack(weight: Tensor) -> Tensor:
    """Return a weight ``[N, K]`` as ``[ceil(N / 16), K, 16]``; missing outputs are 0."""
    outputs, inputs = weight.shape
    padded = F.pad(weight, (0, 0, 0, -outputs % LANES))
    return padded.view(-1, LANES, inputs).transpose(1, 2).contiguous()


def unpack(packed: Tensor, outputs: int) -> Tensor:
    """Return the weight ``[N, K]`` that ``pack`` was given."""
    return packed.transpose(1, 2).flatten(0, 1)[:outputs].contiguous()


def linear(x: Tensor, packed: Tensor, outputs: int, bias: Tensor | None) -> Tensor:
    """Return ``x W^T + b``, ``[..., N]``; x ``[..., K]``."""
    return F.linear(x, unpack(packed, outputs), bias)
