"""Page mass from 4-bit keys in C++; see ``naive.py`` for what it computes."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from kernels.low_bit_keys import naive
from kernels.low_bit_keys.naive import KeyCodes
from kernels.native.library import FLOAT, INT32, INT64, POINTER, address, library, native_kind

LANES = 32  # channels a vector of codes covers; other head sizes take the naive twin


class _Estimate(ctypes.Structure):
    _fields_ = (
        ("q", POINTER),
        ("codes", POINTER),
        ("scale", POINTER),
        ("low", POINTER),
        ("code_head", INT64),
        ("range_head", INT64),
        ("table", POINTER),
        ("n_pages", POINTER),
        ("tails", POINTER),
        ("scaling", FLOAT),
        ("mass", POINTER),
        *((name, INT32) for name in ("B", "H", "n", "threads")),
    )


def estimate_mass(
    q: Tensor,
    coded: KeyCodes,
    table: Tensor,
    n_pages: Tensor,
    tails: Tensor,
    scaling: float,
) -> Tensor:
    """Return each page's share of softmax(q k~); contract as the naive twin's.

    The codes are read as they are and never unpacked to memory.
    """
    rows, heads, group, dim = q.shape
    size, n = coded.scale.shape[-1], table.shape[1]
    lib = None
    if native_kind(q) and dim % LANES == 0 and all(part[0].is_contiguous() for part in coded):
        lib = library("low_bit_keys", (("D", dim), ("G", group), ("P", size)))
    if lib is None or coded.scale.stride() != coded.low.stride():
        return naive.estimate_mass(q, coded, table, n_pages, tails, scaling)
    q, table = q.contiguous(), table.to(torch.int32).contiguous()
    n_pages, tails = n_pages.to(torch.int32).contiguous(), tails.to(torch.int32).contiguous()
    mass = q.new_empty(rows, heads, n)
    call = _Estimate(
        address(q),
        *(address(part) for part in coded),
        coded.codes.stride(0),
        coded.scale.stride(0),
        address(table),
        address(n_pages),
        address(tails),
        scaling,
        address(mass),
        rows,
        heads,
        n,
        torch.get_num_threads(),
    )
    lib.estimate(ctypes.byref(call))
    return mass
