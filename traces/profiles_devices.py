"""Datasheet numbers of GPUs, and the engine limits that memory arithmetic gives."""

from __future__ import annotations

import re
from dataclasses import dataclass

from controllers.core import require
from traces.profiles_shapes import ModelShape

PAGE_TOKENS = 16
MEMORY_SHARE = 0.9  # of the card, what an engine takes by default (vLLM's gpu_memory_utilization)
ACTIVATIONS_BYTES = 2 * 2**30  # left for activations, graphs and the runtime; a guess
MAX_SEQS = 256  # vLLM's defaults for these two
TOKEN_BUDGET = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One GPU as its datasheet states it; rates are peaks, dense, without sparsity."""

    name: str
    bytes_per_s: float  # memory
    flops_per_s: float  # bfloat16 matrix products, float32 accumulation
    memory_bytes: int  # as the driver reports it, where we know that
    watts: float  # board power limit
    link_bytes_per_s: float  # to its peers, one direction
    source: str


MIB, GIB = 2**20, 2**30
DEVICES: dict[str, Device] = {
    device.name: device
    for device in (
        Device(
            name="A100 SXM 80GB",
            bytes_per_s=2.039e12,
            flops_per_s=312e12,
            memory_bytes=80 * GIB,
            watts=400,
            link_bytes_per_s=300e9,
            source="NVIDIA A100 Tensor Core GPU datasheet",
        ),
        Device(
            name="H100 SXM 80GB",
            bytes_per_s=3.35e12,
            flops_per_s=989e12,
            memory_bytes=80 * GIB,
            watts=700,
            link_bytes_per_s=450e9,
            source="NVIDIA H100 Tensor Core GPU datasheet",
        ),
        Device(
            name="H200 SXM 141GB",
            bytes_per_s=4.8e12,
            flops_per_s=989e12,
            memory_bytes=143771 * MIB,
            watts=700,
            link_bytes_per_s=450e9,
            source="NVIDIA H200 Tensor Core GPU datasheet",
        ),
        Device(
            name="B200 SXM 180GB",
            bytes_per_s=8e12,
            flops_per_s=2.25e15,
            memory_bytes=183359 * MIB,
            watts=1000,
            link_bytes_per_s=900e9,
            source="NVIDIA DGX B200 datasheet, an eighth of the system",
        ),
        Device(
            name="L40S 48GB",
            bytes_per_s=864e9,
            flops_per_s=362.05e12,
            memory_bytes=46068 * MIB,
            watts=350,
            link_bytes_per_s=32e9,
            source="NVIDIA L40S datasheet",
        ),
        Device(
            name="L4 24GB",
            bytes_per_s=300e9,
            flops_per_s=121e12,
            memory_bytes=23034 * MIB,
            watts=72,
            link_bytes_per_s=32e9,
            source="NVIDIA L4 datasheet; half its figure with sparsity",
        ),
        Device(
            name="RTX PRO 6000 Blackwell Server Edition 96GB",
            bytes_per_s=1.597e12,
            flops_per_s=467.8e12,
            memory_bytes=97887 * MIB,
            watts=600,
            link_bytes_per_s=64e9,
            source="NVIDIA datasheet of the card; arithmetic at 2.43 GHz as aiconfigurator has it",
        ),
        Device(
            name="GeForce RTX 4090 24GB",
            bytes_per_s=1.008e12,
            flops_per_s=165.2e12,
            memory_bytes=25_250_627_584,
            watts=450,
            link_bytes_per_s=32e9,
            source="NVIDIA Ada GPU architecture whitepaper, appendix A",
        ),
    )
}


def find_device(gpu: str) -> Device:
    """Return the datasheet numbers of a GPU; an unknown or ambiguous name lists what is known."""
    found = [device for name, device in DEVICES.items() if names_device(gpu, name)]
    if len(found) != 1:
        raise ValueError(f"gpu must name one of {', '.join(DEVICES)}; got {gpu!r}")
    return found[0]


def names_device(asked: str, device: str) -> bool:
    """Return whether every word of ``asked`` stands in a device's name.

    A word may run several of the name's words together ("rtx4090"), but none is cut short: "a10"
    does not name an A100.
    """
    words = re.findall(r"[a-z0-9]+", device.lower())
    runs = {
        "".join(words[first:last])
        for first in range(len(words))
        for last in range(first + 1, len(words) + 1)
    }
    wanted = re.findall(r"[a-z0-9]+", asked.lower())
    return bool(wanted) and all(word in runs for word in wanted)


def estimated_limits(shape: ModelShape, device: Device, tp: int = 1) -> dict[str, int]:
    """Return engine limits by memory arithmetic, as ``EngineLimits`` names them; an estimate.

    Pages fill what ``MEMORY_SHARE`` of the cards leaves after bfloat16 weights and activations.
    """
    pool = tp * (MEMORY_SHARE * device.memory_bytes - ACTIVATIONS_BYTES) - 2 * shape.weights
    pages = int(pool // (shape.kv_bytes_per_token() * PAGE_TOKENS))
    require(
        pages >= 1,
        f"{tp} x {device.name} must hold the weights of {shape.name}, {2 * shape.weights} bytes",
        bytes_left=int(pool),
    )
    return {
        "max_seqs": MAX_SEQS,
        "token_budget": TOKEN_BUDGET,
        "n_pages": pages,
        "max_context": min(shape.max_context, pages * PAGE_TOKENS),
        "page_tokens": PAGE_TOKENS,
    }
