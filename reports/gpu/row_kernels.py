"""Row statistics and draws against the bandwidth floor; page scoring and selection by length."""

from __future__ import annotations

import torch
from torch import Tensor

from controllers.selection import Pins
from kernels.page_stats import Moments
from reports.gpu.place import Place
from reports.gpu.record import Record
from reports.gpu.timing import copies_for, time_calls

VOCABULARIES, BATCHES = (49_152, 128_256, 151_936), (1, 8, 32, 64, 256)
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
TEMPERATURES = 2  # measured in one pass: T = 1 and the law's own
PAGES_AT = ((512, 1), (512, 32), (2048, 8), (4096, 1), (8192, 1), (8192, 8))  # pages, rows
LAYERS = 32  # of the 8B shape, for the share of a step


def row_kernels(place: Place, record: Record, copy_rate: float) -> None:
    """Time statistics and draws; floor: the bytes of the logits, read once at copy speed."""
    sizes = (300,) if place.dry else VOCABULARIES
    for n in sizes:
        for rows in (2,) if place.dry else BATCHES:
            for name, dtype in DTYPES.items():
                if place.late:
                    record.add("skipped", part="rows", vocabulary=n, rows=rows)
                    continue
                try:
                    _rows(place, record, copy_rate, n, rows, name, dtype)
                except Exception as error:  # a kernel compiler raises types of its own
                    record.failed("row_stats", error, vocabulary=n, rows=rows, dtype=name)


def _rows(
    place: Place,
    record: Record,
    copy_rate: float,
    n: int,
    rows: int,
    name: str,
    dtype: torch.dtype,
) -> None:
    size = rows * n * dtype.itemsize
    count = 1 if place.dry else copies_for(size, most=1024)
    sets = [(torch.randn(rows, n, device=place.device) * 4).to(dtype) for _ in range(count)]
    x = torch.zeros(rows, TEMPERATURES, device=place.device)
    lane, noise = x[:, 0].contiguous(), torch.rand(rows, device=place.device).double()
    twins, floor = place.twins(), size / copy_rate
    ways = {
        "row_stats": lambda z: twins.row_stats(z, x),
        "draw": lambda z: twins.draw(z, lane, noise),
        "torch_entropy": _entropy,
    }
    if place.cuda:
        ways["compiled_entropy"] = torch.compile(_entropy, dynamic=False)
    for way, run in ways.items():
        try:
            timing = time_calls([lambda z=z, r=run: r(z) for z in sets], place, seconds=0.1)
        except Exception as error:  # torch.compile fails in ways of its own
            record.failed(way, error, vocabulary=n, rows=rows, dtype=name)
            continue
        record.add(
            way,
            vocabulary=n,
            rows=rows,
            dtype=name,
            floor_s=floor,
            of_floor=timing.median_s / floor,
            **timing.fields(),
        )


def _entropy(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return H and V at one temperature, as one writes them in torch."""
    log_p = z.float().log_softmax(-1)
    p = log_p.exp()
    h = -(p * log_p).sum(-1)
    return h, (p * (log_p + h[:, None]).square()).sum(-1)


def page_kernels(place: Place, record: Record, copy_rate: float) -> None:
    """Time storing a token, scoring the pages and selecting among them, per layer."""
    for n, rows in ((8, 2),) if place.dry else PAGES_AT:
        if place.late:
            record.add("skipped", part="pages", pages=n, rows=rows)
            continue
        try:
            _pages(place, record, copy_rate, n, rows)
        except Exception as error:  # a kernel compiler raises types of its own
            record.failed("pages", error, pages=n, rows=rows)


def _pages(place: Place, record: Record, copy_rate: float, n: int, rows: int) -> None:
    heads, group, dim, size = (2, 2, 16, 16) if place.dry else (8, 4, 128, 16)
    pool = rows * n
    statistics = 2 * heads * pool * dim * 4
    count = 1 if place.dry else copies_for(statistics, most=64)
    stats = [Moments(*torch.rand(2, heads, pool, dim, device=place.device)) for _ in range(count)]
    q = torch.randn(rows, heads, group, dim, device=place.device).to(torch.bfloat16)
    table = torch.randperm(pool, device=place.device).int().view(rows, n)
    n_pages = torch.full((rows,), n, dtype=torch.int32, device=place.device)
    tails, lists = torch.full_like(n_pages, size), (table, n_pages)
    coverage = torch.full((rows,), 0.95, device=place.device)
    keys = torch.randn(heads, rows, dim, device=place.device).to(torch.bfloat16)
    k_pages = torch.zeros(heads, pool, size, dim, dtype=torch.bfloat16, device=place.device)
    slots = (table[:, -1].long() + 1) * size - 1
    twins, scale = place.twins(), dim**-0.5

    def score(kept: Moments) -> Tensor:
        return twins.estimate_mass(q, kept, *lists, tails, scale, page_tokens=size)

    mass = score(stats[0])
    ways = {
        "score": [lambda s=s: score(s) for s in stats],
        "select": [lambda: twins.select_pages(mass, *lists, coverage, Pins())],
        "store": [lambda: twins.store(keys, keys, slots, k_pages, k_pages, stats[0])],
    }
    for way, calls in ways.items():
        timing = time_calls(calls, place, seconds=0.1)
        record.add(
            way,
            pages=n,
            rows=rows,
            statistics_bytes=statistics,
            statistics_floor_s=statistics / copy_rate,
            layers_32_s=LAYERS * timing.median_s,
            **timing.fields(),
        )
