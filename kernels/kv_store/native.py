"""Keys and values into their pages in C++; see ``naive.py`` for what it computes."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from kernels.kv_store import naive
from kernels.native.library import INT32, INT64, POINTER, address, library, native_kind
from kernels.page_stats import Bounds, PageStats


class Call(ctypes.Structure):
    """One layer's tokens to store, as ``kernels/native/pages.h`` lays it out."""

    _fields_ = (
        ("k", POINTER),
        ("v", POINTER),
        *((name, INT64) for name in ("k_head", "k_token", "v_head", "v_token")),
        ("slots", POINTER),
        ("k_pages", POINTER),
        ("v_pages", POINTER),
        ("head_stride", INT64),
        ("stats_stride", INT64),
        ("first", POINTER),
        ("second", POINTER),
        *((name, INT32) for name in ("bounds", "H", "N", "threads")),
    )


def store(
    k: Tensor,
    v: Tensor,
    slots: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    stats: PageStats | None,
) -> None:
    """Store N tokens of one layer and their pages' statistics; contract as the naive twin's."""
    lib = None
    dense = k.stride(2) == v.stride(2) == 1 and k_pages[0].is_contiguous()
    alike = k_pages.stride() == v_pages.stride() and (
        stats is None or (stats[0].stride() == stats[1].stride() and stats[0][0].is_contiguous())
    )
    if dense and alike and native_kind(k, v, k_pages, v_pages, *(stats or ())):
        lib = library("kv_store", (("D", k.shape[2]), ("P", k_pages.shape[2])))
    if lib is None:
        naive.store(k, v, slots, k_pages, v_pages, stats)
        return
    slots = slots.contiguous()
    first, second = (None, None) if stats is None else stats
    call = Call(
        address(k),
        address(v),
        *k.stride()[:2],
        *v.stride()[:2],
        address(slots),
        address(k_pages),
        address(v_pages),
        k_pages.stride(0),
        0 if first is None else first.stride(0),
        address(first),
        address(second),
        isinstance(stats, Bounds),
        k.shape[0],
        k.shape[1],
        torch.get_num_threads(),
    )
    lib.store(ctypes.byref(call))
