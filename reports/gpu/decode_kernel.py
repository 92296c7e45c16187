"""Paged decode against the copy bandwidth, against torch's attention, and over its own settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from reports.gpu.place import Place
from reports.gpu.record import Record
from reports.gpu.timing import Timing, copies_for, time_calls

PAGE = 16
KEPT = (1.0, 0.5, 0.25, 0.1)
CONTEXTS, BATCHES = (4096, 16384, 32768, 65536, 131072), (1, 8, 32, 128)
RIVALS_AT = ((4096, 1), (4096, 32), (32768, 1), (32768, 8), (131072, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """The attention of one layer; Llama-3-8B and Qwen3-8B have the same."""

    name: str
    kv_heads: int
    group: int
    dim: int


EIGHT_B = Heads(name="llama-3-8b, qwen3-8b", kv_heads=8, group=4, dim=128)
SMALL = Heads(name="smollm2-135m", kv_heads=3, group=3, dim=64)
DRY = Heads(name="tiny", kv_heads=2, group=2, dim=16)


class Pool:
    """Random K and V of one layer, and page lists of rows that keep a share of their pages."""

    def __init__(self, heads: Heads, batch: int, context: int, sets: int, place: Place) -> None:
        self.heads, self.batch, self.pages = heads, batch, context // PAGE
        pool = batch * self.pages * sets
        shape = (heads.kv_heads, pool, PAGE, heads.dim)
        dtype = torch.bfloat16
        self.k, self.v = (
            torch.empty(shape, dtype=dtype, device=place.device).normal_() for _ in "kv"
        )
        self.q = torch.randn(batch, heads.kv_heads, heads.group, heads.dim, device=place.device)
        self.q = self.q.to(dtype)
        order = torch.randperm(pool, device=place.device).int()
        self.tables = order.view(sets, batch, self.pages)
        self.tails = torch.full((batch,), PAGE, dtype=torch.int32, device=place.device)

    def lists(self, kept: float, table: Tensor) -> tuple[Tensor, Tensor]:
        """Return page lists ``[B, Hkv, n]`` and counts; each head keeps a random share."""
        rows, n, heads = self.batch, self.pages, self.heads.kv_heads
        if kept == 1.0:
            counts = torch.full((rows, heads), n, dtype=torch.int32, device=table.device)
            return table[:, None].expand(-1, heads, -1), counts
        count = max(1, round(kept * n))
        chosen = torch.rand(rows, heads, n, device=table.device).argsort(-1)[..., :count]
        chosen = chosen.sort(-1).values
        listed = table[:, None].expand(-1, heads, -1).gather(-1, chosen)
        pages = F.pad(listed, (0, n - count)).contiguous()  # the width a graph would have
        return pages, torch.full((rows, heads), count, dtype=torch.int32, device=table.device)

    @property
    def scale(self) -> float:
        """The attention scale."""
        return self.heads.dim**-0.5

    def bytes_read(self, kept: float) -> int:
        """Return the bytes of the pages one call reads."""
        count = self.pages if kept == 1.0 else max(1, round(kept * self.pages))
        tokens = self.batch * self.heads.kv_heads * count * PAGE
        return 2 * tokens * self.heads.dim * self.k.element_size()


def decode_kernel(place: Place, record: Record, copy_rate: float) -> None:
    """Time the kernel over contexts, batches and kept shares, then its rivals on a few of them."""
    shapes = (DRY,) if place.dry else (EIGHT_B, SMALL)
    for heads in shapes:
        for context, batch in _points(place, heads):
            if place.late:
                record.add("skipped", part="paged_decode", context=context, batch=batch)
                continue
            try:
                _point(place, record, copy_rate, heads, context, batch)
            except Exception as error:  # a kernel compiler raises types of its own
                record.failed("paged_decode", error, context=context, batch=batch)


def _points(place: Place, heads: Heads) -> Iterator[tuple[int, int]]:
    """Yield the (context, batch) that fit, those with rivals first."""
    if place.dry:
        yield 64, 2
        return
    token = 2 * heads.kv_heads * heads.dim * 2
    room = int(place.free_bytes() * 0.8)  # the page lists and partial results take some too
    every = [(c, b) for c in CONTEXTS for b in BATCHES]
    ordered = sorted(every, key=lambda point: (point not in RIVALS_AT, point[0] * point[1]))
    yield from ((c, b) for c, b in ordered if c * b * token <= room)


def _point(
    place: Place, record: Record, copy_rate: float, heads: Heads, context: int, batch: int
) -> None:
    one = 2 * batch * context * heads.kv_heads * heads.dim * 2
    sets = 1 if place.dry else copies_for(one // 10, most=256)
    sets = max(1, min(sets, int(place.free_bytes() * 0.8) // one))
    pool = Pool(heads, batch, context, sets, place)
    twins = place.twins()
    common: dict[str, Any] = {"shape": heads.name, "context": context, "batch": batch}
    dense = None
    for kept in KEPT:
        for masses in (False, True) if kept == 1.0 else (False,):
            lists = [pool.lists(kept, table) for table in pool.tables]
            calls = [
                lambda p=pages, c=counts, m=masses: twins.decode_pages(
                    pool.q, pool.k, pool.v, p, c, pool.tails, pool.scale, masses=m
                )
                for pages, counts in lists
            ]
            timing = time_calls(calls, place)
            read = pool.bytes_read(kept)
            rate = read / timing.median_s
            dense = dense or timing.median_s
            record.add(
                "paged_decode",
                **common,
                kept=kept,
                masses=masses,
                kv_bytes=read,
                bytes_per_s=rate,
                of_copy=rate / copy_rate,
                of_dense_time=timing.median_s / dense,
                **timing.fields(),
            )
    if place.dry or (context, batch) in RIVALS_AT:
        _rivals(place, record, pool, common, copy_rate)


def _rivals(
    place: Place, record: Record, pool: Pool, common: dict[str, Any], copy_rate: float
) -> None:
    """Time torch's attention on contiguous K and V of the same lengths; it pays for no paging."""
    q = pool.q.flatten(1, 2)[:, :, None]  # [B, H, 1, D]
    shape = (len(pool.tables), pool.batch, pool.pages)
    blocks = pool.k.unflatten(1, shape), pool.v.unflatten(1, shape)
    sets = [
        tuple(part[:, i].transpose(0, 1).flatten(2, 3).contiguous() for part in blocks)
        for i in range(min(2, shape[0]))
    ]
    for name, attend in _attentions(place, pool).items():
        try:
            calls = [lambda k=k, v=v, a=attend: a(q, k, v) for k, v in sets]
            timing: Timing = time_calls(calls, place)
        except Exception as error:  # a rival may fail in its own compiler, in its own way
            record.failed(name, error, **common)
            continue
        rate = pool.bytes_read(1.0) / timing.median_s
        record.add(name, **common, bytes_per_s=rate, of_copy=rate / copy_rate, **timing.fields())


def _attentions(place: Place, pool: Pool) -> dict[str, Callable[..., Tensor]]:
    def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    def grouped(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # The group as query rows of one KV head: what keeps a fast kernel from repeating K.
        rows = q.unflatten(1, (k.shape[1], -1))[:, :, :, 0]
        return F.scaled_dot_product_attention(rows, k, v)

    found: dict[str, Callable[..., Tensor]] = {"sdpa": sdpa, "sdpa_grouped": grouped}
    if place.cuda:
        from torch.nn.attention.flex_attention import flex_attention

        compiled = torch.compile(flex_attention, dynamic=False)
        found["flex_attention"] = lambda q, k, v: compiled(q, k, v, enable_gqa=True)  # type: ignore[return-value]
    return found
