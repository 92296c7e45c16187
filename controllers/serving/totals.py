"""Totals of a ledger: what metrics need of steps and tokens, in memory that does not grow so.

Steps go into a small buffer and are folded when it is full. Gaps between tokens go into a
histogram with bins of equal relative width, so its percentiles are within half of ``BIN_WIDTH``.
"""

from __future__ import annotations

import math

import numpy as np

from controllers.core import require
from controllers.serving.table import Table

BIN_WIDTH = 0.002  # relative width of a bin of gaps
_LOG_WIDTH = math.log1p(BIN_WIDTH)
_BUFFER = 1024  # steps
_STEP = (
    "now_ns",
    "duration_ns",
    "n_decode",
    "prompt_tokens",
    "pages_held",
    "page_units_read",
    "page_units_dense",
    "pages_scored",
    "preempted",
)
_REQUEST = {
    "request_id": "q",
    "tokens": "i",
    "tau": "f",
    "tau_cal": "f",
    "net": "f",
    "nll": "f",
    "on_bound": "i",
}
Steps = int | np.ndarray  # one number for all steps of a call, or one per step


class GapHistogram:
    """Counts of gaps, integer ns >= 0, in bins ``BIN_WIDTH`` wide; their sum is exact."""

    def __init__(self) -> None:
        self.counts = np.zeros(0, np.int64)  # bin 0 holds gaps of 0 and 1 ns
        self.n = 0
        self.sum_ns = 0

    def add(self, gaps_ns: np.ndarray, counts: np.ndarray | int = 1) -> None:
        """Count each of ``gaps_ns`` ``[k]`` as often as ``counts`` says, ``[k]`` or one number."""
        gaps = np.asarray(gaps_ns, np.int64)
        if gaps.size == 0:
            return
        times = np.broadcast_to(np.asarray(counts, np.int64), gaps.shape)
        bins = (np.log(np.maximum(gaps, 1)) / _LOG_WIDTH).astype(np.int64)
        self._grow(int(bins.max()) + 1)
        np.add.at(self.counts, bins, times)
        self.n += int(times.sum())
        self.sum_ns += int((gaps * times).sum())

    def absorb(self, other: GapHistogram) -> None:
        """Add the counts of ``other``."""
        self._grow(len(other.counts))
        self.counts[: len(other.counts)] += other.counts
        self.n += other.n
        self.sum_ns += other.sum_ns

    def quantile_ns(self, share: float) -> float:
        """Return the gap of rank ``floor(share*(n - 1))``, ns, within half a bin of the true."""
        require(self.n > 0, "a quantile needs a gap", n=self.n)
        rank = math.floor(share * (self.n - 1))
        found = int(np.searchsorted(np.cumsum(self.counts), rank, side="right"))
        return math.exp((found + 0.5) * _LOG_WIDTH)

    def _grow(self, bins: int) -> None:
        if bins > len(self.counts):
            self.counts = np.concatenate([self.counts, np.zeros(bins - len(self.counts), np.int64)])


