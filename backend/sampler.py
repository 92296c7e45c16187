"""Sampling at a commanded temperature, with noise that depends on the request alone.

One uniform number per (seed, position) from a counter-based generator: a token does not depend on
which batch it was sampled in, so preemption and replay give the same draw.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from backend.sensors import inverse_temperature


def uniforms(seeds: list[int], positions: list[int]) -> Tensor:
    """Return one uniform in [0, 1) per (seed, position), float64 ``[S]``."""
    draws = [
        np.random.Generator(np.random.Philox(key=seed, counter=position)).random()
        for seed, position in zip(seeds, positions, strict=True)
    ]
    return torch.tensor(draws, dtype=torch.float64)


def sample(logits: Tensor, x: Tensor, greedy: Tensor, noise: Tensor) -> Tensor:
    """Draw one token per row of ``logits [S, n]`` at ln T = ``x [S]`` by inverting the CDF.

    Rows where ``greedy [S]`` is true take the argmax. ``noise`` is float64 in [0, 1), ``[S]``.
    """
    probabilities = (logits * inverse_temperature(x)[:, None]).softmax(-1)
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    # "right" and a strict draw below the total never land on a zero-probability token.
    draw = (noise * cumulative[:, -1])[:, None]
    drawn = torch.searchsorted(cumulative, draw, right=True)[:, 0].clamp_max(logits.shape[1] - 1)
    return torch.where(greedy, logits.argmax(-1), drawn)
