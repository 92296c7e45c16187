"""What a law's ``update`` computes, as a graph, found by running it once on stand-ins for arrays.

Laws are branch-free and keep to the few operations of ``controllers.ops``, so that one run shows
all they will ever do. A law that does more (it cuts arrays up, or asks whether one is true) has no
graph and is called as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from controllers.core import Law, LoadSignal, State, TokenSignal, tree_map

F32 = np.float32
NUMBERS = frozenset({np.add, np.subtract, np.multiply, np.true_divide, np.maximum, np.minimum})
TESTS = frozenset(
    {np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal, np.isfinite}
)
LOGIC = frozenset({np.bitwise_and, np.bitwise_or, np.invert})


class Node(NamedTuple):
    """One value: a leaf, a constant, or an operation on earlier values."""

    operation: Callable[..., Any] | None  # a ufunc, ``np.where``, or None
    inputs: tuple[int, ...] = ()
    leaf: str | int | None = None  # a field of the signal, or a place among the state's leaves
    constant: bytes | None = None  # of a float32
    is_bool: bool = False


class Graph:
    """Values in an order in which they can be computed; equal ones are one."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._places: dict[Node, int] = {}

    def add(self, node: Node) -> Symbol:
        """Return the value of ``node``."""
        place = self._places.setdefault(node, len(self.nodes))
        if place == len(self.nodes):
            self.nodes.append(node)
        return Symbol(self, place)

    def constant(self, value: float) -> Symbol:
        """Return the value of a Python number, which takes the dtype of the arrays it meets."""
        return self.add(Node(None, constant=F32(value).tobytes()))

    def apply(self, operation: Callable[..., Any], inputs: tuple[Any, ...]) -> Any:
        """Return the value of an operation; ``NotImplemented`` where a law may not use it so."""
        numbers = [self.constant(x) if type(x) in (int, float) else x for x in inputs]
        if not all(isinstance(x, Symbol) for x in numbers):
            return NotImplemented  # float64, or an array of the law's own
        places = tuple(cast("Symbol", x).place for x in numbers)
        bools = [self.nodes[place].is_bool for place in places]
        if operation is np.where:
            if bools != [True, False, False]:
                return NotImplemented
        elif bools != [operation in LOGIC] * len(bools):
            return NotImplemented
        if operation is np.equal and self._difference_of_one(places[0]) and self._zero(places[1]):
            # x - x is zero exactly where x is finite, and NaN elsewhere.
            return self.apply(np.isfinite, (Symbol(self, self.nodes[places[0]].inputs[0]),))
        is_bool = operation in TESTS or operation in LOGIC
        return self.add(Node(operation, places, is_bool=is_bool))

    def _difference_of_one(self, place: int) -> bool:
        node = self.nodes[place]
        return node.operation is np.subtract and len(set(node.inputs)) == 1

    def _zero(self, place: int) -> bool:
        return self.nodes[place].constant == F32(0.0).tobytes()


class Symbol(NDArrayOperatorsMixin):
    """Stands in for an array ``[B]`` and notes what is done with it."""

    ndim = 1

    def __init__(self, graph: Graph, place: int) -> None:
        self._graph, self.place = graph, place

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        known = ufunc in NUMBERS or ufunc in TESTS or ufunc in LOGIC
        if method != "__call__" or kwargs or not known:
            return NotImplemented
        return self._graph.apply(ufunc, inputs)

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...], kwargs: Any
    ) -> Any:
        if kwargs or function not in (np.where, np.full_like):
            return NotImplemented
        if function is np.where:
            return self._graph.apply(function, args)
        return self._graph.constant(args[1]) if type(args[1]) in (int, float) else NotImplemented

    def reshape(self, *shape: int) -> Symbol:
        """Return itself for ``reshape(-1)``, which is what a lane's own leaf is given."""
        if shape != (-1,):
            raise TypeError("a stand-in has one axis")
        return self

    def __bool__(self) -> bool:
        raise TypeError("a stand-in is neither true nor false")


@dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """One ``update`` of a law: from a signal and a state's leaves to new leaves and a command."""

    nodes: list[Node]
    state: tuple[int, ...]  # the value of each leaf of the new state
    command: int


def traced(law: Law, kind: type[TokenSignal] | type[LoadSignal] = TokenSignal) -> Traced | None:
    """Return the graph of ``law.update`` on signals of a ``kind``; None where it has none."""
    graph = Graph()
    try:
        before = law.init(kind(*(np.ones(1, F32) for _ in kind._fields)))
        signal = kind(*(graph.add(Node(None, leaf=f)) for f in kind._fields))
        places = iter(range(len(leaves(before))))
        state = tree_map(lambda leaf: graph.add(_state_leaf(leaf, next(places))), before)
        after, command = law.update(state, signal)
        found = tuple(leaf.place for leaf in leaves(after))
        if _structure(after) != _structure(before):
            return None
        outcomes = [graph.nodes[place] for place in (*found, command.place)]
    except Exception:  # a law may do with its arrays what a stand-in cannot
        return None
    moved = [n.leaf for i, n in enumerate(outcomes[:-1]) if isinstance(n.leaf, int) and n.leaf != i]
    if moved or any(node.is_bool for node in outcomes):
        return None  # leaves that change places would overwrite each other
    return Traced(nodes=graph.nodes, state=found, command=command.place)


def together(first: Traced, second: Traced, renamed: Mapping[str, str]) -> Traced | None:
    """Return two laws as one, which counts a value that both compute once.

    Leaves of the state are those of ``first``, those of ``second``, and then the command of
    ``second``; fields that ``second`` reads have the names ``renamed`` gives them. None where that
    command is a leaf as it was, which would be written over before it is copied.
    """
    if isinstance(second.nodes[second.command].leaf, int):
        return None
    graph, found, states = Graph(), [], 0
    for law, names in ((first, {}), (second, renamed)):
        places: list[int] = []
        for node in law.nodes:
            leaf = node.leaf + states if isinstance(node.leaf, int) else node.leaf
            inputs = tuple(places[i] for i in node.inputs)
            leaf = names.get(leaf, leaf) if isinstance(leaf, str) else leaf
            places.append(graph.add(node._replace(leaf=leaf, inputs=inputs)).place)
        found.append(places)
        states += len(law.state)
    mine, theirs = found
    command = theirs[second.command]
    state = (*(mine[i] for i in first.state), *(theirs[i] for i in second.state), command)
    return Traced(nodes=graph.nodes, state=state, command=mine[first.command])


def leaves(state: State) -> list[Any]:
    """Return the arrays of a state, in order."""
    if not isinstance(state, tuple):
        return [state]
    return [leaf for part in state for leaf in leaves(part)]


def _structure(state: State) -> Any:
    return tree_map(lambda _leaf: 0, state)


def _state_leaf(leaf: Any, place: int) -> Node:
    if not (isinstance(leaf, np.ndarray) and leaf.dtype == F32 and leaf.ndim == 1):
        raise TypeError("a leaf must hold one float32 per lane")
    return Node(None, leaf=place)
