"""The row vocabulary of samplers: what they may do to logits ``[B, n]``, in numpy and torch.

Unlike a law's arithmetic (``controllers.ops``), exp, log and sums over a row round differently in
the two, so results agree to about 1e-6, not bit for bit. Torch is found through ``sys.modules`` and
never imported. Rows may hold -inf (no mass) and need one finite largest logit; the engine finishes
rows with NaN or +inf before a sampler sees them.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from controllers import ops
from controllers.ops import Array

LN2 = math.log(2.0)  # nats in a bit
_FAR = -100.0  # exp of this adds nothing to a float32 sum; keeps -inf logits out of 0 * inf
_STEEP = 1e9  # 1/T is kept in [1e-9, 1e9], which includes every law's range


def _torch() -> Any:
    return sys.modules["torch"]


def exp(x: Array) -> Array:
    """Return e^x, elementwise."""
    return _torch().exp(x) if ops.is_torch(x) else np.exp(x)


def log(x: Array) -> Array:
    """Return ln x, elementwise; the caller keeps x > 0."""
    return _torch().log(x) if ops.is_torch(x) else np.log(x)


def sqrt(x: Array) -> Array:
    """Return the square root, elementwise."""
    return _torch().sqrt(x) if ops.is_torch(x) else np.sqrt(x)


def total(x: Array) -> Array:
    """Sum each row, ``[B, n]`` to ``[B]``."""
    return x.sum(-1)


def largest(x: Array) -> Array:
    """Return the largest value of each row, ``[B, n]`` to ``[B]``."""
    return x.amax(-1) if ops.is_torch(x) else x.max(-1)


def smallest(x: Array) -> Array:
    """Return the smallest value of each row, ``[B, n]`` to ``[B]``."""
    return x.amin(-1) if ops.is_torch(x) else x.min(-1)


def descending(x: Array) -> Array:
    """Sort each row from the largest value down."""
    return x.sort(-1, descending=True).values if ops.is_torch(x) else -np.sort(-x, axis=-1)


def cumulated(x: Array) -> Array:
    """Return running sums along each row, float64: at n = 150,000 float32 would lose the tail."""
    return x.cumsum(-1, dtype=_torch().float64) if ops.is_torch(x) else x.cumsum(-1, dtype=float)


def ranks(x: Array) -> Array:
    """Return 0, 1, ... n - 1 in the dtype and on the device of ``x``, ``[n]``."""
    if ops.is_torch(x):
        return _torch().arange(x.shape[-1], dtype=x.dtype, device=x.device)
    return np.arange(x.shape[-1], dtype=x.dtype)


def take_along(x: Array, index: Array) -> Array:
    """Pick one value per row, ``[B, n]`` at int64 ``[B]`` to ``[B]``; the first where index < 0."""
    index = ops.maximum(index, 0)
    if ops.is_torch(x):
        return x.gather(-1, index[:, None])[:, 0]
    return np.take_along_axis(x, index[:, None], -1)[:, 0]


def finite(x: Array) -> Array:
    """Tell where ``x`` is above -inf; rows hold no other non-finite value."""
    return x > -math.inf


def keep_where(condition: Array, logits: Array) -> Array:
    """Return ``logits`` with -inf where ``condition [B, n]`` does not hold."""
    return ops.where(condition, logits, ops.full_like(logits, -math.inf))


def tempered(logits: Array, x: Array) -> Array:
    """Return ``(z - max z) / T`` at x = ln T, ``[B, n]``: the row a softmax is taken of."""
    inverse = ops.clip(exp(-ops.clip(x, -50.0, 50.0)), 1.0 / _STEEP, _STEEP)
    return (logits - largest(logits)[:, None]) * inverse[:, None]


def log_total(logits: Array) -> Array:
    """Return ln sum e^z of each row, ``[B]``."""
    top = largest(logits)
    return top + log(total(exp(logits - top[:, None])))


def log_softmax(logits: Array) -> Array:
    """Return ln p of each token, ``[B, n]``; -inf where a logit is."""
    return logits - log_total(logits)[:, None]


def entropy_varentropy(logits: Array, x: Array | float = 0.0) -> tuple[Array, Array]:
    """Return H (nats) and V (nats^2) of softmax(z / T) at x = ln T, ``[B]`` each, in one pass.

    H = ln s - w/s and V = q/s - (w/s)^2 with d = (z - max z)/T, s = sum e^d, w = sum d e^d,
    q = sum d^2 e^d; over the tokens a mask left in.
    """
    x = ops.full_like(logits[:, 0], x) if isinstance(x, int | float) else x
    d = ops.maximum(tempered(logits, x), _FAR)
    weight = exp(d)
    s = total(weight)
    mean = total(d * weight) / s
    return log(s) - mean, ops.maximum(total(d * d * weight) / s - mean * mean, 0.0)


def draw(logits: Array, noise: Array) -> Array:
    """Draw one token per row from softmax(logits) by inverting its CDF, int64 ``[B]``.

    ``noise`` is float64 ``[B]`` in [0, 1). A token without mass is never drawn.
    """
    running = cumulated(exp(logits - largest(logits)[:, None]))
    return (running <= (noise * running[:, -1])[:, None]).sum(-1)
