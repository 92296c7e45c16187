"""Where the stages run: a GPU, or this machine's processor in a dry run of tiny shapes."""

from __future__ import annotations

import datetime
import gc
import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from kernels.twins import Name, Twins, twins_for
from traces.console import package_versions

LIBRARIES = ("torch", "triton", "transformers", "numpy", "hypothesis")
RESERVED = 6 << 30  # bytes left to torch, compilers and workspaces


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A device, how big the problems are, and until when a stage may go on."""

    device: torch.device
    dry: bool
    kernels: Name
    commit: str = "unknown"  # of the sources; a copy of the tree may not know
    model: Path | None = None  # folder of SmolLM2 as safetensors
    seconds: float = 420.0  # of one stage
    began: float = field(default_factory=monotonic)

    @property
    def cuda(self) -> bool:
        """Whether there is a GPU to wait for."""
        return self.device.type == "cuda"

    @property
    def late(self) -> bool:
        """Whether the stage has used up its time."""
        return monotonic() - self.began > self.seconds

    @property
    def left_s(self) -> float:
        """Seconds the stage may still take, at least 0."""
        return max(0.0, self.seconds - (monotonic() - self.began))

    def share(self, part: float) -> Place:
        """Return the same place, late after ``part`` of the stage's seconds."""
        return replace(self, seconds=part * self.seconds)

    def twins(self) -> Twins:
        """Return kernels with buffers of their own."""
        return twins_for(self.device, self.kernels)

    def free_bytes(self) -> int:
        """Return the device memory a stage may still take."""
        if not self.cuda:
            return 1 << 30
        gc.collect()  # decoders and their compiled parts refer to each other
        torch.cuda.empty_cache()
        return max(0, torch.cuda.mem_get_info(self.device)[0] - RESERVED)

    def name(self) -> str:
        """Return the device's own name."""
        if self.cuda:
            return torch.cuda.get_device_name(self.device)
        return platform.machine()

    def describe(self) -> dict[str, Any]:
        """Return what a reader needs to get the numbers again."""
        return {
            "device": self.name(),
            "dry": self.dry,
            "kernels": self.kernels,
            "command": shlex.join(["python", "-m", "reports.gpu", *sys.argv[1:]]),
            "commit": self.commit,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "versions": package_versions(*LIBRARIES),
            "card": _card() if self.cuda else {},
        }


def _card() -> dict[str, Any]:
    """Return what the driver says of the card as it is found; nothing is ever set."""
    told = torch.cuda.get_device_properties(0)
    found: dict[str, Any] = {
        "multiprocessors": told.multi_processor_count,
        "memory_bytes": told.total_memory,
        "cuda": torch.version.cuda,
    }
    query = "driver_version,clocks.sm,clocks.mem,power.limit,temperature.gpu"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return found
    values = done.stdout.strip().split(", ")
    return found | dict(zip(query.split(","), values, strict=False))
