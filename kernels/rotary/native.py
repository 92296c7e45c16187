"""Rotary position embedding in C++; see ``naive.py`` for what it computes."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from kernels.native.library import INT32, INT64, POINTER, library, native_kind
from kernels.rotary import naive


class _Call(ctypes.Structure):
    _fields_ = (
        ("x", POINTER),
        ("cos", POINTER),
        ("sin", POINTER),
        ("stride", INT64),
        *((name, INT32) for name in ("N", "heads", "threads")),
    )


def available(dim: int) -> bool:
    """Whether the compiled kernel for heads of ``dim`` numbers is there; compiles it at need."""
    return dim % 2 == 0 and library("rotary", (("D", dim),)) is not None


def rotate(x: Tensor, cos: Tensor, sin: Tensor, heads: int) -> None:
    """Rotate the leading ``heads`` heads of every row in place; contract as the naive twin's."""
    dim = x.shape[-1]
    dense = x.stride()[1:] == (dim, 1) and cos.is_contiguous() and sin.is_contiguous()
    lib = library("rotary", (("D", dim),)) if dense and native_kind(x, cos, sin) else None
    if lib is None:
        naive.rotate(x, cos, sin, heads)
        return
    if cos.shape != (len(x), dim) or sin.shape != cos.shape or heads > x.shape[1]:
        raise ValueError(
            f"x, cos, sin must be [N, >= {heads}, D], [N, D], [N, D]; "
            f"got {list(x.shape)}, {list(cos.shape)}, {list(sin.shape)}"
        )
    call = _Call(
        x.data_ptr(),
        cos.data_ptr(),
        sin.data_ptr(),
        x.stride(0),
        len(x),
        heads,
        torch.get_num_threads(),
    )
    lib.rotate(ctypes.byref(call))
