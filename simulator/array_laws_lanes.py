"""Both token laws of a server, with a lane for each request in service.

Where both laws have graphs they are one program, and all that a lane keeps is a column of one
table, so that going on with other lanes is one gather. Other laws are called as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, cast

import numpy as np

from controllers.core import Law, State, TemperatureLaw, TokenSignal, tree_map
from controllers.law_graph import Traced, leaves, together, traced
from controllers.law_program import Program
from controllers.law_steps import FIRST_LANES, FIXED, LawSteps
from controllers.serving.lane_table import LaneTable, fixed_signal
from controllers.serving.lanes import LaneBank
from controllers.serving.request import Request
from simulator.scan_lanes import F32

MINDED = "enabled_coverage"  # control of coverage minds greedy requests too
BESIDE = (*FIXED, MINDED)
MEASURED = ("h_cal", "v_cal", "h_in", "v_in", "surprisal", "position")  # anew at every token
Measured = tuple[np.ndarray, ...]  # of each of ``MEASURED``, ``[B]``
FIRST_SLOTS = 16
MOST_KINDS = 64  # of requests, that are told apart by what they fix


class LawLanes(Protocol):
    """Lanes of a temperature law and a coverage law that read the same measurements."""

    command: np.ndarray  # ln T of each lane, float32 [B]; good until the next step
    coverage: np.ndarray  # command of the coverage law, likewise

    def enter(self, request: Request) -> int:
        """Give a request a fresh lane and return its slot."""
        ...

    def release(self, request_id: int) -> None:
        """Free the lane of a request; none is taken up."""
        ...

    def disable(self, request_id: int) -> None:
        """Take a request out of control; no lane is taken up."""
        ...

    def take_up(self, ids: Sequence[int], slots: np.ndarray) -> None:
        """Go on with the lanes of ``ids``, which have ``slots`` ``[B]``; none is taken up."""
        ...

    def put_back(self) -> None:
        """Leave the lanes that were taken up where they can be taken up again."""
        ...

    def x_in(self) -> np.ndarray:
        """Return where the temperature law measures next, float32 ``[B]``."""
        ...

    def step(self, measured: Measured) -> None:
        """Call both laws once in each lane."""
        ...


def law_lanes(temperature: Law, coverage: Law, finite: frozenset[str]) -> LawLanes:
    """Return lanes of two laws: as one program where that can be.

    What is measured under the names ``finite`` holds neither NaN nor infinities.
    """
    first, second = traced(temperature), traced(coverage)
    if first is None or second is None:
        return LanesAsTheyAre(temperature, coverage)
    graph = together(first, second, {"enabled": MINDED})
    if graph is None:
        return LanesAsTheyAre(temperature, coverage)
    return ProgramLanes(temperature, coverage, graph, finite)


class _View(NamedTuple):
    """Where a program works when it works on so many lanes."""

    memory: np.ndarray  # [rows, B], a column as in the table
    moving: list[tuple[int, np.ndarray]]  # place in what is measured; where it goes
    state: State  # of the temperature law
    command: np.ndarray  # [B]
    coverage: np.ndarray  # [B]


class ProgramLanes:
    """Lanes of two laws that are one program."""

    def __init__(
        self, temperature: Law, coverage: Law, graph: Traced, finite: frozenset[str]
    ) -> None:
        self._temperature, self._coverage, self._graph = temperature, coverage, graph
        self._finite = finite
        self._size = len(graph.state) - 1  # leaves; the last of the graph is a command
        # Leaves of both laws, a row that holds nothing, and what requests fix, by slot.
        self._table = np.zeros((len(graph.state) + len(BESIDE), FIRST_SLOTS), F32)
        self._slot_of: dict[int, int] = {}
        self._free = list(range(FIRST_SLOTS))[::-1]
        self._new: set[int] = set()  # slots whose coverage law awaits its first signal
        self._fresh = np.zeros(0, np.intp)  # lanes of these
        self._programs: dict[bool, Program] = {}  # by whether control is on in every lane
        self._room = 0
        self._template = temperature.init(_ones())  # the form of its state
        self._columns: dict[tuple[float, ...], np.ndarray] = {}  # by what requests fix
        self._slots = np.zeros(0, np.intp)
        self._views: dict[tuple[bool, int], _View] = {}  # by control and how many lanes
        self._here = _View(self._table[:, :0], [], (), self._table[0, :0], self._table[0, :0])
        self._step = _nothing
        self.command = self.coverage = self._here.command

    def enter(self, request: Request) -> int:
        """Give a request a fresh lane and return its slot."""
        if not self._free:
            n = self._table.shape[1]
            self._table = np.concatenate([self._table, np.zeros_like(self._table)], axis=1)
            self._free = list(range(n, 2 * n))[::-1]
        slot = self._slot_of[request.request_id] = self._free.pop()
        kind = request.enabled, request.greedy, request.target_nats
        kind = *kind, request.x_user, request.one_sided
        column = self._columns.get(kind)
        if column is None:
            column = self._columns[kind] = self._column(request)
            if len(self._columns) > MOST_KINDS:
                self._columns.clear()
        self._table[:, slot] = column
        self._new.add(slot)
        return slot

    def _column(self, request: Request) -> np.ndarray:
        signal = fixed_signal(request, np.zeros(1, F32))
        own = leaves(self._temperature.init(signal))
        column = np.zeros(len(self._table), F32)
        column[: len(own)] = [leaf[0] for leaf in own]
        fixed = [getattr(signal, name)[0] for name in FIXED]
        column[self._size + 1 :] = [*fixed, request.enabled]
        return column

    def release(self, request_id: int) -> None:
        """Free the lane of a request; none is taken up."""
        slot = self._slot_of.pop(request_id)
        self._new.discard(slot)
        self._free.append(slot)

    def disable(self, request_id: int) -> None:
        """Take a request out of control; no lane is taken up."""
        slot = self._slot_of[request_id]
        for name in ("enabled", MINDED):
            self._table[self._size + 1 + BESIDE.index(name), slot] = 0.0

    def take_up(self, ids: Sequence[int], slots: np.ndarray) -> None:
        """Go on with the lanes of ``ids``, which have ``slots`` ``[B]``; none is taken up."""
        lanes, found = len(ids), self._table.take(slots, axis=1)
        on = bool((found[-2:] == 1.0).all())
        program = self._program_for(lanes, on=on)
        program.bind(lanes, again=True)
        here = self._views.get((on, lanes))
        if here is None:
            here = self._views[on, lanes] = self._view(program, lanes)
        here.memory[:] = found
        program.prepare()
        if self._new:
            self._fresh = np.array([i for i, s in enumerate(slots.tolist()) if s in self._new])
        self._slots, self._here, self._step = slots, here, program.step
        self.command, self.coverage = here.command, here.coverage

    def put_back(self) -> None:
        """Leave the lanes that were taken up where they can be taken up again."""
        self._table[: self._size, self._slots] = self._here.memory[: self._size]

    def x_in(self) -> np.ndarray:
        """Return where the temperature law measures next, float32 ``[B]``."""
        return cast("TemperatureLaw", self._temperature).x_in(self._here.state)

    def step(self, measured: Measured) -> None:
        """Call both laws once in each lane."""
        if len(self._fresh):
            self._begin(measured)
        for place, buffer in self._here.moving:
            buffer[:] = measured[place]
        self._step()

    def _begin(self, measured: Measured) -> None:
        """Start the coverage law where it is called for the first time."""
        memory, fresh = self._here.memory, self._fresh
        fixed = dict(zip(BESIDE, memory[self._size + 1 :].take(fresh, axis=1), strict=True))
        fixed["enabled"] = fixed.pop(MINDED)
        signal = {
            name: values.take(fresh).astype(F32)
            for name, values in zip(MEASURED, measured, strict=True)
        }
        state = leaves(self._coverage.init(TokenSignal(**signal, **fixed)))
        first = self._size - len(state)
        for row, leaf in zip(memory[first : self._size], state, strict=True):
            row[fresh] = leaf
        self._new.difference_update(self._slots[fresh].tolist())
        self._fresh = fresh[:0]

    def _view(self, program: Program, lanes: int) -> _View:
        memory = program.memory[:, :lanes]
        rows = iter(memory)
        inputs = program.inputs
        moving = [(i, inputs[name][:lanes]) for i, name in enumerate(MEASURED) if name in inputs]
        state = tree_map(lambda _leaf: next(rows), self._template)
        return _View(memory, moving, state, program.command, memory[self._size])

    def _program_for(self, lanes: int, *, on: bool) -> Program:
        if lanes > self._room:
            self._room = max(FIRST_LANES, 2 * self._room, lanes)
            self._programs, self._views = {}, {}
        if on not in self._programs:
            always = ("enabled", MINDED) if on else ()
            fixed = {name: np.ones((), F32) for name in always}
            self._programs[on] = Program(
                self._graph, fixed, self._room, frozenset(BESIDE), self._finite, beside=BESIDE
            )
        return self._programs[on]


class LanesAsTheyAre:
    """Lanes of two laws of which one at least has no graph."""

    def __init__(self, temperature: Law, coverage: Law) -> None:
        self._table, self._bank = LaneTable(temperature, np.zeros(1, F32)), LaneBank(coverage)
        self._steps = LawSteps(temperature)
        self._minded: dict[int, float] = {}
        self._ids: Sequence[int] = ()
        self._slots = np.zeros(0, np.intp)
        self._fixed = _ones()
        self._enabled = self.command = self.coverage = np.zeros(0, F32)

    def enter(self, request: Request) -> int:
        """Give a request a fresh lane and return its slot."""
        self._minded[request.request_id] = float(request.enabled)
        return self._table.add(request)

    def release(self, request_id: int) -> None:
        """Free the lane of a request; none is taken up."""
        del self._minded[request_id]
        self._table.release(request_id)
        self._bank.release(request_id)

    def disable(self, request_id: int) -> None:
        """Take a request out of control; no lane is taken up."""
        self._minded[request_id] = 0.0
        self._table.disable(request_id)

    def take_up(self, ids: Sequence[int], slots: np.ndarray) -> None:
        """Go on with the lanes of ``ids``, which have ``slots`` ``[B]``; none is taken up."""
        self._ids, self._slots = ids, slots
        state, self._fixed = self._table.read(slots)
        self._steps.begin(state, self._fixed)
        self._enabled = np.array([self._minded[i] for i in ids], F32)

    def put_back(self) -> None:
        """Leave the lanes that were taken up where they can be taken up again."""
        self._table.write_state(self._slots, self._steps.state())

    def x_in(self) -> np.ndarray:
        """Return where the temperature law measures next, float32 ``[B]``."""
        return self._steps.x_in()

    def step(self, measured: Measured) -> None:
        """Call both laws once in each lane."""
        fields = {name: values.astype(F32) for name, values in zip(MEASURED, measured, strict=True)}
        signal = self._fixed._replace(**fields)
        self.command = self._steps.step(signal)
        self.coverage = self._bank.update(self._ids, signal._replace(enabled=self._enabled))


def _ones() -> TokenSignal:
    return TokenSignal(*(np.ones(1, F32) for _ in TokenSignal._fields))


def _nothing() -> None:
    """Stand in for a step until lanes are taken up."""
