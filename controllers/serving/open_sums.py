"""Running sums over the tokens of requests under way, for ledgers without token rows."""

from __future__ import annotations

import numpy as np

from controllers.serving.totals import Totals
from controllers.temperature import X_MAX, X_MIN

CLIP_TOLERANCE = 1e-6  # nats of ln T
Signals = tuple[np.ndarray, ...]  # h_applied, h_cal, command, surprisal, float32 [S]


class OpenSums:
    """One slot per request that has got a token; slots are used again."""

    def __init__(self) -> None:
        self._slot_of: dict[int, int] = {}
        self._free: list[int] = []
        self._last_ns = np.zeros(0, np.int64)
        self._last = np.zeros((2, 0), np.float32)  # h_applied, h_cal
        self._sums = np.zeros((4, 0))  # tau, tau_cal, net, nll
        self._counts = np.zeros((2, 0), np.int64)  # tokens, commands on a bound

    def take(self, request_ids: list[int], now_ns: int, signals: Signals) -> np.ndarray:
        """Take in one token each; return the gaps to their last ones, ns, of those that have one.

        Differences are those of float32 values, as between token rows; what is not finite is left
        out.
        """
        slots = np.array([self._slot(request_id) for request_id in request_ids], np.intp)
        h_applied, h_cal, command, surprisal = signals
        now = np.stack([h_applied, h_cal]).astype(np.float32, copy=False)
        change = now - self._last[:, slots]
        change = np.where(np.isfinite(change), change, np.float32(0.0)).astype(np.float64)
        self._sums[:2, slots] -= np.minimum(change, 0.0)
        self._sums[2, slots] -= change[1]
        self._sums[3, slots] += np.where(np.isfinite(surprisal), surprisal, 0.0)
        self._last[:, slots] = now
        near = [np.abs(command - bound) <= CLIP_TOLERANCE for bound in (X_MIN, X_MAX)]
        self._counts[1, slots] += np.logical_or(*near)
        again = self._counts[0, slots] > 0
        gaps = now_ns - self._last_ns[slots][again]
        self._counts[0, slots] += 1
        self._last_ns[slots] = now_ns
        return gaps

    def close(self, request_id: int, totals: Totals) -> None:
        """Hand the sums of a request to ``totals`` and forget it; without a token it has none."""
        slot = self._slot_of.pop(request_id, None)
        if slot is None:
            return
        tokens, on_bound = self._counts[:, slot].tolist()
        tau, tau_cal, net, nll = self._sums[:, slot].tolist()
        totals.request(tokens, tau, tau_cal, net, nll, on_bound, request_id=request_id)
        self._free.append(slot)

    def _slot(self, request_id: int) -> int:
        found = self._slot_of.get(request_id)
        if found is not None:
            return found
        if not self._free:
            self._grow()
        slot = self._slot_of[request_id] = self._free.pop()
        self._last[:, slot] = np.nan  # the first token has nothing to differ from
        self._sums[:, slot] = 0.0
        self._counts[:, slot] = 0
        return slot

    def _grow(self) -> None:
        used = len(self._last_ns)
        more = max(8, used)
        self._free = list(range(used + more - 1, used - 1, -1))
        self._last_ns = np.concatenate([self._last_ns, np.zeros(more, np.int64)])
        self._last = np.concatenate([self._last, np.zeros((2, more), np.float32)], axis=1)
        self._sums = np.concatenate([self._sums, np.zeros((4, more))], axis=1)
        self._counts = np.concatenate([self._counts, np.zeros((2, more), np.int64)], axis=1)
