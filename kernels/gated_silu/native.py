"""The gate of a gated MLP in C++; see ``naive.py`` for what it computes."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from kernels.gated_silu import naive
from kernels.native.library import INT32, INT64, POINTER, library, native_kind


class _Call(ctypes.Structure):
    _fields_ = (
        ("gate", POINTER),
        ("up", POINTER),
        ("y", POINTER),
        ("n", INT64),
        ("threads", INT32),
    )


def available() -> bool:
    """Whether the compiled kernel is there; compiles it the first time."""
    return library("gated_silu", ()) is not None


def gated_silu(gate: Tensor, up: Tensor) -> Tensor:
    """Return ``silu(gate) * up``; contract as the naive twin's, and the shapes must be equal."""
    lib = library("gated_silu", ()) if native_kind(gate, up) else None
    if lib is None:
        return naive.gated_silu(gate, up)
    if gate.shape != up.shape:
        raise ValueError(f"up must have gate's shape {list(gate.shape)}; got {list(up.shape)}")
    gate, up = gate.contiguous(), up.contiguous()
    y = torch.empty_like(gate)
    call = _Call(gate.data_ptr(), up.data_ptr(), y.data_ptr(), y.numel(), torch.get_num_threads())
    lib.gated_silu(ctypes.byref(call))
    return y
