"""What the cluster itself does, and when: one order of events, the same in every mode.

Servers may run in steps or in macro-steps, so events of one instant fire in an order that depends
on the mode. Everything a cluster does goes through this agenda, which sorts the moments of an
instant by kind and key; what a step's end causes is put one nanosecond later. So no decision can
depend on the order in which servers reached that instant.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
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


class Agenda:
    """Calls ``act`` at each moment; those of a step's end fire before the next step's end."""

    def __init__(self, env: simpy.Environment, act: Act) -> None:
        self._env = env
        self._act = act
        self._heap: list[tuple[int, int, int, int, object]] = []
        self._pushed = 0  # tells equal moments apart
        self._fixed = (np.zeros(0, np.int64), np.zeros(0, np.int8), np.zeros(0, np.int64))
        self._next = 0  # of the fixed moments

    def fix(self, when_ns: np.ndarray, kinds: np.ndarray, keys: np.ndarray) -> None:
        """Take in all moments known from the start, once, int ``[n]`` each, in any order."""
        order = np.lexsort((keys, kinds, when_ns))
        self._fixed = (when_ns[order], kinds[order], keys[order])
        self._next = 0
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
        if self._next < len(self._fixed[0]):
            self._wake_at(int(self._fixed[0][self._next]))

    def _drain(self, _event: simpy.Event) -> None:
        """Act on everything due, in order; a later event of the same instant finds nothing."""
        now = int(self._env.now)
        when, kinds, keys = self._fixed
        began = self._next
        while True:
            first = self._heap[0] if self._heap and self._heap[0][0] <= now else None
            i = self._next
            fixed = None
            if i < len(when) and when[i] <= now:
                fixed = (int(when[i]), int(kinds[i]), int(keys[i]))
            if fixed is not None and (first is None or fixed <= first[:3]):
                self._next += 1
                self._act(Moment(fixed[1]), fixed[2], None)
            elif first is not None:
                heapq.heappop(self._heap)
                self._act(Moment(first[1]), first[2], first[4])
            else:
                break
        if self._next > began:
            self._arm()
