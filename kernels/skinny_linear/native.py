"""A linear layer for few rows in C++; see ``naive.py`` for what it computes."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from kernels.native.library import INT32, POINTER, address, library, native_kind
from kernels.skinny_linear import naive


class _Call(ctypes.Structure):
    _fields_ = (
        ("x", POINTER),
        ("w", POINTER),
        ("bias", POINTER),
        ("y", POINTER),
        *((name, INT32) for name in ("M", "N", "blocks", "threads")),
    )


def available(inputs: int) -> bool:
    """Whether the compiled kernel for ``inputs`` inputs is there; compiles it the first time."""
    return library("skinny_linear", (("K", inputs),)) is not None


def linear(x: Tensor, packed: Tensor, outputs: int, bias: Tensor | None) -> Tensor:
    """Return ``x W^T + b``; contract as the naive twin's.

    A row's bits depend on that row alone: not on the other rows, their number, or the threads.
    """
    inputs = packed.shape[1]
    lib = library("skinny_linear", (("K", inputs),)) if native_kind(x, packed) else None
    if lib is None:
        return naive.linear(x, packed, outputs, bias)
    x = x.contiguous()
    y = x.new_empty(*x.shape[:-1], outputs)
    call = _Call(
        address(x),
        address(packed),
        address(bias),
        address(y),
        x.numel() // inputs,
        outputs,
        len(packed),
        torch.get_num_threads(),
    )
    lib.linear(ctypes.byref(call))
    return y
