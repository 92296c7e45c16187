"""Attention over listed pages in C++; see ``naive.py`` for what it computes."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from kernels.native.library import FLOAT, INT32, INT64, POINTER, address, library, native_kind
from kernels.paged_decode import naive
from kernels.paged_decode.naive import Decoded

__all__ = ["Decoded", "decode_pages"]


class Call(ctypes.Structure):
    """Rows to attend, as ``kernels/native/attention.h`` lays it out."""

    _fields_ = (
        ("q", POINTER),
        ("q_row", INT64),
        ("k", POINTER),
        ("v", POINTER),
        ("head_stride", INT64),
        ("pages", POINTER),
        ("pages_row", INT64),
        ("pages_head", INT64),
        ("kept", POINTER),
        ("tails", POINTER),
        ("surprisal", POINTER),
        ("scale", FLOAT),
        ("out", POINTER),
        ("lse", POINTER),
        ("mass", POINTER),
        ("weighted", POINTER),
        ("parts", POINTER),
        ("page_parts", POINTER),
        *((name, INT32) for name in ("B", "H", "m", "splits", "threads")),
    )


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
    """Attend each row to its listed pages; same contract as the naive twin.

    A row's bits depend on its own list alone: not on the batch, the threads or where pages lie.
    Tensors that are not float32 in main memory, and machines without a compiler, take the naive
    twin.
    """
    rows, heads, group, dim = q.shape
    size, m = k_pages.shape[2], pages.shape[2]
    lib = None
    if native_kind(q, k_pages, v_pages) and k_pages[0].is_contiguous():
        lib = library("paged_decode", (("D", dim), ("G", group), ("P", size)))
    if lib is None or k_pages.stride() != v_pages.stride():
        return naive.decode_pages(
            q, k_pages, v_pages, pages, kept, tails, scaling, surprisal=surprisal, masses=masses
        )
    q, pages = q.contiguous(), pages.to(torch.int32)
    pages = pages if pages.stride(2) == 1 else pages.contiguous()
    kept, tails = kept.to(torch.int32).contiguous(), tails.to(torch.int32).contiguous()
    nats = None if surprisal is None else surprisal.float().contiguous()
    out, lse = torch.empty_like(q), q.new_empty(rows, heads, group)
    mass = q.new_empty(rows, heads, m) if masses else None
    weighted = q.new_empty(rows, heads, m) if surprisal is not None else None
    splits = -(-m // lib.split_pages())
    parts = q.new_empty(rows * heads * splits * lib.part_floats())
    looked = masses or surprisal is not None
    page_parts = q.new_empty(rows * heads * 3 * group * m) if looked else None
    call = Call(
        address(q),
        q.stride(0),
        address(k_pages),
        address(v_pages),
        k_pages.stride(0),
        address(pages),
        pages.stride(0),
        pages.stride(1),
        address(kept),
        address(tails),
        address(nats),
        scaling,
        address(out),
        address(lse),
        address(mass),
        address(weighted),
        address(parts),
        address(page_parts),
        rows,
        heads,
        m,
        splits,
        torch.get_num_threads(),
    )
    lib.decode(ctypes.byref(call))
    return Decoded(out, lse, mass, weighted)
