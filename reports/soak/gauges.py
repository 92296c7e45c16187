"""What is sampled during a soak: memory of the process, objects, and what the engine holds."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import numpy as np

from backend.engine import Engine
from controllers.core import require

GAUGES = ("requests", "wall_s", "rss_bytes", "python_blocks", "pages_held", "unfinished")
_STATM = Path("/proc/self/statm")


def resident_bytes() -> int:
    """Return the memory of this process that is in RAM; raise ``ValueError`` off Linux."""
    if not _STATM.is_file():
        raise ValueError(f"resident memory is read from {_STATM}, which this system has not got")
    return int(_STATM.read_text().split()[1]) * mmap.PAGESIZE


class Samples:
    """Rows of gauges in an array allocated beforehand, so that sampling itself holds nothing."""

    def __init__(self, capacity: int) -> None:
        require(capacity >= 1, "capacity must be >= 1", capacity=capacity)
        self._rows = np.zeros((capacity, len(GAUGES)))
        self._used = 0

    def __len__(self) -> int:
        return self._used

    def take(self, engine: Engine, *, requests: int, wall_s: float) -> None:
        """Append one row; when full, every second row gives way to make room."""
        if self._used == len(self._rows):
            self._used = len(self._rows[::2])
            self._rows[: self._used] = self._rows[::2].copy()
        self._rows[self._used] = (
            requests,
            wall_s,
            resident_bytes(),
            sys.getallocatedblocks(),
            engine.loop.scheduler.pool.n_held,
            len(engine.loop.sequences),
        )
        self._used += 1

    def column(self, name: str) -> np.ndarray:
        """Return one gauge over time, float64."""
        return self._rows[: self._used, GAUGES.index(name)].copy()
