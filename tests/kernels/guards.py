"""Buffers that tell on a kernel: poisoned inside, guarded around."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernels.fused_common import Workspace, runs_on

GUARD = 64  # elements on each side
MARK = -123.0
POISON = -321  # what an integer buffer holds before it is written; a float one holds NaN


def device() -> torch.device:
    """The GPU where there is one, else the CPU if the interpreter is on; else the test skips."""
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not runs_on(place):
        pytest.skip("no GPU, and TRITON_INTERPRET was not set when triton was first imported")
    return place


class Guarded(Workspace):
    """Hands out buffers full of poison between guard regions; ``check`` looks at the guards."""

    def __init__(self) -> None:
        self.given: list[tuple[str, Tensor]] = []

    def scratch(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        size = torch.Size(shape).numel()
        whole = torch.full((size + 2 * GUARD,), MARK, dtype=dtype, device=device)
        inside = whole[GUARD : GUARD + size]
        inside.fill_(float("nan") if dtype.is_floating_point else POISON)
        self.given.append((name, whole))
        return inside.view(shape)

    output = scratch

    def check(self) -> None:
        assert self.given
        for name, whole in self.given:
            around = torch.cat([whole[:GUARD], whole[-GUARD:]])
            assert bool((around == MARK).all()), f"{name}: written outside its bounds"


def poisoned(values: Tensor, last: int) -> Tensor:
    """Return ``values`` as a view whose rows are followed by NaN up to ``last`` elements."""
    wide = values.new_full((*values.shape[:-1], last), float("nan"))
    wide[..., : values.shape[-1]] = values
    return wide[..., : values.shape[-1]]
