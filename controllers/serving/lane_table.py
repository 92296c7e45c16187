"""Law states and fixed signals of the requests in service, one lane each.

An executor must ask the law where to measure (``x_in``) before it has a signal, so it keeps lanes
here from the moment a request is added; the simulator in numpy, the live model in numpy or torch.
A lane outlives preemption: a request's trajectory does not depend on when it was served.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from controllers import ops
from controllers.core import State, TokenSignal, take_lanes, tree_map
from controllers.ops import Array
from controllers.serving.request import Request

UNCAPPED_X = 10.0  # ln T no law reaches: the cap of a request that may go above its own T
FIRST_LANES = 16


def fixed_signal(request: Request, like: Array) -> TokenSignal:
    """Return the signal of one request before its first token, shaped like ``like`` (``[1]``).

    Entropies are zero: a law's ``init`` may read only what the request itself fixes.
    """
    controlled = request.enabled and not request.greedy
    zero = [ops.full_like(like, 0.0) for _ in range(6)]  # no leaf may alias another
    h_cal, v_cal, h_in, v_in, surprisal, position = zero
    return TokenSignal(
        h_cal=h_cal,
        v_cal=v_cal,
        h_in=h_in,
        v_in=v_in,
        surprisal=surprisal,
        target_nats=ops.full_like(like, request.target_nats),
        x_user=ops.full_like(like, request.x_user),
        x_cap=ops.full_like(like, request.x_user if request.one_sided else UNCAPPED_X),
        enabled=ops.full_like(like, 1.0 if controlled else 0.0),
        position=position,
    )


class Starting(Protocol):
    """What a lane is made from: a law, or a sampler."""

    def init(self, signal: TokenSignal) -> State:
        """Return the state of fresh lanes shaped like ``signal``."""
        ...


class LaneTable:
    """Slots for lanes of (law state, signal); grows by doubling, reuses freed slots."""

    def __init__(self, law: Starting, like: Array) -> None:
        """Make an empty table whose lanes have the dtype and device of ``like`` (``[1]``)."""
        self._law = law
        self._like = like
        self._slots: dict[int, int] = {}
        self._free: list[int] = []
        self._lanes: State | None = None  # (law state, TokenSignal), leaves [capacity, ...]
        self._capacity = 0
        self._gathered: tuple[np.ndarray, TokenSignal] | None = None  # the last read, still valid

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._slots

    def add(self, request: Request) -> int:
        """Give ``request`` a fresh lane and return its slot."""
        if request.request_id in self._slots:
            raise ValueError(f"request already has a lane; got request_id={request.request_id}")
        signal = fixed_signal(request, self._like)
        lane = (self._law.init(signal), signal)
        if not self._free:
            self._grow(lane)
        slot = self._free.pop()
        self._slots[request.request_id] = slot
        _store(self._table(), np.array([slot]), lane)
        self._gathered = None
        return slot

    def release(self, request_id: int) -> None:
        """Free the lane of a request; one that has none is left alone."""
        slot = self._slots.pop(request_id, None)
        if slot is not None:
            self._free.append(slot)

    def disable(self, request_id: int) -> None:
        """Take a request out of control from its next step on (the kill switch)."""
        self._table()[1].enabled[self._slots[request_id]] = 0.0
        self._gathered = None

    def slots(self, request_ids: tuple[int, ...]) -> np.ndarray:
        """Return the slots of ``request_ids``, in their order, ``[b]``."""
        return np.array([self._slots[request_id] for request_id in request_ids], np.intp)

    def read(self, slots: np.ndarray) -> tuple[State, TokenSignal]:
        """Return copies of law state and fixed signals of ``slots``, leaves ``[b, ...]``.

        Of the signal, entropies and position are zero, for the caller to fill in.
        """
        states, signals = self._table()
        if self._gathered is None or not np.array_equal(self._gathered[0], slots):
            self._gathered = (slots, take_lanes(signals, slots))
        fixed = self._gathered[1]  # the same batch decodes for many steps
        return take_lanes(states, slots), fixed._replace(surprisal=signals.surprisal[slots])

    def write_state(self, slots: np.ndarray, state: State) -> None:
        """Store the law state of ``slots`` after the law has advanced it."""
        _store(self._table()[0], slots, state)

    def write_surprisal(self, slots: np.ndarray, surprisal: Array) -> None:
        """Store the surprisal ``[b]`` of the tokens just sampled, for the next signal."""
        self._table()[1].surprisal[slots] = surprisal

    def check(self) -> None:
        """Assert that every slot is either held by one request or free."""
        known = sorted([*self._slots.values(), *self._free])
        assert known == list(range(self._capacity)), f"slots {known}, capacity {self._capacity}"

    def _table(self) -> State:
        if self._lanes is None:
            raise ValueError("no request has a lane; add one first")
        return self._lanes

    def _grow(self, lane: State) -> None:
        old = self._capacity
        self._capacity = max(FIRST_LANES, 2 * old)
        source = lane if self._lanes is None else self._lanes
        index = [*range(old), *([0] * (self._capacity - old))]  # new slots: overwritten before read
        self._lanes = take_lanes(source, index)
        self._free.extend(range(self._capacity - 1, old - 1, -1))


def _store(table: State, slots: np.ndarray, lanes: State) -> None:
    def assign(leaf: Array, values: Array) -> Array:
        leaf[slots] = values  # in place: the table owns its leaves, laws only ever see copies
        return leaf

    tree_map(assign, table, lanes)
