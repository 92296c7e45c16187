"""Slots of requests whose laws are called: what is recorded of each, and what the laws said.

Tables over slot and token, so that tokens of every lane are read and written in one go.
"""

from __future__ import annotations

import numpy as np

from controllers.serving.request import Request
from simulator.recordings import Recorded
from simulator.scan import Trajectory
from simulator.scan_lanes import F32

FIRST_SLOTS = 16
SIGNALS = 5  # float32
COMMAND, H_CAL, COVERAGE, H_APPLIED, SURPRISAL = range(SIGNALS)
POSITION, PROMPT, FIRST, NUMBER = range(4)
MINIMUM, HELD = range(2)


class Slots:
    """Room for ``stride - 1`` tokens in each slot, behind an empty one; grows by doubling."""

    def __init__(self, stride: int) -> None:
        self.stride = stride
        self._n = FIRST_SLOTS
        self.rows = np.zeros(self._n * stride, np.intp)  # recorded row of each token
        self.normals = np.zeros(self._n * stride)  # of its residual
        self._said = np.zeros((SIGNALS, self._n * stride), F32)
        # The next token, tokens of the prompt, the first token that may be pruned, the request.
        self.whole = np.zeros((4, self._n), np.int64)
        # Coverage that the user asks for at least, command of the coverage law in force.
        self.real = np.zeros((2, self._n))
        self.greedy = np.zeros(self._n, bool)

    def enter(self, slot: int, request: Request, recorded: Recorded, first: int) -> None:
        """Take a request in at its first token; ``first`` is the one that may be pruned."""
        while slot >= self._n:
            self._grow()
        n, begin = len(recorded.rows), slot * self.stride + 1
        self.rows[begin : begin + n] = recorded.rows
        self.normals[begin : begin + n] = recorded.normals
        self._said[SURPRISAL, begin - 1] = 0.0  # before the first token
        self.whole[:, slot] = 0, request.prompt_tokens, first, request.request_id
        self.real[:, slot] = request.min_coverage, 1.0
        self.greedy[slot] = request.greedy

    def say(self, at: np.ndarray, said: np.ndarray) -> None:
        """Write down ``said`` ``[5, ...]`` of the tokens ``at`` ``[...]``."""
        self._said[:, at] = said

    def surprisal_before(self, at: np.ndarray) -> np.ndarray:
        """Return the surprisal of the tokens before those ``at``; 0 before the first."""
        return self._said[SURPRISAL].take(at - 1)

    def said(self, slot: int, start: int, stop: int) -> np.ndarray:
        """Return what was said of tokens ``[start, stop)``, a view ``[5, stop - start]``."""
        begin = slot * self.stride + 1
        return self._said[:, begin + start : begin + stop]

    def _grow(self) -> None:
        n = self._n
        for name in ("rows", "normals", "_said"):
            old = getattr(self, name)
            new = np.zeros((*old.shape[:-1], 2 * n * self.stride), old.dtype)
            new[..., : n * self.stride] = old
            setattr(self, name, new)
        for name in ("whole", "real", "greedy"):
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.zeros_like(old)], axis=-1))
        self._n = 2 * n


def unwritten(recorded: Recorded, *, dense: bool) -> tuple[np.ndarray, Trajectory]:
    """Return a trajectory of which nothing is known, and its float32 columns, as ``say`` has them.

    Only what rows read where all are ``dense`` is known from lengths; else nothing is added ahead.
    """
    n = len(recorded.rows)
    matrix = np.zeros((SIGNALS, n), F32)
    command, h_cal, coverage, h_applied, surprisal = matrix
    coverage[:] = 1.0
    return matrix, Trajectory(
        coverage=coverage,
        share=np.full(n, 1.0 if dense else 0.0),
        command=command,
        h_applied=h_applied,
        h_cal=h_cal,
        surprisal=surprisal,
        n_tokens=n,
        stops=recorded.stops,
        least=1.0 if dense else 0.0,
        tau=np.nan,  # sums are added up at its end
        tau_cal=np.nan,
        net=np.nan,
        nll=np.nan,
        on_bound=0,
    )
