"""Large zeroed buffers on huge pages where the system offers them."""

from __future__ import annotations

import contextlib
import math
import mmap
import sys

import torch
from torch import Tensor

HUGE = 1 << 21  # bytes of a huge page on x86-64 and most arm64 systems


def zeros(
    *shape: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Tensor:
    """Return zeros; in main memory, asking for huge pages if there is at least one of them.

    A step reads KV pages of 4 KiB all over a pool of gigabytes: with small memory pages every one
    of them costs an address translation that misses. The system may ignore the wish.
    """
    count = math.prod(shape)
    size = count * dtype.itemsize
    if torch.device(device).type != "cpu" or size < HUGE or sys.platform != "linux":
        return torch.zeros(*shape, dtype=dtype, device=device)
    try:
        block = mmap.mmap(-1, -(-size // HUGE) * HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"kv cache: cannot reserve {size / 2**30:.1f} GiB ({error})") from None
    with contextlib.suppress(OSError):  # not built into this kernel: small pages then
        block.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(block, dtype=dtype, count=count).view(*shape)
