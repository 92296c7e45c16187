"""The kernels that an engine's tensors ask for: C++ in main memory, Triton on CUDA.

Signatures and meaning are those of the naive twins; the C++ twins fall back on them by themselves.
On CUDA scratch is kept between calls, one set per device, so all calls must be on one stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from torch import Tensor

from controllers.selection import Pins
from kernels.kv_store import native as native_store
from kernels.page_select import native as native_select
from kernels.page_stats import PageStats
from kernels.paged_decode import native as native_decode
from kernels.paged_decode.naive import Decoded
from kernels.row_stats import native as native_rows
from kernels.row_stats.naive import Drawn, RowStats
from kernels.twins import Twins, fused_twins

__all__ = ["Decoded", "Drawn", "RowStats"]

NATIVE = Twins(
    "native",
    native_store.store,
    native_select.estimate_mass,
    native_select.select_pages,
    native_decode.decode_pages,
    native_rows.row_stats,
    native_rows.draw,
)
_forced: list[Twins] = []


@contextmanager
def forced(twins: Twins) -> Iterator[None]:
    """Have every call take ``twins``, whatever its tensors: for tests and comparisons."""
    _forced.append(twins)
    try:
        yield
    finally:
        _forced.pop()


@cache
def _on_cuda(index: int | None) -> Twins:
    del index  # a workspace for each device
    return fused_twins()


def _for(tensor: Tensor) -> Twins:
    if _forced:
        return _forced[-1]
    return _on_cuda(tensor.device.index) if tensor.is_cuda else NATIVE


def store(
    k: Tensor, v: Tensor, slots: Tensor, k_pages: Tensor, v_pages: Tensor, stats: PageStats | None
) -> None:
    """Store N tokens of one layer and their pages' statistics; see ``kv_store``."""
    _for(k_pages).store(k, v, slots, k_pages, v_pages, stats)


def estimate_mass(
    q: Tensor,
    stats: PageStats,
    table: Tensor,
    n_pages: Tensor,
    tails: Tensor,
    scaling: float,
    *,
    page_tokens: int,
) -> Tensor:
    """Estimate each page's attention mass from its statistics; see ``page_select``."""
    return _for(q).estimate_mass(q, stats, table, n_pages, tails, scaling, page_tokens=page_tokens)


def select_pages(
    mass: Tensor, table: Tensor, n_pages: Tensor, coverage: Tensor, pins: Pins
) -> tuple[Tensor, Tensor]:
    """Select per KV head the pages that reach the row's coverage; see ``page_select``."""
    return _for(mass).select_pages(mass, table, n_pages, coverage, pins)


def decode_pages(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    pages: Tensor,
    kept: Tensor,
    tails: Tensor,
    scaling: float,
    *,
    surprisal: Tensor | None = None,
    masses: bool = False,
) -> Decoded:
    """Attend each row to its listed pages; see ``paged_decode``."""
    return _for(q).decode_pages(
        q, k_pages, v_pages, pages, kept, tails, scaling, surprisal=surprisal, masses=masses
    )


def row_stats(logits: Tensor, x: Tensor) -> RowStats:
    """Measure every row of logits at ln T = x; see ``row_stats``."""
    return _for(logits).row_stats(logits, x)


def draw(logits: Tensor, x: Tensor, noise: Tensor) -> Drawn:
    """Draw one token per row by inverting the CDF, and measure H there; see ``row_stats``."""
    return _for(logits).draw(logits, x, noise)
