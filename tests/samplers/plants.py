"""What the samplers are run on: Zipf rows, and a closed loop that draws and accepts."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from controllers.core import State, tree_map
from controllers.ops import Array
from controllers.samplers import Sampler, rows
from tests.strategies import Float64, token_signal


class Run(NamedTuple):
    """Surprise in bits of every token drawn, ``[steps, B]``, and the last state."""

    pre: Float64  # under the row as given
    post: Float64  # under the row it was drawn from
    states: list[State]


def zipf(n: int = 1000, a: float = 1.1) -> Float64:
    return -a * np.log(np.arange(1, n + 1))


def on_fixed_row(
    sampler: Sampler, row: Float64, steps: int, lanes: int = 16, state: State = None, **signal: Any
) -> Run:
    """Draw from ``row`` in a closed loop; every token is accepted."""
    lane = token_signal(lanes, **signal)
    state = sampler.init(lane) if state is None else state
    rng, logits = np.random.default_rng(0), np.tile(row, (lanes, 1))
    log_p = rows.log_softmax(logits)
    pre, post, states = [], [], []
    for _ in range(steps):
        shaped = sampler.shape(state, logits, lane)
        token = rows.draw(shaped.logits, rng.random(lanes))
        pre.append(-rows.take_along(log_p, token) / rows.LN2)
        post.append(-rows.take_along(rows.log_softmax(shaped.logits), token) / rows.LN2)
        state = sampler.accept(state, shaped, token)
        states.append(state)
    return Run(np.array(pre), np.array(post), states)


def kept(sampler: Sampler, row: Float64, state: State = None, **signal: Any) -> list[int]:
    """Return which tokens of one row a sampler leaves."""
    lane = token_signal(1, **signal)
    state = sampler.init(lane) if state is None else state
    shaped = sampler.shape(state, row[None, :].copy(), lane)
    return np.flatnonzero(shaped.logits[0] > -np.inf).tolist()


def to_torch(tree: Array, device: str = "cpu") -> Array:
    return tree_map(lambda leaf: torch.from_numpy(np.ascontiguousarray(leaf)).to(device), tree)


def leaves(tree: Array) -> list[Array]:
    """List the arrays of a nested tuple, left to right."""
    if not isinstance(tree, tuple):
        return [tree]
    return [leaf for part in tree for leaf in leaves(part)]
