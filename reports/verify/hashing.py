"""Numbers from seeds, lane by lane: the same lane gives the same number in any batch."""

from __future__ import annotations

import numpy as np

_STEP = 0x9E3779B97F4A7C15  # splitmix64 (Steele, Lea, Flood, 2014)
_MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def uniforms(seed: np.ndarray, columns: int, offset: int = 0) -> np.ndarray:
    """Return uniform numbers in [0, 1), float64 ``[B, columns]``, from integer seeds ``[B]``.

    Columns ``offset`` to ``offset + columns`` of each seed's endless row.
    """
    at = np.arange(offset + 1, offset + columns + 1, dtype=np.uint64)
    word = _mixed(np.asarray(seed).astype(np.uint64))[:, None] + at * np.uint64(_STEP)
    return (_mixed(word) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mixed(word: np.ndarray) -> np.ndarray:
    word = (word ^ (word >> np.uint64(30))) * np.uint64(_MIX[0])
    word = (word ^ (word >> np.uint64(27))) * np.uint64(_MIX[1])
    return word ^ (word >> np.uint64(31))
