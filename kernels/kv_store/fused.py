"""Triton twin of the KV store: one program per token and head; the last token of a page sums it up.

Design and bytes: README, "Triton".
"""

from __future__ import annotations

import triton.language as tl
from torch import Tensor

from kernels.fused_common import check_floats, check_integers, function, kernel, padded
from kernels.page_stats import Bounds, PageStats


@function
def _bounds(keys, seen):
    low = tl.min(tl.where(seen, keys, float("inf")), 0)
    return low, tl.max(tl.where(seen, keys, float("-inf")), 0)


@function
def _moments(keys, seen, count):
    mean = tl.sum(keys, 0) / count
    away = tl.where(seen, keys - mean[None, :], 0.0)
    return mean, tl.sum(away * away, 0) / count


@kernel
def _store(
    k, v, slots, k_pages, v_pages, first, second, n,
    stride_kh, stride_kn, stride_kd, stride_vh, stride_vn, stride_vd,
    stride_kph, stride_kpp, stride_kpt, stride_vph, stride_vpp, stride_vpt,
    stride_fh, stride_fp, stride_sh, stride_sp,
    D: tl.constexpr, DP: tl.constexpr, P: tl.constexpr, PP: tl.constexpr,
    STATS: tl.constexpr, BOUNDS: tl.constexpr,
):  # fmt: skip
    i, head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    slot = tl.load(slots + i)
    page, offset = slot // P, slot % P
    d = tl.arange(0, DP)
    real = d < D
    key = tl.load(k + head * stride_kh + i * stride_kn + d * stride_kd, mask=real)
    value = tl.load(v + head * stride_vh + i * stride_vn + d * stride_vd, mask=real)
    at = head * stride_kph + page * stride_kpp + offset * stride_kpt + d
    tl.store(k_pages + at, key.to(tl.float32).to(k_pages.dtype.element_ty), mask=real)
    at = head * stride_vph + page * stride_vpp + offset * stride_vpt + d
    tl.store(v_pages + at, value.to(tl.float32).to(v_pages.dtype.element_ty), mask=real)
    follower = tl.load(slots + i + 1, mask=i + 1 < n, other=-1)
    if STATS and (follower // P != page or follower < 0):
        t = tl.arange(0, PP)
        filled = t <= offset
        # Tokens written by other programs of this launch are read where those read them.
        source = i - offset + t
        own = filled & (source >= 0)
        own = own & (tl.load(slots + source, mask=own, other=-1) == page * P + t)
        where = head * stride_kh + source[:, None] * stride_kn + d[None, :] * stride_kd
        now = tl.load(k + where, mask=own[:, None] & real[None, :], other=0.0)
        now = now.to(tl.float32).to(k_pages.dtype.element_ty).to(tl.float32)
        where = head * stride_kph + page * stride_kpp + t[:, None] * stride_kpt + d[None, :]
        before = (filled & (own == 0))[:, None] & real[None, :]
        keys = tl.load(k_pages + where, mask=before, other=0.0).to(tl.float32)
        keys = tl.where(own[:, None], now, keys)
        seen = filled[:, None] & real[None, :]
        if BOUNDS:
            one, two = _bounds(keys, seen)
        else:
            one, two = _moments(keys, seen, (offset + 1).to(tl.float32))
        at = head * stride_fh + page * stride_fp + d
        tl.store(first + at, one.to(first.dtype.element_ty), mask=real)
        at = head * stride_sh + page * stride_sp + d
        tl.store(second + at, two.to(second.dtype.element_ty), mask=real)


def store(
    k: Tensor,
    v: Tensor,
    slots: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    stats: PageStats | None,
) -> None:
    """Store N tokens of one layer and sum up each touched page; arguments as in the naive twin.

    Raises:
        ValueError: a cache of a type or stride the kernel does not take.
    """
    first, second = (k_pages, v_pages) if stats is None else stats
    check_floats(k_pages=k_pages, v_pages=v_pages, first=first, second=second)
    check_integers(slots=slots)
    heads, n, dim = k.shape
    size = k_pages.shape[2]
    if not heads * n:
        return
    _store[n, heads](
        k, v, slots, k_pages, v_pages, first, second, n,
        *k.stride(), *v.stride(), *k_pages.stride()[:3], *v_pages.stride()[:3],
        *first.stride()[:2], *second.stride()[:2],
        D=dim, DP=padded(dim), P=size, PP=padded(size),
        STATS=stats is not None, BOUNDS=isinstance(stats, Bounds), num_warps=1 if size <= 16 else 4,
    )  # fmt: skip
