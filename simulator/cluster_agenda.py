"""What the cluster itself does, and when: one order of events, the same in every mode.

Servers may run in steps or in macro-steps, so events of one instant fire in an order that depends
on the mode. Everything a cluster does goes through this agenda, which sorts the moments of an
instant by kind and key; what a step's end causes is put one nanosecond later. So no decision can
depend on the order in which servers reached that instant.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from enum import IntEnum

import numpy as np
import simpy


class Moment(IntEnum):
    """Kinds of moments, in their order within an instant."""

    READY = 0  # a machine's server starts; key: machine
    DEPARTED = 1  # a request left a server; key: request
    ARRIVAL = 2  # key: index of the arrival
    RETURN = 3  # a request between servers looks for one; key: request
    CANCEL = 4  # its user gives up; key: index of the arrival
    CRASH = 5  # key: machine
    TICK = 6  # an autoscaler decides; key: group


Act = Callable[[Moment, int, object], None]  # kind, key, note
Known = tuple[int, Moment, int]  # when, kind, key
KINDS = tuple(Moment)
AT_ONCE = 64  # fixed moments turned into Python numbers together
BEYOND: Known = (2**63, Moment.TICK, 0)  # after the last of them


class Agenda:
    """Calls ``act`` at each moment; those of a step's end fire before the next step's end."""

    def __init__(self, env: simpy.Environment, act: Act) -> None:
        self._env = env
        self._act = act
        self._heap: list[tuple[int, int, int, int, object]] = []
        self._pushed = 0  # tells equal moments apart
        self._fixed: Iterator[Known] = iter(())
        self._next = BEYOND  # of the fixed moments

    def fix(self, when_ns: np.ndarray, kinds: np.ndarray, keys: np.ndarray) -> None:
        """Take in all moments known from the start, once, int ``[n]`` each, in any order."""
        order = np.lexsort((keys, kinds, when_ns))
        self._fixed = _in_turn(when_ns[order], kinds[order], keys[order])
        self._next = next(self._fixed, BEYOND)
        self._arm()

    def at(self, when_ns: int, kind: Moment, key: int, note: object = None) -> None:
        """Put a moment at ``when_ns``, not before now; ``act`` gets ``note`` with it."""
        heapq.heappush(self._heap, (when_ns, int(kind), key, self._pushed, note))
        self._pushed += 1
        self._wake_at(when_ns)

    def soon(self, kind: Moment, key: int, note: object = None) -> None:
        """Put a moment one nanosecond from now."""
        self.at(int(self._env.now) + 1, kind, key, note)

    def _wake_at(self, when_ns: int) -> None:
        timeout = simpy.Timeout(self._env, when_ns - int(self._env.now))
        assert timeout.callbacks is not None
        timeout.callbacks.append(self._drain)

    def _arm(self) -> None:
        if self._next is not BEYOND:
            self._wake_at(self._next[0])

    def _drain(self, _event: simpy.Event) -> None:
        """Act on everything due, in order; a later event of the same instant finds nothing."""
        now, heap, began = int(self._env.now), self._heap, self._next
        while True:
            fixed = self._next
            if heap and heap[0][0] <= now and heap[0][:3] < fixed:
                _, kind, key, _, note = heapq.heappop(heap)
                self._act(KINDS[kind], key, note)
            elif fixed[0] <= now:
                self._next = next(self._fixed, BEYOND)
                self._act(fixed[1], fixed[2], None)
            else:
                break
        if self._next is not began:
            self._arm()


def _in_turn(when_ns: np.ndarray, kinds: np.ndarray, keys: np.ndarray) -> Iterator[Known]:
    """Yield moments that are in order, a few turned into Python numbers at a time."""
    for start in range(0, len(when_ns), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        named = [KINDS[kind] for kind in kinds[part].tolist()]
        yield from zip(when_ns[part].tolist(), named, keys[part].tolist(), strict=True)
