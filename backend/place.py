"""Where a model is served: a device, and the type that holds its weights and KV there."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch

DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
)


def place_of(device: str = "cpu", dtype: str | None = None) -> tuple[torch.device, torch.dtype]:
    """Return the device and the type a model is loaded with.

    ``dtype`` None is float32 on cpu, whose kernels hold nothing else, and bfloat16 on CUDA.

    Raises:
        ValueError: a device that is not there or not served, or a type it does not hold.
    """
    found = _device(device)
    if dtype is None:
        dtype = "float32" if found.type == "cpu" else "bfloat16"
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}; got {dtype!r}")
    if found.type == "cpu" and dtype != "float32":
        raise ValueError(f"dtype must be float32 on cpu; got {dtype!r}")
    return found, DTYPES[dtype]


def _device(name: str) -> torch.device:
    if name == "cpu":
        return torch.device("cpu")
    if name != "cuda":  # Triton launches on the current card: the first that is visible
        raise ValueError(
            f"device must be cpu or cuda (CUDA_VISIBLE_DEVICES chooses the card); got {name!r}"
        )
    if not torch.cuda.is_available():
        raise ValueError("device must be there: torch finds no CUDA device; got 'cuda'")
    return torch.device("cuda", 0)


def device_name(device: torch.device) -> str:
    """Return what a profile or a campaign knows the device by."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor()


def dtype_name(dtype: torch.dtype) -> str:
    """Return the type's name as it is asked for."""
    return str(dtype).removeprefix("torch.")


def processor() -> str:
    """Return the processor's own name and the cores torch uses."""
    names = Path("/proc/cpuinfo")
    lines = names.read_text().splitlines() if names.is_file() else []
    named = next((ln.split(":", 1)[1].strip() for ln in lines if ln.startswith("model name")), None)
    return (
        f"{named or platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    )
