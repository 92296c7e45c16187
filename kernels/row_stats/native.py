"""Row statistics and draws in C++ for the CPU; plain torch where that cannot run.

Same signatures and meaning as ``naive``. Against float64, on rows as language models give them:
H within 1e-5 nats, V within 1e-4 nats^2 (``tests/kernels/test_row_stats.py``).
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from kernels.native.build import compile as compile_native
from kernels.native.build import native_cache
from kernels.native.library import INT64, POINTER
from kernels.row_stats import naive
from kernels.row_stats.naive import Drawn, RowStats, inverse_temperature


def available() -> bool:
    """Return whether the C++ twins were built; the first call builds them."""
    return _rows() is not None and _gumbel() is not None


def row_stats(logits: Tensor, x: Tensor) -> RowStats:
    """Measure every row of ``logits [S, n]`` at ln T = ``x [S, m]``; see ``naive.row_stats``."""
    library = _rows()
    if library is None or not _fits(logits):
        return naive.row_stats(logits, x)
    logits = _laid_out(logits)
    rows, m = x.shape
    argmax = torch.empty(rows, dtype=torch.int64)
    out = torch.empty(3, rows, m)
    inverse = inverse_temperature(x.float()).contiguous()
    scratch = _scratch(rows * library.row_scratch(logits.shape[1], m))
    library.row_stats(
        *_described(logits),
        inverse.data_ptr(),
        m,
        torch.get_num_threads(),
        scratch.data_ptr(),
        argmax.data_ptr(),
        *(part.data_ptr() for part in out),
    )
    return RowStats(argmax, out[0], out[1], out[2])


def draw(logits: Tensor, x: Tensor, noise: Tensor) -> Drawn:
    """Draw one token per row by inverting the CDF, and measure H there; see ``naive.draw``."""
    library = _rows()
    if library is None or not _fits(logits):
        return naive.draw(logits, x, noise)
    logits = _laid_out(logits)
    rows = len(logits)
    tokens, h = torch.empty(rows, dtype=torch.int64), torch.empty(rows)
    inverse, noise = inverse_temperature(x.float()).contiguous(), noise.double().contiguous()
    scratch = _scratch(rows * library.row_scratch(logits.shape[1], 1))
    library.draw(
        *_described(logits),
        inverse.data_ptr(),
        noise.data_ptr(),
        torch.get_num_threads(),
        scratch.data_ptr(),
        tokens.data_ptr(),
        h.data_ptr(),
    )
    return Drawn(tokens, h)


def gumbel_sample(logits: Tensor, x: Tensor, seeds: Tensor, positions: Tensor) -> Tensor:
    """Draw one token per row with Gumbel noise, int64 ``[S]``; see ``naive.gumbel_sample``."""
    library = _gumbel()
    if library is None or not _fits(logits):
        return naive.gumbel_sample(logits, x, seeds, positions)
    logits = _laid_out(logits)
    rows = len(logits)
    tokens = torch.empty(rows, dtype=torch.int64)
    inverse = inverse_temperature(x.float()).contiguous()
    seeds, positions = seeds.long().contiguous(), positions.long().contiguous()
    scratch = _scratch(rows * library.gumbel_scratch(logits.shape[1]))
    library.gumbel_sample(
        *_described(logits),
        inverse.data_ptr(),
        seeds.data_ptr(),
        positions.data_ptr(),
        torch.get_num_threads(),
        scratch.data_ptr(),
        tokens.data_ptr(),
    )
    return tokens


def _fits(logits: Tensor) -> bool:
    return logits.device.type == "cpu" and logits.shape[0] > 0 and logits.shape[1] > 0


def _laid_out(logits: Tensor) -> Tensor:
    logits = logits.float()
    return logits if logits.stride(1) == 1 else logits.contiguous()


def _described(logits: Tensor) -> tuple[int, int, int, int]:
    rows, n = logits.shape
    return logits.data_ptr(), logits.stride(0), rows, n


def _scratch(n_bytes: int) -> Tensor:
    return torch.empty(n_bytes, dtype=torch.uint8)


@cache
def _rows() -> ctypes.CDLL | None:
    library = compile_native(Path(__file__).with_name("native.cpp"), {}, native_cache())
    if library is not None:
        table = (POINTER, INT64, INT64, INT64, POINTER)
        _declare(library.row_stats, *table, INT64, INT64, *[POINTER] * 5)
        _declare(library.draw, *table, POINTER, INT64, *[POINTER] * 3)
        _declare(library.row_scratch, INT64, INT64, result=INT64)
    return library


@cache
def _gumbel() -> ctypes.CDLL | None:
    library = compile_native(Path(__file__).with_name("gumbel.cpp"), {}, native_cache())
    if library is not None:
        table = (POINTER, INT64, INT64, INT64, *[POINTER] * 3)
        _declare(library.gumbel_sample, *table, INT64, POINTER, POINTER)
        _declare(library.gumbel_scratch, INT64, result=INT64)
    return library


def _declare(
    function: ctypes._NamedFuncPointer, *arguments: type, result: type | None = None
) -> None:
    function.argtypes = list(arguments)
    function.restype = result
