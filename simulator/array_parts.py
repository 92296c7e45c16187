"""What the array replica puts in the place of parts of the serving loop.

The scheduler, the priority law and the load signal are those of the loop. Pages are counted, not
named; sensors look a trajectory up instead of watching it; service is counted by the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq

import numpy as np

from controllers.core import Law, LoadSignal
from controllers.serving.limits import EngineLimits
from controllers.serving.pages import PagePool
from controllers.serving.request import Sequence
from controllers.serving.scheduler import Grants, Scheduler, Score
from controllers.serving.sensors import CollapseSensor
from controllers.serving.service import OUTPUT_WEIGHT, ServiceCounters


class PageCount(PagePool):
    """A pool that counts pages; their numbers are unique and mean nothing, for none is shared."""

    __slots__ = ("_next",)

    def __init__(self, n_pages: int) -> None:
        self.n_pages = self.n_free = n_pages
        self._next = 0

    def numbers(self, n: int) -> range:
        """Return ``n`` fresh page numbers; none if ``n`` is negative."""
        start = self._next
        self._next += max(0, n)
        return range(start, self._next)

    def allocate(self, n: int) -> list[int] | None:
        """Take ``n`` pages, or none at all if fewer are free (then ``None``)."""
        if n > self.n_free:
            return None
        self.n_free -= n
        return list(self.numbers(n))

    def extend(self, pages: list[int]) -> bool:
        """Append one page to the table ``pages``; False, and no change, when none is free."""
        if self.n_free == 0:
            return False
        self.n_free -= 1
        pages.extend(self.numbers(1))
        return True

    def share(self, pages: Iterable[int]) -> None:
        """Do nothing: nobody finds a page here."""

    def find(self, contents: Seq[int]) -> list[int]:
        """Find nothing."""
        return []

    def references(self, page: int) -> int:
        """Return 1: every page has one holder."""
        return 1


class ArrayScheduler(Scheduler):
    """The loop's scheduler over counted pages, with its open decisions to be called one by one."""

    pool: PageCount

    def __init__(
        self, limits: EngineLimits, *, quantum_tokens: int | None, reserves: bool, score: Score
    ) -> None:
        super().__init__(limits, quantum_tokens=quantum_tokens, reserves=reserves, score=score)
        self.pool = PageCount(limits.n_pages)
        self.imported: dict[int, int] = {}  # request id -> tokens that its first admission finds

    def admit(self, grants: Grants, budget: int, now_ns: int) -> list[int]:
        """Decide who enters; ``grants`` holds the expired residents and takes the admitted."""
        return self._admit(grants, budget, now_ns)

    def grow(self, now_ns: int) -> list[int]:
        """Decide who goes for want of pages; all residents must be up to date."""
        return self._grow(now_ns)

    def start(self, sequence: Sequence) -> None:
        """Let a waiting sequence in; its pages must be there."""
        self._start(sequence)

    def pages_to_start(self, sequence: Sequence) -> int:
        """Return the free pages that admission takes."""
        return self.limits.pages_for(sequence.known + 1)

    def _start(self, sequence: Sequence) -> None:
        super()._start(sequence)
        imported = self.imported.pop(sequence.request.request_id, None)
        if imported is not None:
            sequence.computed = imported

    def _free_pages(self, sequence: Sequence) -> None:
        self.pool.n_free += len(sequence.pages)
        sequence.pages = []
        sequence.computed = 0


class ScannedCollapse(CollapseSensor):
    """The collapse sensor, read off trajectories: ``after(id)`` is the sum and the tokens seen."""

    def __init__(
        self, prior_nats: float, prior_weight: float, after: Callable[[int], tuple[float, int]]
    ) -> None:
        super().__init__(prior_nats, prior_weight)
        self._after = after

    def read(self, request_id: int) -> float:
        """Return the shrunk mean, nats, >= 0."""
        total, n = self._after(request_id)
        if n < 2:
            return self._prior
        return (total + self._prior * self._weight) / (n - 1 + self._weight)


class BatchedService(ServiceCounters):
    """Service counters that are charged for the steps of residents when somebody asks.

    Weighted tokens are whole numbers, so charging many at once gives the same counters.
    """

    def __init__(self) -> None:
        super().__init__()
        self._rate: dict[str, list[int]] = {}  # client -> residents that decode, sum of paid-up-to

    def begin(self, client: str, step: int) -> None:
        """Charge one token to ``client`` in every step from ``step`` on."""
        flow = self._rate.setdefault(client, [0, 0])
        flow[0] += 1
        flow[1] += step

    def end(self, client: str, step: int) -> None:
        """Charge what is due before ``step``, and one token less in every step from there on."""
        flow = self._rate[client]
        self._pay(client, flow, step)
        flow[0] -= 1
        flow[1] -= step
        if not flow[0]:
            del self._rate[client]

    def settle(self, step: int) -> None:
        """Charge all that is due before ``step``."""
        for client, flow in self._rate.items():
            self._pay(client, flow, step)

    def _pay(self, client: str, flow: list[int], step: int) -> None:
        due = flow[0] * step - flow[1]
        if due:
            self._counters[client] += OUTPUT_WEIGHT * due
            flow[1] = flow[0] * step


class NoService(BatchedService):
    """Counts nothing, for laws that do not ask what a client has been given."""

    def begin(self, client: str, step: int) -> None:
        """Do nothing."""

    def end(self, client: str, step: int) -> None:
        """Do nothing."""

    def settle(self, step: int) -> None:
        """Do nothing."""

    def arrive(self, sequence: Sequence) -> None:
        """Do nothing."""

    def admit(self, sequence: Sequence) -> None:
        """Do nothing."""

    def token(self, client: str) -> None:
        """Do nothing."""

    def leave(self, sequence: Sequence) -> None:
        """Do nothing."""


class _Watched:
    """Stands in for a ``LoadSignal`` and notes the names that are asked for."""

    def __init__(self, signal: LoadSignal) -> None:
        self._signal = signal
        self.read: set[str] = set()

    def __getattr__(self, name: str) -> np.ndarray:
        self.read.add(name)
        return getattr(self._signal, name)


def fields_read(law: Law) -> frozenset[str]:
    """Return the fields of ``LoadSignal`` that a law looks at; all if it cannot tell.

    Laws are branch-free: what they read once they read always.
    """
    signal = LoadSignal(*(np.ones(1, np.float32) for _ in LoadSignal._fields))
    watched = _Watched(signal)
    try:
        law.update(law.init(watched), watched)
    except (AttributeError, TypeError):  # it does with its signal what a stand-in cannot
        return frozenset(LoadSignal._fields)
    return frozenset(watched.read)
