"""One set of kernels by name or by device: the definitions in torch, or their Triton twins.

For callers that run the same step on a GPU and, in tests, on CPU. The engine goes by its tensors
instead (``kernels.dispatch``), which adds the compiled twins of the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from kernels.kv_store import naive as naive_store
from kernels.page_select import naive as naive_select
from kernels.paged_decode import naive as naive_decode
from kernels.paged_decode.naive import Decoded
from kernels.row_stats import naive as naive_rows
from kernels.row_stats.naive import Drawn, RowStats

Name = Literal["naive", "fused"]
NAMES: tuple[Name, ...] = get_args(Name)


class Twins(NamedTuple):
    """The kernels of a decode step; each has the signature of its ``naive`` definition."""

    name: Name | Literal["native"]
    store: Callable[..., None]
    estimate_mass: Callable[..., Tensor]
    select_pages: Callable[..., tuple[Tensor, Tensor]]
    decode_pages: Callable[..., Decoded]
    row_stats: Callable[..., RowStats]
    draw: Callable[..., Drawn]


NAIVE = Twins(
    "naive",
    naive_store.store,
    naive_select.estimate_mass,
    naive_select.select_pages,
    naive_decode.decode_pages,
    naive_rows.row_stats,
    naive_rows.draw,
)


def fused_twins() -> Twins:
    """Return the Triton twins over one workspace of their own; for launches on one stream.

    Raises:
        ImportError: triton is not installed.
    """
    from kernels.fused_common import ReusedWorkspace
    from kernels.kv_store import fused as kv_store
    from kernels.page_select import fused as page_select
    from kernels.paged_decode import fused as paged_decode
    from kernels.row_stats import fused as row_stats

    own = ReusedWorkspace()
    return Twins(
        "fused",
        kv_store.store,
        partial(page_select.estimate_mass, workspace=own),
        partial(page_select.select_pages, workspace=own),
        partial(paged_decode.decode_pages, workspace=own),
        partial(row_stats.row_stats, workspace=own),
        partial(row_stats.draw, workspace=own),
    )


def twins_for(device: torch.device | str, name: Name | None = None) -> Twins:
    """Return the twins called ``name``, or by default Triton on CUDA and the definitions on CPU.

    Raises:
        ValueError: another name, or Triton kernels that cannot be launched on ``device``.
        ImportError: triton is needed and not installed.
    """
    device = torch.device(device)
    name = name or ("fused" if device.type == "cuda" else "naive")
    if name == "naive":
        return NAIVE
    if name != "fused":
        raise ValueError(f"kernels must be one of {NAMES}; got {name!r}")
    from kernels.fused_common import runs_on

    if not runs_on(device):
        raise ValueError(
            f"kernels 'fused' run on cuda, or with TRITON_INTERPRET=1 on cpu; got device {device}"
        )
    return fused_twins()
