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
        *((name, INT64) for name in ("rows", "d", "stride")),
        ("threads", INT32),
    )


def available() -> bool:
    """Whether the compiled kernel is there; compiles it the first time."""
    return library("gated_silu", ()) is not None


def gated_silu(gate: Tensor, up: Tensor) -> Tensor:
    """Return ``silu(gate) * up``; contract as the naive twin's, and the shapes must be equal.

    Both may be halves of one wider tensor.
    """
    lib = library("gated_silu", ()) if native_kind(gate, up) else None
    if lib is None:
        return naive.gated_silu(gate, up)
    if gate.shape != up.shape:
        raise ValueError(f"up must have gate's shape {list(gate.shape)}; got {list(up.shape)}")
    shape, d = gate.shape, gate.shape[-1] if gate.ndim else 1
    gate, up = gate.reshape(-1, d), up.reshape(-1, d)
    if gate.stride() != up.stride() or gate.stride(1) != 1:
        gate, up = gate.contiguous(), up.contiguous()
    y = torch.empty(shape, dtype=gate.dtype)
    call = _Call(
        gate.data_ptr(),
        up.data_ptr(),
        y.data_ptr(),
        len(gate),
        d,
        gate.stride(0),
        torch.get_num_threads(),
    )
    lib.gated_silu(ctypes.byref(call))
    return y
