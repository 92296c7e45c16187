"""The array vocabulary of laws: the few operations numpy and torch agree on bitwise in float32.

A law may use ``+ - *``, comparisons, and the functions below; nothing else. Torch is found through
``sys.modules`` and never imported, so that the control plane needs only numpy.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

Array = Any  # numpy.ndarray or torch.Tensor, float32 unless said otherwise


def is_torch(x: Array) -> bool:
    """Tell whether ``x`` is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def _namespace(*arrays: Array) -> Any:
    return sys.modules["torch"] if any(is_torch(a) for a in arrays) else np


def where(condition: Array, a: Array, b: Array) -> Array:
    """Choose ``a`` where ``condition`` holds, ``b`` elsewhere; lane by lane."""
    if type(condition) is np.ndarray:
        return np.where(condition, a, b)
    return _namespace(condition, a, b).where(condition, a, b)


def full_like(like: Array, value: float) -> Array:
    """Return an array of ``value`` with the shape, dtype and device of ``like``."""
    if type(like) is np.ndarray:
        full = np.empty_like(like)  # a third of the time of numpy's own full_like
        full.fill(value)
        return full
    return _namespace(like).full_like(like, value)


def _operand(like: Array, value: Array | float) -> Array | float:
    """Return ``value`` so that an operation with ``like`` counts it in the dtype of ``like``."""
    if type(value) is float and type(like) is np.ndarray and like.dtype.kind == "f":
        return value  # numpy does so itself, and sooner than an array is made
    return full_like(like, value) if isinstance(value, int | float) else value


def minimum(a: Array, b: Array | float) -> Array:
    """Return the smaller of ``a`` and ``b``; a scalar ``b`` counts in the dtype of ``a``."""
    b = _operand(a, b)
    return np.minimum(a, b) if type(a) is np.ndarray else _namespace(a).minimum(a, b)


def maximum(a: Array, b: Array | float) -> Array:
    """Return the larger of ``a`` and ``b``; a scalar ``b`` counts in the dtype of ``a``."""
    b = _operand(a, b)
    return np.maximum(a, b) if type(a) is np.ndarray else _namespace(a).maximum(a, b)


def clip(x: Array, low: Array | float, high: Array | float) -> Array:
    """Clamp ``x`` to ``[low, high]``; the bounds may be scalars or lanes."""
    return minimum(maximum(x, low), high)


def divide(a: Array | float, b: Array) -> Array:
    """Divide after broadcasting the numerator.

    Torch computes ``scalar / tensor`` as ``scalar * reciprocal(tensor)``, numpy does not; a
    broadcast numerator makes both round once.
    """
    return _operand(b, a) / b


def finite_or(x: Array, fallback: Array | float) -> Array:
    """Replace NaN and infinities in ``x`` by ``fallback``: the NaN policy of every law."""
    return where(is_finite(x), x, _operand(x, fallback))


def is_finite(x: Array) -> Array:
    """Tell lane by lane whether ``x`` is neither NaN nor infinite."""
    return np.isfinite(x) if type(x) is np.ndarray else (x - x) == full_like(x, 0.0)


def finite_terms(x: Array) -> Array:
    """Return ``x`` with NaN and infinities as zero, ``x`` itself where there are none.

    For terms of a sum or product: a state or a command must not be its own signal.
    """
    if type(x) is np.ndarray and math.isfinite(np.vdot(x, x)):  # one call instead of two
        return x
    return finite_or(x, 0.0)


def stack(arrays: list[Array]) -> Array:
    """Stack equal arrays along a new leading axis."""
    return _namespace(*arrays).stack(arrays)


def take(x: Array, index: Array) -> Array:
    """Gather lanes ``x[index]`` into a new array (never a view)."""
    return x[index]


def put(x: Array, index: Array, values: Array) -> Array:
    """Return a copy of ``x`` whose lanes ``index`` hold ``values``."""
    copy = x.clone() if is_torch(x) else x.copy()
    copy[index] = values
    return copy
