"""How things are timed: cases of one process take turns, so that a slow spell touches all alike.

A turn may begin with untimed calls. A step of stock transformers at 16 x 2,048 tokens faults in
1.5 GB and gives it back to the system, and our step right after it may take half as long again as
the next one (see the README). A server's step follows a step of its own: so does ours here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

from backend.memory import zeros
from reports.bench.rows import FEWEST_REPEATS, BenchError

Case = Callable[[], float]  # does the work once; returns the seconds of what is to be timed

COPY_BYTES = 1 << 29  # well past any last-level cache
COPY = "copy"
SETTLE_S = 0.15  # of untimed steps at the beginning of a turn


def interleave(
    cases: Mapping[str, Case], repeats: int, *, settle_s: float = 0.0
) -> dict[str, tuple[float, ...]]:
    """Return seconds per case and repeat; every repeat runs all cases, each starting elsewhere.

    A first turn warms up and is dropped. Every turn of every case begins with untimed calls until
    ``settle_s`` have passed, one at least; 0 means none.
    """
    if repeats < FEWEST_REPEATS:
        raise BenchError(f"repeats must be >= {FEWEST_REPEATS}; got {repeats}")
    names = list(cases)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(repeats + 1):
        first = repeat % len(names)
        for name in names[first:] + names[:first]:
            _settle(cases[name], settle_s)
            elapsed = cases[name]()
            if repeat:
                seconds[name].append(elapsed)
    return {name: tuple(values) for name, values in seconds.items()}


def _settle(case: Case, seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        case()


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long ``work`` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class Copy:
    """Copies one array to another: the machine's bandwidth, read and write both counted.

    The arrays lie in the same kind of memory as our KV pool, on huge pages where there are any.
    """

    def __init__(self, size_bytes: int = COPY_BYTES) -> None:
        self._from, self._to = zeros(size_bytes // 4), zeros(size_bytes // 4)
        self._from.fill_(1.0)
        self._to.fill_(0.0)  # its pages exist before the clock runs

    @property
    def moved_bytes(self) -> int:
        """Bytes read and written by one copy."""
        return 2 * self._from.numel() * 4

    def __call__(self) -> float:
        """Copy once; return seconds."""
        return seconds_of(lambda: self._to.copy_(self._from))

    def read(self) -> float:
        """Read the source once, writing nothing; return seconds."""
        return seconds_of(lambda: torch.dot(self._from, self._from))

    @property
    def read_bytes(self) -> int:
        """Bytes read by one :meth:`read`."""
        return self._from.numel() * 4
