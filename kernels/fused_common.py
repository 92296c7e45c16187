"""What the Triton twins share: where their buffers come from, and how a reduction is rounded up.

Importing this module, or any ``fused.py``, needs triton. Kernels launched on CPU tensors run in
Triton's interpreter, if ``TRITON_INTERPRET=1`` was set before triton was first imported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor
from triton import knobs

# A kernel is launched by subscript, with options its signature does not name: untyped to a checker.
kernel: Callable[[Callable[..., None]], Any] = triton.jit
function: Callable[[Callable[..., Any]], Any] = triton.jit  # called by kernels

STORED = (torch.float16, torch.bfloat16, torch.float32)
LEAST_DOT = 16  # tl.dot takes no shorter side


class Workspace:
    """Where a wrapper gets its buffers; this one allocates anew in every call."""

    def scratch(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """Return an uninitialised contiguous buffer that nobody reads after the call."""
        del name
        return torch.empty(shape, dtype=dtype, device=device)

    def output(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """Return an uninitialised contiguous tensor that the wrapper hands to its caller."""
        del name
        return torch.empty(shape, dtype=dtype, device=device)


class ReusedWorkspace(Workspace):
    """Keeps scratch between calls, one buffer per name, growing as needed.

    For kernels launched one behind the other on one stream. Run the largest shapes once before a
    CUDA graph is captured: a buffer that grows later leaves the graph's address behind.
    """

    def __init__(self) -> None:
        """Start without buffers."""
        self._kept: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def scratch(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """Return a view of the buffer kept under ``name``."""
        wanted, key = torch.Size(shape).numel(), (name, dtype, device)
        buffer = self._kept.get(key)
        if buffer is None or buffer.numel() < wanted:
            buffer = self._kept[key] = torch.empty(wanted, dtype=dtype, device=device)
        return buffer[:wanted].view(shape)


FRESH = Workspace()


def runs_on(device: torch.device) -> bool:
    """Tell whether the kernels can be launched on tensors of ``device``."""
    return device.type == "cuda" or (device.type == "cpu" and knobs.runtime.interpret)


def padded(size: int, least: int = 1) -> int:
    """Return the power of two a block of ``size`` takes, at least ``least``."""
    return max(least, triton.next_power_of_2(size))


def check_floats(**tensors: Tensor) -> None:
    """Raise ``ValueError`` unless the kernels can read each: its type, and a last stride of 1."""
    for name, tensor in tensors.items():
        if tensor.dtype not in STORED:
            raise ValueError(f"{name}: must be float16, bfloat16 or float32; got {tensor.dtype}")
        _check_stride(name, tensor)


def check_integers(**tensors: Tensor) -> None:
    """Raise ``ValueError`` unless each holds int32 or int64 with a last stride of 1."""
    for name, tensor in tensors.items():
        if tensor.dtype not in (torch.int32, torch.int64):
            raise ValueError(f"{name}: must be int32 or int64; got {tensor.dtype}")
        _check_stride(name, tensor)


def _check_stride(name: str, tensor: Tensor) -> None:
    if tensor.stride(-1) != 1 and tensor.shape[-1] > 1:
        raise ValueError(f"{name}: its last stride must be 1; got {tensor.stride(-1)}")
