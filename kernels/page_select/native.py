"""Page mass and page selection in C++; see ``naive.py`` for what they compute."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from controllers.selection import Pins
from kernels.native.library import (
    ANY_SHAPE,
    FLOAT,
    INT32,
    INT64,
    POINTER,
    address,
    library,
    native_kind,
)
from kernels.page_select import naive
from kernels.page_stats import Bounds, PageStats


class Estimate(ctypes.Structure):
    """Rows whose pages are scored, as ``kernels/native/choice.h`` lays it out."""

    _fields_ = (
        ("q", POINTER),
        ("q_row", INT64),
        ("first", POINTER),
        ("second", POINTER),
        ("head_stride", INT64),
        ("table", POINTER),
        ("n_pages", POINTER),
        ("tails", POINTER),
        ("scale", FLOAT),
        ("mass", POINTER),
        *((name, INT32) for name in ("bounds", "page_tokens", "B", "H", "n", "threads")),
    )


class Select(ctypes.Structure):
    """Rows whose pages are chosen, likewise."""

    _fields_ = (
        ("mass", POINTER),
        ("table", POINTER),
        ("n_pages", POINTER),
        ("coverage", POINTER),
        ("pages", POINTER),
        ("kept", POINTER),
        *((name, INT32) for name in ("first", "recent", "least", "B", "H", "n", "threads")),
    )


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
    """Estimate each page's attention mass; contract as the naive twin's."""
    rows, heads, group, dim = q.shape
    lib, n = None, table.shape[1]
    if native_kind(q, *stats) and all(part[0].is_contiguous() for part in stats):
        lib = library("page_select", (("D", dim), ("G", group)))
    if lib is None or stats[0].stride() != stats[1].stride():
        return naive.estimate_mass(
            q, stats, table, n_pages, tails, scaling, page_tokens=page_tokens
        )
    q, table = q.contiguous(), table.to(torch.int32).contiguous()
    n_pages, tails = n_pages.to(torch.int32).contiguous(), tails.to(torch.int32).contiguous()
    mass = q.new_empty(rows, heads, n)
    call = Estimate(
        address(q),
        q.stride(0),
        address(stats[0]),
        address(stats[1]),
        stats[0].stride(0),
        address(table),
        address(n_pages),
        address(tails),
        scaling,
        address(mass),
        isinstance(stats, Bounds),
        page_tokens,
        rows,
        heads,
        n,
        torch.get_num_threads(),
    )
    lib.estimate(ctypes.byref(call))
    return mass


def select_pages(
    mass: Tensor, table: Tensor, n_pages: Tensor, coverage: Tensor, pins: Pins
) -> tuple[Tensor, Tensor]:
    """Select per KV head the pages that reach the row's coverage; contract as the naive twin's."""
    rows, heads, n = mass.shape
    lib = library("page_select", ANY_SHAPE) if native_kind(mass, coverage) else None
    if lib is None:
        return naive.select_pages(mass, table, n_pages, coverage, pins)
    mass, table = mass.contiguous(), table.to(torch.int32).contiguous()
    n_pages, coverage = n_pages.to(torch.int32).contiguous(), coverage.contiguous()
    pages = torch.empty(rows, heads, n, dtype=torch.int32)
    kept = torch.empty(rows, heads, dtype=torch.int32)
    call = Select(
        address(mass),
        address(table),
        address(n_pages),
        address(coverage),
        address(pages),
        address(kept),
        pins.first,
        pins.recent,
        pins.min_pages,
        rows,
        heads,
        n,
        torch.get_num_threads(),
    )
    lib.select_pages(ctypes.byref(call))
    return pages, kept
