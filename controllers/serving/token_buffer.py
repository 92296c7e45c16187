"""Token rows of the last steps, which go into a ledger's table many steps at a time."""

from __future__ import annotations

from itertools import chain

import numpy as np

from controllers.serving.table import Table

SIGNALS = ("h_applied", "h_cal", "command", "surprisal")
_STEPS = 256  # held at most


class TokenBuffer:
    """Appends token rows to ``table``; nobody reads it before :meth:`flush`."""

    __slots__ = ("_steps", "table")

    def __init__(self, table: Table) -> None:
        self.table = table
        self._steps: list[tuple[list[int], list[int], int, np.ndarray, list[float]]] = []

    def add(
        self,
        request_ids: list[int],
        positions: list[int],
        now_ns: int,
        signals: tuple[np.ndarray, ...],
        coverage: list[float],
    ) -> None:
        """Take one step in; ``signals``, in the order of ``SIGNALS``, are copied."""
        self._steps.append((request_ids, positions, now_ns, np.concatenate(signals), coverage))
        if len(self._steps) >= _STEPS:
            self.flush()

    def flush(self) -> None:
        """Bring the table up to date."""
        if not self._steps:
            return
        ids, positions, now_ns, signals, coverage = zip(*self._steps, strict=True)
        self._steps = []
        columns, counts = self.table.columns, [len(step) for step in ids]
        columns["request_id"].extend(chain.from_iterable(ids))
        columns["position"].extend(chain.from_iterable(positions))
        columns["now_ns"].frombytes(np.repeat(np.array(now_ns, np.int64), counts).tobytes())
        columns["coverage"].extend(chain.from_iterable(coverage))
        lanes = [step.reshape(len(SIGNALS), -1) for step in signals]
        for name, values in zip(SIGNALS, np.concatenate(lanes, axis=1), strict=True):
            columns[name].frombytes(values.astype(np.float32, copy=False).tobytes())
