"""Stage ``bandwidth``: what this device can do at most, in bytes and products per second."""

from __future__ import annotations

import torch

from reports.gpu.place import Place
from reports.gpu.record import Record
from reports.gpu.timing import Timing, copies_for, time_calls

SIZES = (64 << 20, 256 << 20, 1 << 30, 4 << 30)
DRY_SIZES = (1 << 20,)
SIDE, DRY_SIDE = 8192, 64


def bandwidth(place: Place, record: Record) -> None:
    """Time copies, reads and a bf16 matrix product; random data, never zeros."""
    for size in DRY_SIZES if place.dry else SIZES:
        count = 1 if place.dry else copies_for(2 * size)
        sources = [_random(size // 2, place) for _ in range(count)]
        targets = [torch.empty_like(source) for source in sources]
        pairs = list(zip(sources, targets, strict=True))
        copies = [lambda s=s, t=t: t.copy_(s) for s, t in pairs]
        _row(record, "copy", size, 2 * size, time_calls(copies, place))
        reads = [lambda s=s: torch.amax(s) for s in sources]
        _row(record, "read", size, size, time_calls(reads, place))
        del pairs, copies, reads, sources, targets
    side = DRY_SIDE if place.dry else SIDE
    a, b = _random(side * side, place).view(side, side), _random(side * side, place)
    b = b.view(side, side)
    timing = time_calls([lambda: a @ b], place)
    rate = 2 * side**3 / timing.median_s
    record.add("matmul_bf16", side=side, flops_per_s=rate, **timing.fields())


def _random(count: int, place: Place) -> torch.Tensor:
    return torch.empty(count, dtype=torch.bfloat16, device=place.device).normal_()


def _row(record: Record, what: str, size: int, moved: int, timing: Timing) -> None:
    rate = moved / timing.median_s
    spread = (moved / timing.high_s, moved / timing.low_s)
    record.add(
        what,
        tensor_bytes=size,
        bytes_moved=moved,
        bytes_per_s=rate,
        bytes_per_s_low=spread[0],
        bytes_per_s_high=spread[1],
        **timing.fields(),
    )


def best_copy(rows: list[dict]) -> float | None:
    """Return the bandwidth others are held against: the largest copy's median; None without."""
    copies = [row for row in rows if row["what"] == "copy"]
    return max(copies, key=lambda row: row["tensor_bytes"])["bytes_per_s"] if copies else None


def ceiling(place: Place) -> float:
    """Return the copy bandwidth, measured here and now for a stage that runs without its file."""
    size = DRY_SIZES[-1] if place.dry else SIZES[-2]
    source = _random(size // 2, place)
    target = torch.empty_like(source)
    return 2 * size / time_calls([lambda: target.copy_(source)], place).median_s
