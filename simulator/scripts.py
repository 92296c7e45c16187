"""What will happen to requests when they are served: true lengths, how they end, recorded rows.

The one place that turns (request, recording, true length) into tokens, for the executor that
serves a request and for the scan that runs ahead of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from controllers.core import require
from controllers.serving.request import Request
from simulator.arrival import NONE
from simulator.asked import Asked
from simulator.model import TraceModel
from simulator.residual import counter_key, counter_uniform

BLOCK_TOKENS = 16  # length of a bootstrap block, for tokens beyond the recording
BOOTSTRAP = np.uint64(0xB0075712A9C3D5E7)  # sets this stream apart from the residual's


@dataclass(frozen=True, slots=True)
class Scripts:
    """Requests ``[R]`` and all their tokens, one request after the other, ``[total]``."""

    asked: Asked
    lengths: np.ndarray  # int [R], tokens each will generate if nobody stops it
    stops: np.ndarray  # bool [R]: the last token is a stop token, or else the user's limit
    rows: np.ndarray  # int32 [total], the recorded row that answers for each token

    @property
    def starts(self) -> np.ndarray:
        """Where each request's tokens begin in ``rows``, int ``[R]``."""
        return np.cumsum(self.lengths) - self.lengths


def write_scripts(
    model: TraceModel,
    requests: Sequence[Request],
    trace_index: Sequence[int],
    output_tokens: Sequence[int | None],
    *,
    seed: int,
) -> Scripts:
    """Let request ``trace_index[i]`` of the recording answer for ``requests[i]``.

    ``output_tokens`` are true lengths; None is the recorded one.
    """
    return scripts_of(model, Asked.of(requests, trace_index, output_tokens), seed=seed)


def scripts_of(model: TraceModel, asked: Asked, *, seed: int) -> Scripts:
    """Return what will happen to requests.

    Within the recording a token is its recorded row. Beyond it, blocks of ``BLOCK_TOKENS``
    consecutive rows of the same recorded request, with uniform starts keyed by (``seed``, request
    id, block): short-range dependence survives, drift over the output does not.
    """
    index = asked.trace_index
    first = model.slices[index, 0]
    recorded = model.slices[index, 1] - first
    wanted = np.where(asked.output_tokens == NONE, recorded, asked.output_tokens)
    _check(model, asked, recorded, wanted)
    lengths = np.minimum(wanted, asked.max_tokens)
    ends_itself = model.ends_itself[index] & (wanted == recorded)
    at_limit = wanted == asked.max_tokens
    return Scripts(
        asked=asked,
        lengths=lengths,
        stops=(wanted < asked.max_tokens) | (at_limit & ends_itself),
        rows=_rows(first, recorded, lengths, counter_key(seed, asked.ids) ^ BOOTSTRAP),
    )


def _check(model: TraceModel, asked: Asked, recorded: np.ndarray, wanted: np.ndarray) -> None:
    if recorded.min(initial=1) < 1:
        empty = int(asked.trace_index[np.argmin(recorded)])
        require(False, "a recorded request needs a token to answer", request=empty)
    shortest = int(wanted.min(initial=1))
    require(shortest >= 1, "output_tokens must be >= 1", output_tokens=shortest)
    model.curves.require_inside(np.array([r.x_user for r in asked.kinds if not r.greedy]))


def _rows(
    first: np.ndarray, recorded: np.ndarray, lengths: np.ndarray, key: np.ndarray
) -> np.ndarray:
    """Return recorded rows, request by request: runs of consecutive rows laid end to end."""
    block = np.minimum(BLOCK_TOKENS, recorded)
    beyond = np.maximum(lengths - recorded, 0)
    n_blocks = -(-beyond // block)
    runs = 1 + n_blocks  # the recording itself, then blocks
    lane = np.repeat(np.arange(len(lengths)), runs)
    number = np.arange(len(lane)) - np.repeat(np.cumsum(runs) - runs, runs)  # of the run, 0 first
    drawn = counter_uniform(key[lane], number) * (recorded - block + 1)[lane]
    start = first[lane] + np.where(number > 0, drawn.astype(np.int64), 0)
    left = beyond[lane] - (number - 1) * block[lane]  # tokens still to fill, at a block
    size = np.where(number > 0, np.minimum(block[lane], left), np.minimum(lengths, recorded)[lane])
    shift = (start - (np.cumsum(size) - size)).astype(np.int32)
    return np.arange(size.sum(), dtype=np.int32) + np.repeat(shift, size)
