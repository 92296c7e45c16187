"""A decoder layer for one-token rows in C++; see ``naive.py`` for what it computes."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from kernels.decoder_layer.laid import Laid, Space, lay
from kernels.decoder_layer.shapes import LayerPages, Rows, Shape, Weights
from kernels.kv_store.native import Call as Store
from kernels.native.library import FLOAT, INT32, POINTER, address, library
from kernels.page_select.native import Estimate, Select
from kernels.page_stats import Bounds
from kernels.paged_decode.native import Call as Attend

MOST_ROWS = 64
MOST_THREADS = 64
LANES = 16  # outputs in a block of packed weights
_BEFORE, _CHOOSE, _ATTEND, _AFTER = 1, 2, 4, 8


class _Call(ctypes.Structure):
    _fields_ = (
        *((name, POINTER) for name in ("x", "y", "cos", "sin", "first", "inputs", "inputs_bias")),
        *((name, POINTER) for name in ("output", "output_bias", "second", "gate", "up", "down")),
        ("following", POINTER),
        ("first_eps", FLOAT),
        ("second_eps", FLOAT),
        *((name, POINTER) for name in ("normed", "heads", "attended", "inner")),
        ("store", Store),
        ("estimate", Estimate),
        ("select", Select),
        ("attend", Attend),
        *((name, INT32) for name in ("phases", "M", "threads")),
    )


class Kernel:
    """The compiled layer for one shape and page.

    Gives the bits of the kernels of its parts called one after the other, so a row's bits depend on
    that row alone. Tensors are float32 in main memory and dense, rows at most ``MOST_ROWS``.
    """

    def __init__(self, shape: Shape, page_tokens: int) -> None:
        """Compile for a shape for which :func:`available` holds."""
        lib = _library(shape, page_tokens)
        assert lib is not None
        self.shape, self.lib = shape, lib
        self._split, self._part = int(lib.split_pages()), int(lib.part_floats())

    def __deepcopy__(self, memo: dict[int, Any]) -> Kernel:
        return self  # code alone

    def lay(self, rows: Rows) -> Laid:
        """Prepare what the layers of a step share."""
        return lay(self.shape, rows, split_pages=self._split, part_floats=self._part)


class Layer:
    """A kernel bound to one layer's weights."""

    def __init__(self, kernel: Kernel, weights: Weights, following: Tensor | None = None) -> None:
        """Bind; ``following`` is the packed matrix read next: the next layer's ``inputs``."""
        self.kernel, self._alive = kernel, (weights, following)
        self._weights = _Call(
            first=weights.first.data_ptr(),
            inputs=weights.inputs.data_ptr(),
            inputs_bias=address(weights.inputs_bias),
            output=weights.output.data_ptr(),
            output_bias=address(weights.output_bias),
            second=weights.second.data_ptr(),
            gate=weights.gate.data_ptr(),
            up=weights.up.data_ptr(),
            down=weights.down.data_ptr(),
            following=address(following),
            first_eps=weights.first_eps,
            second_eps=weights.second_eps,
        )

    def __call__(self, x: Tensor, laid: Laid, pages: LayerPages) -> Tensor:
        """Return the layer's output ``[M, width]``; contract as the naive twin's.

        With a choice ``laid.lists`` holds, until the next call, the pages that were read.
        """
        chosen = _CHOOSE if laid.rows.choice is not None else 0
        phases = _BEFORE | chosen | _ATTEND | _AFTER
        call, y = self._ready(x, laid.space, phases), torch.empty_like(x)
        call.y = y.data_ptr()
        call.cos, call.sin = laid.rows.cos.data_ptr(), laid.rows.sin.data_ptr()
        k, v, head = pages.k.data_ptr(), pages.v.data_ptr(), pages.k.stride(0)
        call.store, call.attend = laid.store, laid.attend
        store, attend = call.store, call.attend
        store.k_pages = attend.k = k
        store.v_pages = attend.v = v
        store.head_stride = attend.head_stride = head
        if pages.stats is not None:
            first, second = pages.stats
            store.first, store.second = first.data_ptr(), second.data_ptr()
            store.stats_stride, store.bounds = first.stride(0), isinstance(pages.stats, Bounds)
        if chosen:
            assert pages.stats is not None, "pages are chosen by their statistics"
            call.estimate, call.select = laid.estimate, laid.select
            call.estimate.first, call.estimate.second = store.first, store.second
            call.estimate.head_stride, call.estimate.bounds = store.stats_stride, store.bounds
            call.estimate.page_tokens = pages.k.shape[2]
        self.kernel.lib.layer(ctypes.byref(call))
        return y

    def before(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return queries, keys and values ``[M, heads, D]``, rotated as far as they are."""
        space = Space(self.kernel.shape, len(x))
        call = self._ready(x, space, _BEFORE)
        call.cos, call.sin = cos.data_ptr(), sin.data_ptr()
        self.kernel.lib.layer(ctypes.byref(call))
        return space.heads

    def after(self, x: Tensor, attended: Tensor) -> Tensor:
        """Return the layer's output; x its input, ``attended [M, queries * D]`` of attention."""
        space, y = Space(self.kernel.shape, len(x)), torch.empty_like(x)
        call = self._ready(x, space, _AFTER)
        call.y, call.attended = y.data_ptr(), attended.data_ptr()
        self.kernel.lib.layer(ctypes.byref(call))
        return y

    def _ready(self, x: Tensor, space: Space, phases: int) -> _Call:
        call = _Call.from_buffer_copy(self._weights)  # its own, for calls may overlap
        call.x, call.M, call.phases = x.data_ptr(), len(x), phases
        call.normed, call.heads = space.normed.data_ptr(), space.heads.data_ptr()
        call.attended, call.inner = space.attended.data_ptr(), space.inner.data_ptr()
        call.threads = min(MOST_THREADS, torch.get_num_threads())
        return call


def available(shape: Shape, page_tokens: int) -> bool:
    """Whether the kernel for a shape and page is there; compiles it the first time."""
    whole = shape.width % LANES == shape.inner % LANES == shape.dim % 2 == 0
    return whole and _library(shape, page_tokens) is not None


def _library(shape: Shape, page_tokens: int) -> ctypes.CDLL | None:
    sizes = {"WIDTH": shape.width, "INNER": shape.inner, "HEADS": shape.kv_heads}
    macros = {**sizes, "G": shape.group, "D": shape.dim, "P": page_tokens}
    return library("decoder_layer", tuple(macros.items()))
