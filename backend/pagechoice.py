"""Which pages the rows below coverage 1 read in a layer: score, smooth or measure, then select."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from backend.cache import PagedCache
from backend.rows import DecodeRows
from backend.sparse import SparseAttention
from controllers.selection import Pins
from kernels.dispatch import decode_pages, estimate_mass, select_pages
from kernels.low_bit_keys.native import estimate_mass as low_bit_mass
from kernels.page_select.blocks import select_blocks


class Chooser(Protocol):
    """The parts of a step that choosing looks at."""

    cache: PagedCache
    sparse: SparseAttention
    pins: Pins


def choose(
    step: Chooser, layer: int, rows: DecodeRows, q: Tensor, scaling: float
) -> tuple[Tensor, Tensor]:
    """Return the pages to read, int32 ``[B, Hkv, n]``, and how many lead, ``[B, Hkv]``.

    Args:
        rows: the rows to prune; q: their queries ``[B, Hkv, G, D]``.
    """
    if step.sparse.scorer == "oracle":
        mass = exact_mass(step, layer, rows, q, scaling)
    elif step.cache.codes:
        codes = step.cache.codes[layer]
        mass = low_bit_mass(q, codes, rows.table, rows.n_pages, rows.tails, scaling)
    else:
        mass = estimate(step, layer, rows, q, scaling)
    if step.cache.lag is not None:
        mass = _lagged(step.cache.lag[layer], rows, mass)
    k = step.sparse.block_pages
    if k == 1:
        return select_pages(mass, rows.table, rows.n_pages, rows.coverage, step.pins)
    return select_blocks(mass, rows.table, rows.n_pages, rows.coverage, step.pins, k, select_pages)


def estimate(step: Chooser, layer: int, rows: DecodeRows, q: Tensor, scaling: float) -> Tensor:
    """Return page mass ``[B, Hkv, n]`` estimated from the statistics of the keys."""
    cache = step.cache
    return estimate_mass(
        q,
        cache.stats[layer],
        rows.table,
        rows.n_pages,
        rows.tails,
        scaling,
        page_tokens=cache.page_tokens,
    )


def exact_mass(step: Chooser, layer: int, rows: DecodeRows, q: Tensor, scaling: float) -> Tensor:
    """Return true page mass ``[B, Hkv, n]``; costs a dense pass."""
    heads, (k_pages, v_pages) = q.shape[1], step.cache.layer_pages(layer)
    pages = rows.table[:, None].expand(-1, heads, -1)
    kept = rows.n_pages[:, None].expand(-1, heads)
    dense = decode_pages(q, k_pages, v_pages, pages, kept, rows.tails, scaling, masses=True)
    assert dense.page_mass is not None
    return dense.page_mass


def _lagged(lag: Tensor, rows: DecodeRows, estimated: Tensor) -> Tensor:
    """Return the larger of measured and estimated mass, as shares of their sum.

    A page that was not read is not measured again: what it got once, when it mattered little, must
    not hold it down for ever, so an estimate that rises wins.
    """
    measured = lag[:, rows.table.long()].transpose(0, 1)  # [B, Hkv, n]
    place = torch.arange(rows.table.shape[1], device=estimated.device)
    inside = (place < rows.n_pages[:, None])[:, None]
    mass = torch.maximum(measured.nan_to_num(nan=0.0), estimated) * inside
    return mass / mass.sum(-1, keepdim=True)
