"""Compiled kernels by their specialisation, and pointers for them."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from kernels.native.build import compile, native_cache

KERNELS = Path(__file__).parents[1]
ANY_SHAPE = (("D", 64), ("G", 1))  # for what does not look at keys
LANES = 32  # of the low-bit scorer: other head sizes are left to plain torch
POINTER = ctypes.c_void_p
INT32, INT64, FLOAT = ctypes.c_int32, ctypes.c_int64, ctypes.c_float


@cache
def library(kernel: str, defines: tuple[tuple[str, int], ...]) -> ctypes.CDLL | None:
    """Return ``kernels/<kernel>/native.cpp`` compiled for ``defines``; ``None`` if it cannot be."""
    return compile(KERNELS / kernel / "native.cpp", dict(defines), native_cache())


def warm(*, group: int, dim: int, page_tokens: int, low_bit: bool = False) -> None:
    """Compile what attention of this shape needs; with ``low_bit`` the scorer of that name too."""
    library("kv_store", (("D", dim), ("P", page_tokens)))
    library("paged_decode", (("D", dim), ("G", group), ("P", page_tokens)))
    library("page_select", (("D", dim), ("G", group)))
    library("page_select", ANY_SHAPE)
    if low_bit and dim % LANES == 0:
        library("low_bit_keys", (("D", dim), ("G", group), ("P", page_tokens)))


def native_kind(*tensors: Tensor) -> bool:
    """Whether compiled kernels take these tensors: float32 in main memory."""
    for tensor in tensors:  # noqa: SIM110 - a loop: this is asked some hundred times a step
        if tensor.dtype is not torch.float32 or not tensor.is_cpu:
            return False
    return True


def address(tensor: Tensor | None) -> int | None:
    """Return where a tensor's numbers begin; ``None`` is the null pointer."""
    return None if tensor is None else tensor.data_ptr()
