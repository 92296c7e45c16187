"""A law's graph as a list of numpy calls, each into memory that is there already.

The same operations on the same float32 values in the same order as the law's own, so the same
bits. What only requests decide is computed once, a choice that goes one way in every lane is made
once, and nothing is computed that nobody reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from controllers.law_graph import F32, Traced

Operation = Callable[..., Any]
Call = Callable[[], Any]


class Step(NamedTuple):
    """One operation left to do at every token, on earlier values."""

    place: int  # of its outcome among the graph's values
    operation: Operation
    inputs: tuple[int, ...]


class Plan:
    """Which operations of a graph are left where some fields of the signal never change.

    What depends on nothing but fields that ``seldom`` change is kept apart. Whether a field is
    finite is not asked of those that are known to be ``finite``.
    """

    def __init__(
        self,
        graph: Traced,
        fixed: Mapping[str, np.ndarray],
        seldom: frozenset[str],
        finite: frozenset[str],
    ) -> None:
        self.nodes = graph.nodes
        self._finite = finite
        self._same: dict[int, int] = {}  # values that always equal another
        self.known: dict[int, np.ndarray] = {}  # values that no token changes: 0-d or [lanes]
        with np.errstate(all="ignore"):
            self._hoist(fixed)
        self.state = tuple(map(self._final, graph.state))
        self.command = self._final(graph.command)
        needed = self._needed()
        at_rest = self._at_rest(needed, seldom)
        self.prepared = [step for step in needed if step.place in at_rest]
        self.steps = [step for step in needed if step.place not in at_rest]
        self.last_use = dict.fromkeys((i for step in self.prepared for i in step.inputs), -1)
        self.last_use |= dict.fromkeys((step.place for step in self.prepared), -1)
        self.last_use |= {i: k for k, step in enumerate(self.steps) for i in step.inputs}
        self.last_use.update(dict.fromkeys((*self.state, self.command), len(self.steps)))

    def _final(self, place: int) -> int:
        while place in self._same:
            place = self._same[place]
        return place

    def _hoist(self, fixed: Mapping[str, np.ndarray]) -> None:
        known = self.known
        for place, node in enumerate(self.nodes):
            inputs = [self._final(i) for i in node.inputs]
            if node.constant is not None:
                known[place] = np.frombuffer(node.constant, F32).reshape(())
            elif node.leaf in fixed:
                known[place] = fixed[str(node.leaf)]
            elif node.operation is not None and all(i in known for i in inputs):
                known[place] = np.asarray(node.operation(*(known[i] for i in inputs)))
            elif node.operation is np.isfinite and self.nodes[inputs[0]].leaf in self._finite:
                known[place] = np.ones((), bool)
            elif node.operation is np.where and inputs[0] in known:
                if known[inputs[0]].all():
                    self._same[place] = inputs[1]
                elif not known[inputs[0]].any():
                    self._same[place] = inputs[2]

    def _needed(self) -> list[Step]:
        wanted, steps = {*self.state, self.command}, []
        for place in range(len(self.nodes) - 1, -1, -1):
            operation = self.nodes[place].operation
            if place in wanted and place not in self.known and operation is not None:
                inputs = tuple(self._final(i) for i in self.nodes[place].inputs)
                wanted.update(inputs)
                steps.append(Step(place, operation, inputs))
        return steps[::-1]

    def _at_rest(self, needed: list[Step], seldom: frozenset[str]) -> set[int]:
        """Return the values that change only with the ``seldom`` fields."""
        found = {place for place, node in enumerate(self.nodes) if node.leaf in seldom}
        moves = {place for place, node in enumerate(self.nodes) if node.operation is None}
        moves -= found | self.known.keys()
        for step in needed:
            if moves.isdisjoint(step.inputs):
                found.add(step.place)
            else:
                moves.add(step.place)
        return found


class Program:
    """Runs ``update`` of a law on the first lanes of its buffers, token after token."""

    def __init__(
        self,
        graph: Traced,
        fixed: Mapping[str, np.ndarray],
        lanes: int,
        seldom: frozenset[str] = frozenset(),
        finite: frozenset[str] = frozenset(),
        beside: Sequence[str] = (),
    ) -> None:
        """Prepare for ``lanes``; ``fixed`` are the fields of the signal that never change.

        Fields that ``seldom`` do count from the next ``prepare`` on; those named ``finite`` hold
        neither NaN nor infinities, which is then not looked for. The fields ``beside`` lie next to
        the state in ``memory``, whether the law reads them or not, to be filled in one go.
        """
        self._plan = plan = Plan(graph, fixed, seldom, finite)
        self._lanes = lanes
        self.memory = np.zeros((len(graph.state) + len(beside), lanes), F32)
        self.state = list(self.memory[: len(graph.state)])
        self.inputs: dict[str, np.ndarray] = {}  # to be filled before each ``step``, [lanes]
        home = dict(zip(beside, self.memory[len(graph.state) :], strict=True))
        self._buffers: dict[int, np.ndarray] = {}  # of each value, [lanes]; in turn of several
        for place, node in enumerate(plan.nodes):
            if isinstance(node.leaf, int):
                self._buffers[place] = self.state[node.leaf]
            elif place in plan.last_use and place in plan.known:
                # Constants too: numpy takes a third longer where an operand has no axis.
                self._buffers[place] = np.broadcast_to(plan.known[place], lanes).copy()
            elif place in plan.last_use and node.leaf is not None:
                self._buffers[place] = self.inputs[node.leaf] = home.get(
                    node.leaf, np.zeros(lanes, F32)
                )
        self._allocate()
        self._bound: dict[int, tuple[list[Call], list[Call], np.ndarray]] = {}
        self._first: list[Call] = []
        self._calls: list[Call] = []
        self.command = np.zeros(0, F32)

    def bind(self, lanes: int, *, again: bool = False) -> None:
        """Work on the first ``lanes`` from here on; ``again`` if this will be asked often."""
        bound = self._bound.get(lanes) or self._views(lanes)
        if again:
            self._bound[lanes] = bound
        self._first, self._calls, self.command = bound

    def prepare(self) -> None:
        """Compute what depends on nothing but the fields that seldom change."""
        for call in self._first:
            call()

    def step(self) -> None:
        """Update the state and the command from ``inputs``."""
        for call in self._calls:
            call()

    def _views(self, lanes: int) -> tuple[list[Call], list[Call], np.ndarray]:
        """Return the calls of ``prepare`` and ``step`` on the first ``lanes``, and the command."""
        plan = self._plan
        buffers = (*self.state, *self._buffers.values())
        views = {id(buffer): buffer[:lanes] for buffer in buffers}
        at = {place: views[id(buffer)] for place, buffer in self._buffers.items()}
        first = [call for step in plan.prepared for call in _calls(step, at)]
        calls = [call for step in plan.steps for call in _calls(step, at)]
        for place, leaf in zip(plan.state, self.state, strict=True):
            if self._buffers[place] is not leaf:  # else it is computed in place
                calls.append(partial(np.copyto, views[id(leaf)], at[place]))
        return first, calls, at[plan.command]

    def _allocate(self) -> None:
        """Give every step a buffer, one that nobody reads any more where there is one."""
        plan, free = self._plan, {True: [], False: []}
        for step in plan.prepared:
            kind = bool if plan.nodes[step.place].is_bool else F32
            self._buffers[step.place] = np.zeros(self._lanes, kind)
        scratch: set[int] = set()  # values in buffers that may be used again
        for k, step in enumerate(plan.steps):
            is_bool = plan.nodes[step.place].is_bool
            over = [i for i in dict.fromkeys(step.inputs) if plan.last_use[i] == k and i in scratch]
            buffer = self._home(k, step)
            if buffer is None:
                mine = (i for i in over if plan.nodes[i].is_bool == is_bool)
                # A choice is written over its alternative; what is chosen must outlive that.
                taken = next((i for i in mine if step.operation is not np.where), None)
                if step.operation is np.where and step.inputs[2] in over:
                    taken = step.inputs[2] if step.inputs[2] != step.inputs[1] else None
                if taken is not None:
                    buffer = self._buffers[taken]
                    over.remove(taken)
                elif free[is_bool]:
                    buffer = free[is_bool].pop()
                else:
                    buffer = np.zeros(self._lanes, bool if is_bool else F32)
                scratch.add(step.place)
            self._buffers[step.place] = buffer
            for i in over:
                free[plan.nodes[i].is_bool].append(self._buffers[i])

    def _home(self, k: int, step: Step) -> np.ndarray | None:
        """Return the state's own buffer for its new value, if the old one is read no more."""
        plan = self._plan
        for leaf, place in enumerate(plan.state):
            if place != step.place:
                continue
            old = next((i for i, node in enumerate(plan.nodes) if node.leaf == leaf), -1)
            chosen = step.operation is np.where and step.inputs[1] == old
            if plan.last_use.get(old, -1) <= k and not chosen:
                return self.state[leaf]
        return None


def _into(operation: Operation, one: np.ndarray, other: np.ndarray, out: np.ndarray) -> Call:
    # A closure, for ``partial`` takes a quarter longer where it passes something by name.
    def call() -> None:
        operation(one, other, out=out)

    return call


def _calls(step: Step, at: Mapping[int, np.ndarray]) -> list[Call]:
    """Return the numpy calls of one operation, on the arrays of each value."""
    values, out = [at[i] for i in step.inputs], at[step.place]
    if step.operation is not np.where:
        if step.operation in (np.minimum, np.maximum):  # which take no output by its place
            return [_into(step.operation, values[0], values[1], out)]
        return [partial(step.operation, *values, out)]
    chosen = partial(np.putmask, out, values[0], values[1])
    return [chosen] if out is values[2] else [partial(np.copyto, out, values[2]), chosen]
