"""A law that is called step after step on the same lanes: as a program where it has one.

A program computes the law's own bits (``law_program``); a law without a graph is called as it is.
What a request fixes is filled in when its lanes are taken up, and again when it changes.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from controllers.core import Law, LoadSignal, State, TemperatureLaw, TokenSignal, tree_map
from controllers.law_graph import F32, leaves, traced
from controllers.law_program import Program

FIXED = ("target_nats", "x_user", "x_cap", "enabled")  # fields that requests fix, and may change
FIRST_LANES = 16


class LawSteps:
    """``update`` of a law on numpy lanes that go on together; its state lives here meanwhile."""

    def __init__(self, law: Law) -> None:
        self._law = law
        self._graph = traced(law)
        self._programs: dict[bool, Program] = {}  # by whether control is on in every lane
        self._room = 0
        self._program: Program | None = None
        self._fixed: list[bytes] = []  # what was filled in, field by field
        self._moving: list[tuple[int, np.ndarray]] = []  # place in the signal, and where it goes
        self._state: State = ()

    def begin(self, state: State, signal: TokenSignal | LoadSignal) -> None:
        """Take up the lanes of ``state``, ``[B]``, whose fixed fields are those of ``signal``."""
        self._state = state
        if self._graph is not None and isinstance(signal, TokenSignal):
            self._take_up(signal)

    def step(self, signal: TokenSignal | LoadSignal) -> np.ndarray:
        """Advance the lanes by one signal; return the commands, ``[B]``, for the caller to keep."""
        if self._program is None or not isinstance(signal, TokenSignal):
            self._state, command = self._law.update(self._state, signal)
            return command
        if self._fixed != _bytes(signal):
            self._take_up(signal)
        for place, buffer in self._moving:
            buffer[:] = signal[place]
        self._program.step()
        return self._program.command.copy()

    def state(self) -> State:
        """Return the state the lanes have now; good until the next step."""
        return self._state

    def x_in(self) -> np.ndarray:
        """Return where a temperature law wants H and V measured next, good until the next step."""
        return cast("TemperatureLaw", self._law).x_in(self._state)

    def _take_up(self, signal: TokenSignal) -> None:
        lanes, old = len(signal.enabled), leaves(self._state)
        old = [leaf.copy() for leaf in old]  # it may lie in the program that takes over
        program = self._program_for(lanes, on=bool((signal.enabled == 1.0).all()))
        program.bind(lanes, again=True)
        state = [buffer[:lanes] for buffer in program.state]
        for mine, leaf in zip(state, old, strict=True):
            mine[:] = leaf
        views = iter(state)
        self._state = tree_map(lambda _leaf: next(views), self._state)
        self._moving, self._fixed = [], _bytes(signal)
        for place, name in enumerate(TokenSignal._fields):
            if name in program.inputs:
                buffer = program.inputs[name][:lanes]
                if name in FIXED:
                    buffer[:] = signal[place]
                else:
                    self._moving.append((place, buffer))
        program.prepare()
        self._program = program

    def _program_for(self, lanes: int, *, on: bool) -> Program:
        if lanes > self._room:
            self._room = max(FIRST_LANES, 2 * self._room, lanes)
            self._programs = {}
        if on not in self._programs:
            fixed: dict[str, Any] = {"enabled": np.ones((), F32)} if on else {}
            assert self._graph is not None, "a law without a graph has no program"
            self._programs[on] = Program(self._graph, fixed, self._room, frozenset(FIXED))
        return self._programs[on]


def _bytes(signal: TokenSignal) -> list[bytes]:
    return [
        signal.target_nats.tobytes(),
        signal.x_user.tobytes(),
        signal.x_cap.tobytes(),
        signal.enabled.tobytes(),
    ]