class Totals:
    """Sums over steps and over requests. Steps that begin before ``from_ns`` are left out."""

    def __init__(self, from_ns: int = 0) -> None:
        self.from_ns = from_ns
        self.requests = Table(_REQUEST)  # entropy sums of each, where token rows are not kept
        self.gaps = GapHistogram()
        self._buffer = np.zeros((len(_STEP), _BUFFER), np.int64)
        self._pending = 0
        self._singles: list[tuple[int, ...]] = []  # steps that came one by one
        self._sums: dict[str, int] = dict.fromkeys(_STEP[1:], 0)
        self._decode_row_ns = 0
        self._held_ns = np.zeros(0, np.int64)  # time spent with each number of pages held
        self._n_steps = 0
        self._end_ns = 0

    def steps(
        self,
        now_ns: Steps,
        duration_ns: Steps,
        n_decode: Steps,
        prompt_tokens: Steps,
        pages_held: Steps,
        read: Steps,
        dense: Steps,
        scored: Steps,
        preempted: Steps,
    ) -> None:
        """Take in one step (all numbers) or ``[k]`` steps (``now_ns`` an array); values are copied.

        Columns are those of the ledger's step table; a number stands for all k.
        """
        columns = (now_ns, duration_ns, n_decode, prompt_tokens, pages_held)
        columns = (*columns, read, dense, scored, preempted)
        k = len(now_ns) if isinstance(now_ns, np.ndarray) else 1
        if k > _BUFFER:
            parts = [np.broadcast_to(column, (k,)) for column in columns]
            for start in range(0, k, _BUFFER):
                self.steps(*(part[start : start + _BUFFER] for part in parts))
            return
        if self._pending + k > _BUFFER:
            self._fold()
        here = slice(self._pending, self._pending + k)
        for row, column in zip(self._buffer, columns, strict=True):
            row[here] = column
        self._pending += k

    def step(self, *values: int) -> None:
        """Take in one step, values in the order of :meth:`steps`."""
        self._singles.append(values)
        if len(self._singles) == _BUFFER:
            self._fold()

    def request(
        self,
        tokens: int,
        tau: float,
        tau_cal: float,
        net: float,
        nll: float,
        on_bound: int,
        *,
        request_id: int,
    ) -> None:
        """Take in the sums over the tokens of a request that ended, nats.

        ``on_bound`` counts commands on a bound of ln T.
        """
        self.requests.append(request_id, tokens, tau, tau_cal, net, nll, on_bound)

    def itl(self, gaps_ns: np.ndarray, counts: np.ndarray | int = 1) -> None:
        """Take in gaps between successive tokens of one request, ns, each ``counts`` times."""
        self.gaps.add(gaps_ns, counts)

    def absorb(self, other: Totals) -> None:
        """Add what ``other`` holds, which stays as it is."""
        require(
            other.from_ns == self.from_ns, f"from_ns must be {self.from_ns}", from_ns=other.from_ns
        )
        self._fold()
        other._fold()
        self.requests.extend({name: other.requests[name] for name in _REQUEST})
        self.gaps.absorb(other.gaps)
        for name, value in other._sums.items():
            self._sums[name] += value
        self._decode_row_ns += other._decode_row_ns
        self._held_ns = _added(self._held_ns, other._held_ns)
        self._n_steps += other._n_steps
        self._end_ns = max(self._end_ns, other._end_ns)

    @property
    def n_steps(self) -> int:
        """Steps taken in."""
        self._fold()
        return self._n_steps

    @property
    def end_ns(self) -> int:
        """When the last step ended, ns; 0 before any."""
        self._fold()
        return self._end_ns

    def sum(self, column: str) -> int:
        """Return the sum of a step column over the steps taken in."""
        self._fold()
        return self._sums[column]

    @property
    def decode_row_ns(self) -> int:
        """Sum over steps of decode rows times duration."""
        self._fold()
        return self._decode_row_ns

    @property
    def held_ns(self) -> np.ndarray:
        """Busy ns spent with 0, 1, 2, ... pages held, int64."""
        self._fold()
        return self._held_ns

    def _fold(self) -> None:
        if self._singles:
            self._add(np.array(self._singles, np.int64).T)
            self._singles.clear()
        if self._pending:
            self._add(self._buffer[:, : self._pending])
            self._pending = 0

    def _add(self, block: np.ndarray) -> None:
        block = block[:, block[0] >= self.from_ns]
        if block.shape[1] == 0:
            return
        duration, held = block[1], block[4]
        for name, value in zip(_STEP[1:], block[1:].sum(axis=1).tolist(), strict=True):
            self._sums[name] += value
        self._decode_row_ns += int(block[2] @ duration)
        counts = np.zeros(int(held.max()) + 1, np.int64)
        np.add.at(counts, held, duration)
        self._held_ns = _added(self._held_ns, counts)
        self._n_steps += block.shape[1]
        self._end_ns = max(self._end_ns, int((block[0] + duration).max()))


def _added(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the sum of two arrays, the shorter padded with zeros."""
    if len(other) > len(one):
        one, other = other, one
    whole = one.copy()
    whole[: len(other)] += other
    return whole
