"""A law over lanes of a scan, token after token: as a program where it has one, as it is else."""

from __future__ import annotations

from typing import cast

import numpy as np

from controllers.core import Law, State, TemperatureLaw, TokenSignal, tree_map
from controllers.law_graph import F32, leaves, traced
from controllers.law_program import Program


class LawRun:
    """What ``init`` and ``update`` of a law return, on as many of the first lanes as go on.

    A caller calls ``start`` once, and for each token fills ``inputs``, which are the moving fields
    that count, and calls ``step``. ``bind`` says how many lanes there are from here on, never more
    than before.
    """

    def __init__(self, law: Law, fixed: TokenSignal, moving: frozenset[str]) -> None:
        """Prepare for the lanes of ``fixed``, whose fields but the ``moving`` never change."""
        self._law, self._fixed = law, fixed
        lanes, graph = len(fixed.enabled), traced(law)
        self._program: Program | None = None
        if graph is None:
            self._all = {name: getattr(fixed, name).copy() for name in moving}
        else:
            still = {n: getattr(fixed, n) for n in TokenSignal._fields if n not in moving}
            self._program = Program(graph, still, lanes)
            self._all = self._program.inputs
        self._state: State = ()
        self.inputs: dict[str, np.ndarray] = {}
        self.command = np.zeros(0, F32)
        self._cut(lanes)

    def start(self, signal: TokenSignal) -> None:
        """Set the state to that of fresh lanes with this first signal."""
        state = self._law.init(signal)
        if self._program is not None:
            for mine, leaf in zip(self._program.state, leaves(state), strict=True):
                mine[:] = leaf
            buffers = iter(self._program.state)
            state = tree_map(lambda _leaf: next(buffers), state)
        self._state = state

    def bind(self, lanes: int) -> None:
        """Go on with the first ``lanes``."""
        self._cut(lanes)
        self._state = first_lanes(self._state, lanes)
        if self._program is not None:
            self._program.bind(lanes)
            self.command = self._program.command

    def step(self) -> None:
        """Update the state and ``command`` from ``inputs``."""
        if self._program is not None:
            self._program.step()
            return
        # Copies: a law may keep what it is given, and these buffers are filled again.
        signal = self._rest._replace(**{name: leaf.copy() for name, leaf in self.inputs.items()})
        self._state, self.command = self._law.update(self._state, signal)

    def x_in(self) -> np.ndarray:
        """Return where a temperature law wants H and V measured next, ln T."""
        return cast("TemperatureLaw", self._law).x_in(self._state)

    def _cut(self, lanes: int) -> None:
        self.inputs = {name: buffer[:lanes] for name, buffer in self._all.items()}
        self._rest = TokenSignal(*(leaf[:lanes] for leaf in self._fixed))


def first_lanes(state: State, n: int) -> State:
    """Return the first ``n`` lanes of a state, as views; the state itself where it has no more."""
    first = state
    while isinstance(first, tuple) and first:
        first = first[0]
    if not isinstance(first, tuple) and len(first) == n:
        return state
    return tree_map(lambda leaf: leaf[:n], state)
