"""What a page is worth: the paper's I_b and its readings that can be computed.

The paper scores block b by I_b = sum a_i I(v_i) with I the "surprisal of the value vector" (section
3.2), which has no density and so no surprisal. Each function here is one defensible reading. All
take attention weights ``[..., n]`` over token positions, rows summing to 1, float64, and return one
number per page, ``[..., pages]``. Weights exist only after attention has run: live, an estimate
stands in for them (``kernels/page_select``), and these are its definitions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from controllers.core import require

Float64 = NDArray[np.float64]

VALUE_FLOOR = 1e-4  # added to a weight before it meets its value's norm (CriticalKV, 2502.03805)


def page_mass(weights: ArrayLike, page_tokens: int) -> Float64:
    """Return sum a_i: the attention mass of each page. What coverage is counted in."""
    return _by_page(np.asarray(weights, np.float64), page_tokens)


def page_surprisal(
    weights: ArrayLike, surprisal: ArrayLike, valid: ArrayLike, page_tokens: int
) -> Float64:
    """Return sum a_i s_i, s_i the surprisal of token i when it was written, nats ``[n]``.

    ``valid`` ``[n]`` is false where there is none, as for the first token and unscored prompts;
    those count as zero, which is how an attention sink loses its page (pin it).
    """
    s = np.where(np.asarray(valid, bool), np.asarray(surprisal, np.float64), 0.0)
    return _by_page(np.asarray(weights, np.float64) * s, page_tokens)


def page_value(weights: ArrayLike, value_norm: ArrayLike, page_tokens: int) -> Float64:
    """Return sum (a_i + 1e-4) ||W_o v_i||_1: how far each page can move the output."""
    a = np.asarray(weights, np.float64) + VALUE_FLOOR
    return _by_page(a * np.asarray(value_norm, np.float64), page_tokens)


def page_entropy(weights: ArrayLike, page_tokens: int) -> Float64:
    """Return sum -a_i ln a_i: each page's share of the attention entropy, nats."""
    a = np.asarray(weights, np.float64)
    return _by_page(-a * np.log(np.where(a > 0.0, a, 1.0)), page_tokens)


def lagged(previous: ArrayLike, measured: ArrayLike, visited: ArrayLike, beta: float) -> Float64:
    """Return an EMA of measured page mass that moves on ``visited`` pages only.

    A page that was not read was not measured: its value stands still, so once dropped it stays
    dropped however important it becomes, until a dense step reads everything (``probe_every``).
    """
    require(0.0 < beta <= 1.0, "beta must lie in (0, 1]", beta=beta)
    old, new = np.asarray(previous, np.float64), np.asarray(measured, np.float64)
    return np.where(np.asarray(visited, bool), old + beta * (new - old), old)


def drop_bound(dropped_mass: ArrayLike, values: ArrayLike) -> Float64:
    """Return eps * diam{v_i}: how far dropping mass eps, and renormalising, moves the output.

    ``values`` is ``[n, d]``. The kept and dropped parts are both averages of values, and the error
    is eps times their difference.
    """
    v = np.asarray(values, np.float64)
    gaps = v[:, None, :] - v[None, :, :]
    diameter = np.sqrt((gaps**2).sum(axis=-1)).max()
    return np.asarray(dropped_mass, np.float64) * diameter


def _by_page(tokens: Float64, page_tokens: int) -> Float64:
    require(page_tokens >= 1, "page_tokens must be >= 1", page_tokens=page_tokens)
    starts = np.arange(0, tokens.shape[-1], page_tokens)
    return np.add.reduceat(tokens, starts, axis=-1)
