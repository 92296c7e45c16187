"""Priorities of many columns under one law without state, as a program where the law has one.

The bits are those of ``signal_of`` and the law's own ``update``; what is saved is making arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from controllers.core import LoadSignal
from controllers.law_graph import Traced
from controllers.law_program import Program
from controllers.serving.sensors import NS_PER_S, SLACK_SERVED_S

LANES = 64  # programs run on multiples of it, so that few lengths have to be prepared
LARGEST = 3e38  # magnitude: below it a float64 is a finite float32
MOVING = ("age_s", "wait_s")  # seconds since the rows of ``Clocks.since_ns``


class Clocks(NamedTuple):
    """What the signals that move with time are computed from, one column per request."""

    since_ns: np.ndarray  # int64 [2, columns]: of arrival and of the wait
    since_step: np.ndarray  # int64
    slo_s: np.ndarray  # float64
    served: np.ndarray  # bool: its first token is out


class _Bound(NamedTuple):
    """Views of the first columns: where times are read from, and where they go."""

    clocks: Clocks
    passed_ns: np.ndarray
    passed_s: np.ndarray
    inputs: dict[str, np.ndarray]


class Ranking:
    """Runs a law's program over the first of ``columns``; still signals are filled in outside."""

    def __init__(self, graph: Traced, clocks: Clocks, *, finite: bool) -> None:
        """``finite``: no signal will be NaN or infinite, which then need not be looked for."""
        columns = len(clocks.slo_s)
        known = frozenset(LoadSignal._fields) if finite else frozenset()
        self._program = Program(graph, {}, columns, finite=known)
        self.inputs = self._program.inputs
        self._clocks = clocks
        self._passed_ns = np.zeros((2, columns), np.int64)
        self._passed_s = np.zeros((2, columns))
        self._bound: dict[int, _Bound] = {}

    def of(self, columns: int, now_ns: int, step: int) -> np.ndarray:
        """Return the priorities in plan ``step``, float32 ``[columns]``, good until the next."""
        lanes = -(-columns // LANES) * LANES
        clocks, passed_ns, passed_s, inputs = self._bound.get(lanes) or self._bind(lanes)
        np.subtract(now_ns, clocks.since_ns, passed_ns)  # nobody came later than now
        passed_s[:] = passed_ns
        np.true_divide(passed_s, NS_PER_S, passed_s)
        for row, name in enumerate(MOVING):
            if name in inputs:
                inputs[name][:] = passed_s[row]
        if "slack_s" in inputs:
            slack_s = np.subtract(clocks.slo_s, passed_s[0], passed_s[0])
            np.putmask(slack_s, clocks.served, SLACK_SERVED_S)
            inputs["slack_s"][:] = slack_s
        if "wait_steps" in inputs:
            np.subtract(step, clocks.since_step, inputs["wait_steps"], casting="unsafe")
        self._program.bind(lanes, again=True)
        with np.errstate(all="ignore"):  # lanes beyond the columns hold what was left there
            self._program.step()
        return self._program.command[:columns]

    def _bind(self, lanes: int) -> _Bound:
        clocks = Clocks(*(table[..., :lanes] for table in self._clocks))
        times = self._passed_ns[:, :lanes], self._passed_s[:, :lanes]
        inputs = {name: buffer[:lanes] for name, buffer in self.inputs.items()}
        self._bound[lanes] = bound = _Bound(clocks, *times, inputs)
        return bound


class Scoring:
    """Runs the program of a law without state on signals as they come."""

    def __init__(self, graph: Traced) -> None:
        """Have room for a few; more is made when more are scored."""
        self._graph = graph
        self._make(LANES)

    def of(self, signal: LoadSignal) -> np.ndarray:
        """Return the priorities of ``signal``, float32 ``[B]``, good until the next."""
        n = len(signal.age_s)
        lanes = -(-n // LANES) * LANES
        if lanes > self._room:
            self._make(2 * lanes)
        for name, buffer in self._program.inputs.items():
            buffer[:n] = getattr(signal, name)
        self._program.bind(lanes, again=True)
        with np.errstate(all="ignore"):  # lanes beyond hold what was left there
            self._program.step()
        return self._program.command[:n]

    def _make(self, room: int) -> None:
        self._room, self._program = room, Program(self._graph, {}, room)


def are_finite(values: Sequence[float]) -> bool:
    """Whether every one of a few ``values`` is a finite float32."""
    return sum(map(abs, values)) < LARGEST
