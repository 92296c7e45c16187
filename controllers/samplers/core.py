"""What a sampler is: logits in, the logits to sample from out; state as data, moved on acceptance.

One sampling step: penalties, mask, measure, temperature, truncation, sample. A sampler sees rows
``[B, n]`` after penalties and mask; masked tokens are -inf, and every entropy here is taken over
the tokens that are left. Laws stay arithmetic (``controllers.core``); what needs the row is here.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from controllers import ops
from controllers.core import State, TokenSignal, tree_map
from controllers.ops import Array
from controllers.samplers import rows


class Shaped(NamedTuple):
    """What to sample from, and what a later ``accept`` needs."""

    logits: Array  # [B, n]: sample from softmax of these; -inf where a token was cut
    x: Array  # [B]: ln T applied by this sampler, 0 where it only truncates
    memo: Any  # arrays with lanes leading, and nested tuples of them


class Sampler(Protocol):
    """A pure, lane-wise map from logits to logits with memory.

    ``shape`` never moves the state: only ``accept`` does, with the token that was kept. A rejected
    speculative token is forgotten by not accepting it, and a snapshot of the state is a copy.
    """

    def init(self, signal: TokenSignal) -> State:
        """Return the state of fresh lanes shaped like ``signal``."""
        ...

    def shape(self, state: State, logits: Array, signal: TokenSignal) -> Shaped:
        """Return the rows to sample from; never write to the inputs."""
        ...

    def accept(self, state: State, shaped: Shaped, token: Array) -> State:
        """Return the state after ``token``, int64 ``[B]``, was drawn from ``shaped`` and kept.

        Lanes with ``token`` = -1 kept nothing and hold their state.
        """
        ...


class NoState(NamedTuple):
    """The state of a sampler without memory."""


def select(on: Array, new: State, old: State) -> State:
    """Choose whole lanes of a state: ``new`` where ``on [B]`` holds, ``old`` elsewhere."""

    def one(after: Array, before: Array) -> Array:
        return ops.where(on.reshape(-1, *[1] * (after.ndim - 1)), after, before)

    return tree_map(one, new, old)


def lanes_like(like: Array, value: float) -> Array:
    """Return a lane ``[B]`` of ``value`` like the signal's lanes."""
    return ops.full_like(like, value)


def unheated(logits: Array, memo: Any = ()) -> Shaped:
    """Wrap a row that was truncated or reshaped at the temperature it came with."""
    return Shaped(logits, ops.full_like(logits[:, 0], 0.0), memo)


def heated(logits: Array, x: Array, memo: Any = ()) -> Shaped:
    """Wrap a row brought to ln T = ``x``."""
    return Shaped(rows.tempered(logits, x), x, memo)
