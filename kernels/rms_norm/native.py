"""Root-mean-square normalisation in C++; see ``naive.py`` for what it computes."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from kernels.native.library import FLOAT, INT32, POINTER, library, native_kind
from kernels.rms_norm import naive


class _Call(ctypes.Structure):
    _fields_ = (
        ("x", POINTER),
        ("weight", POINTER),
        ("y", POINTER),
        ("eps", FLOAT),
        *((name, INT32) for name in ("rows", "d", "threads")),
    )


def available() -> bool:
    """Whether the compiled kernel is there; compiles it the first time."""
    return library("rms_norm", ()) is not None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return ``w x / sqrt(mean(x^2) + eps)`` over the last axis; contract as the naive twin's.

    A row's bits depend on that row alone: not on the other rows, their number, or the threads.
    """
    lib = library("rms_norm", ()) if native_kind(x, weight) else None
    if lib is None:
        return naive.rms_norm(x, weight, eps)
    x, weight, dim = x.contiguous(), weight.contiguous(), weight.numel()
    if x.shape[-1] != dim:
        raise ValueError(f"x must have a last axis of {dim}, the weight's; got {x.shape[-1]}")
    y = torch.empty_like(x)
    rows = x.numel() // dim
    call = _Call(
        x.data_ptr(), weight.data_ptr(), y.data_ptr(), eps, rows, dim, torch.get_num_threads()
    )
    lib.rms_norm(ctypes.byref(call))
    return y
