"""Slots of requests whose laws are called: what is recorded of each, and what the laws said.

Tables over slot and token, so that a step reads and writes one token of every lane in one go.
"""

from __future__ import annotations

import numpy as np

from controllers.serving.request import Request
from simulator.recordings import Recorded
from simulator.scan import Trajectory
from simulator.scan_lanes import F32

FIRST_SLOTS = 16
SIGNALS = 5  # ln T, H at T_cal, coverage, H at the applied T, NLL; float32
COVERAGE = 2


class Slots:
    """Room for ``stride`` tokens in each slot; grows by doubling."""

    def __init__(self, stride: int) -> None:
        self.stride = stride
        self._n = FIRST_SLOTS
        self.rows = np.zeros(self._n * stride, np.intp)  # recorded row of each token
        self.normals = np.zeros(self._n * stride)  # of its residual
        self._said = np.zeros((SIGNALS, self._n * stride), F32)
        self._each = list(self._said)  # views: cheaper than indexing the table
        self.position = np.zeros(self._n, np.int64)  # the next token
        self.prompt = np.zeros(self._n, np.int64)
        self.first = np.zeros(self._n, np.int64)  # token that may be pruned
        self.minimum = np.zeros(self._n)  # coverage that the user asks for at least
        self.held = np.zeros(self._n)  # command of the coverage law in force
        self.greedy = np.zeros(self._n, bool)
        self.enabled = np.zeros(self._n, F32)  # coverage control minds greedy requests too

    def enter(self, slot: int, request: Request, recorded: Recorded, first: int) -> None:
        """Take a request in at its first token; ``first`` is the one that may be pruned."""
        while slot >= self._n:
            self._grow()
        n, begin = len(recorded.rows), slot * self.stride
        self.rows[begin : begin + n] = recorded.rows
        self.rows[begin + n] = 0  # read along with the last token, and not used
        self.normals[begin : begin + n] = recorded.normals
        self.position[slot], self.held[slot] = 0, 1.0
        self.prompt[slot], self.first[slot] = request.prompt_tokens, first
        self.minimum[slot] = request.min_coverage
        self.greedy[slot], self.enabled[slot] = request.greedy, request.enabled

    def say(
        self,
        at: np.ndarray,
        command: np.ndarray,
        h_cal: np.ndarray,
        coverage: np.ndarray | None,
        h_applied: np.ndarray,
        surprisal: np.ndarray,
    ) -> None:
        """Write down one token of each lane; ``coverage`` None is 1."""
        said = self._each
        said[0][at], said[1][at], said[3][at], said[4][at] = command, h_cal, h_applied, surprisal
        said[COVERAGE][at] = 1.0 if coverage is None else coverage

    def said(self, slot: int, start: int, stop: int) -> np.ndarray:
        """Return what was said of tokens ``[start, stop)``, a view ``[5, stop - start]``."""
        begin = slot * self.stride
        return self._said[:, begin + start : begin + stop]

    def _grow(self) -> None:
        n = self._n
        for name in ("rows", "normals", "_said"):
            old = getattr(self, name)
            new = np.zeros((*old.shape[:-1], 2 * n * self.stride), old.dtype)
            new[..., : n * self.stride] = old
            setattr(self, name, new)
        for name in ("position", "prompt", "first", "minimum", "held", "greedy", "enabled"):
            setattr(self, name, np.resize(getattr(self, name), 2 * n))
        self._each = list(self._said)
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
        probe=np.zeros(n, bool),
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
