"""Large arrays out of the heap, so that a long simulation takes the memory of what it holds."""

from __future__ import annotations

import ctypes
from functools import cache

M_MMAP_THRESHOLD = -3  # of mallopt(3)
LARGE_BYTES = 4 << 20


@cache
def keep_large_arrays_apart() -> bool:
    """Let the C library map arrays of ``LARGE_BYTES`` or more apart; return whether it does.

    Left alone, glibc takes an array from the heap once one of its size was freed. Blocks of a scan
    then lie between the columns of ledgers that grow, and leave holes there. For processes that
    simulate and nothing else: a network's activations would be mapped anew in every step.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES))
    except (AttributeError, OSError, TypeError):  # another C library, or none to be had this way
        return False
