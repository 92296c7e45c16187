"""A linear layer for few rows in C++; see ``naive.py`` for what it computes."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from kernels.gated_silu.native import gated_silu
from kernels.native.library import INT32, POINTER, address, library, native_kind
from kernels.skinny_linear import naive

MANY = 64  # rows that the gated pair takes in one pass; more go through two layers


class _Call(ctypes.Structure):
    _fields_ = (
        ("x", POINTER),
        ("w", POINTER),
        ("bias", POINTER),
        ("up", POINTER),
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
    return _call(lib, x, packed, None, bias, outputs)


def gated_linear(x: Tensor, gate: Tensor, up: Tensor, outputs: int) -> Tensor:
    """Return ``silu(x G^T) * (x U^T)`` of two packed weights; contract as the naive twin's.

    Bits as those of two linear layers and the gate one after the other.
    """
    inputs, rows = gate.shape[1], x.numel() // gate.shape[1]
    suits = gate.shape == up.shape and outputs == len(gate) * gate.shape[2] and rows <= MANY
    native = suits and native_kind(x, gate, up)
    lib = library("skinny_linear", (("K", inputs),)) if native else None
    if lib is None:
        both = (linear(x, weights, outputs, None) for weights in (gate, up))
        return gated_silu(*both)
    return _call(lib, x, gate, up, None, outputs)


def _call(
    lib: ctypes.CDLL,
    x: Tensor,
    packed: Tensor,
    up: Tensor | None,
    bias: Tensor | None,
    outputs: int,
) -> Tensor:
    x = x.contiguous()
    y = x.new_empty(*x.shape[:-1], outputs)
    call = _Call(
        x.data_ptr(),
        packed.data_ptr(),
        address(bias),
        address(up),
        y.data_ptr(),
        x.numel() // packed.shape[1],
        outputs,
        len(packed),
        torch.get_num_threads(),
    )
    lib.linear(ctypes.byref(call))
    return y
