"""A step's rows as the compiled layer reads them: room between its parts, and page lists."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.decoder_layer.shapes import Rows, Shape
from kernels.kv_store.native import Call as Store
from kernels.page_select.native import Estimate, Select
from kernels.paged_decode.native import Call as Attend

FLOAT_BYTES = 4


class Space:
    """What lies between the parts of a layer."""

    def __init__(self, shape: Shape, rows: int, parts: int = 0) -> None:
        """Make room for so many rows, and floats of attention before it is merged."""
        self.normed = torch.empty(rows, shape.width)
        self.heads = torch.empty(rows, shape.heads, shape.dim)
        self.attended = torch.empty(rows, shape.queries * shape.dim)
        self.inner = torch.empty(rows, shape.inner)
        self.lse = torch.empty(rows, shape.queries)
        self.parts = torch.empty(parts)


@dataclass(frozen=True, slots=True)
class Lists:
    """The pages that rows read; with a choice each layer writes them."""

    pages: Tensor  # int32 [M, Hkv, m]
    kept: Tensor  # int32 [M, Hkv], how many lead
    mass: Tensor  # float32 [M, Hkv, m], estimated; empty without a choice

    @classmethod
    def of(cls, rows: Rows, heads: int) -> Lists:
        """List every page, or make room for a choice."""
        n, m = rows.table.shape
        if rows.choice is None:
            kept = rows.n_pages[:, None].expand(-1, heads).contiguous()
            return cls(rows.table[:, None].expand(-1, heads, -1), kept, torch.empty(0))
        pages = torch.empty(n, heads, m, dtype=torch.int32)
        kept = torch.empty(n, heads, dtype=torch.int32)
        return cls(pages, kept, torch.empty(n, heads, m))


@dataclass(frozen=True, slots=True)
class Laid:
    """What the layers of a step share; all but ``lists`` and ``space`` is only read."""

    rows: Rows
    space: Space
    lists: Lists
    store: Store
    estimate: Estimate
    select: Select
    attend: Attend


def lay(shape: Shape, rows: Rows, *, split_pages: int, part_floats: int) -> Laid:
    """Prepare a step, for a kernel that attends ``split_pages`` at a time."""
    n, m = rows.table.shape
    splits = -(-m // split_pages)
    space = Space(shape, n, n * shape.kv_heads * splits * part_floats)
    lists = Lists.of(rows, shape.kv_heads)
    return Laid(
        rows,
        space,
        lists,
        _store(shape, rows, space),
        _estimate(shape, rows, space, lists),
        _select(shape, rows, lists),
        _attend(shape, rows, space, lists, splits),
    )


def _store(shape: Shape, rows: Rows, space: Space) -> Store:
    k = space.heads.data_ptr() + FLOAT_BYTES * shape.queries * shape.dim
    store = Store(k=k, v=k + FLOAT_BYTES * shape.kv_heads * shape.dim)
    store.k_head = store.v_head = shape.dim
    store.k_token = store.v_token = shape.heads * shape.dim
    store.slots, store.H, store.N = rows.slots.data_ptr(), shape.kv_heads, len(rows.slots)
    return store


def _estimate(shape: Shape, rows: Rows, space: Space, lists: Lists) -> Estimate:
    n, m = rows.table.shape
    return Estimate(
        q=space.heads.data_ptr(),
        q_row=shape.heads * shape.dim,
        table=rows.table.data_ptr(),
        n_pages=rows.n_pages.data_ptr(),
        tails=rows.tails.data_ptr(),
        scale=rows.scaling,
        mass=lists.mass.data_ptr(),
        B=n,
        H=shape.kv_heads,
        n=m,
    )


def _select(shape: Shape, rows: Rows, lists: Lists) -> Select:
    if rows.choice is None:
        return Select()
    n, m = rows.table.shape
    pins = rows.choice.pins
    return Select(
        mass=lists.mass.data_ptr(),
        table=rows.table.data_ptr(),
        n_pages=rows.n_pages.data_ptr(),
        coverage=rows.choice.coverage.data_ptr(),
        pages=lists.pages.data_ptr(),
        kept=lists.kept.data_ptr(),
        first=pins.first,
        recent=pins.recent,
        least=pins.min_pages,
        B=n,
        H=shape.kv_heads,
        n=m,
    )


def _attend(shape: Shape, rows: Rows, space: Space, lists: Lists, splits: int) -> Attend:
    n, m = rows.table.shape
    attend = Attend(q=space.heads.data_ptr(), q_row=shape.heads * shape.dim, scale=rows.scaling)
    attend.pages, attend.kept = lists.pages.data_ptr(), lists.kept.data_ptr()
    attend.pages_row, attend.pages_head, _ = lists.pages.stride()
    attend.tails = rows.tails.data_ptr()
    attend.out, attend.lse = space.attended.data_ptr(), space.lse.data_ptr()
    attend.parts, attend.splits = space.parts.data_ptr(), splits
    attend.B, attend.H, attend.m = n, shape.kv_heads, m
    return attend
