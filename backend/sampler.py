"""Sampling at a commanded temperature, with noise that depends on the request alone.

One uniform number per (seed, position) from a counter-based generator: a token does not depend on
which batch it was sampled in, so preemption and replay give the same draw.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kernels.dispatch import Drawn, draw

# Philox4x64-10 (Salmon et al., SC 2011), as numpy's bit generator of that name runs it.
_MULTIPLY = np.array([[0xD2E7470EE14C6C93], [0xCA5A826395121157]], np.uint64)
_MULTIPLY_LOW, _MULTIPLY_HIGH = _MULTIPLY & np.uint64(0xFFFFFFFF), _MULTIPLY >> np.uint64(32)
_RAISE = np.array([[0x9E3779B97F4A7C15], [0xBB67AE8584CAA73B]], np.uint64)
_ROUNDS = 10
_HALF, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)
_SPARE_BITS = np.uint64(11)  # a float64 holds 53 of the 64
_TO_UNIT = 2.0**-53


def uniforms(seeds: list[int], positions: list[int]) -> Tensor:
    """Return one uniform in [0, 1) per (seed, position), float64 ``[S]``.

    The first draw of ``numpy.random.Generator(Philox(key=seed, counter=position))``, for all rows
    at once. Seeds lie in [0, 2^64), positions in [0, 2^63).
    """
    key = np.zeros((2, len(seeds)), np.uint64)
    key[0] = seeds
    word = np.zeros((2, len(seeds)), np.uint64)  # counter words 0 and 2, which get multiplied
    word[0] = positions
    word[0] += np.uint64(1)  # numpy counts up before it draws
    other = np.zeros_like(word)  # counter words 1 and 3
    for _ in range(_ROUNDS):
        low, high = word * _MULTIPLY, _high_half(word)
        word = high[::-1] ^ other ^ key
        other = low[::-1]
        key = key + _RAISE
    return torch.from_numpy((word[0] >> _SPARE_BITS) * _TO_UNIT)


def _high_half(word: np.ndarray) -> np.ndarray:
    """Return the upper 64 bits of ``word [2, S]`` times the two multipliers."""
    low, high = word & _LOW, word >> _HALF
    across = high * _MULTIPLY_LOW + (low * _MULTIPLY_LOW >> _HALF)
    along = low * _MULTIPLY_HIGH + (across & _LOW)
    return high * _MULTIPLY_HIGH + (across >> _HALF) + (along >> _HALF)


def sample(logits: Tensor, x: Tensor, greedy: Tensor, largest: Tensor, noise: Tensor) -> Drawn:
    """Draw one token per row of ``logits [S, n]`` at ln T = ``x [S]``; also measure H there.

    Rows where ``greedy [S]`` is true take the token ``largest`` (int64 ``[S]``). ``noise`` is
    float64 in [0, 1), ``[S]``, and inverts the CDF. Unmeasurable rows give token -1 and NaN.
    """
    drawn = draw(logits, x, noise)
    return drawn._replace(tokens=torch.where(greedy, largest, drawn.tokens))
