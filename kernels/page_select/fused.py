"""Triton twins of page scoring and coverage selection, without a sort and without a host sync.

Selection looks for a threshold in the order of (mass, position), bit by bit, on whole numbers:
sums of integers have no order, so the pages chosen depend neither on the batch nor on how a sum is
split, and more coverage keeps a superset exactly. Design and estimates: README, "Triton".
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.fused_common import (
    FRESH,
    LEAST_DOT,
    Workspace,
    check_floats,
    check_integers,
    kernel,
    padded,
)
from kernels.page_select.naive import Pins
from kernels.page_stats import Bounds, PageStats

SCORED = 16  # pages a program scores: at 32 and D = 128 the compiler spills
SHARED = 256  # pages whose mass a program writes
MERGED = tl.constexpr(16)  # partial sums read at once
UNIT = tl.constexpr(2.0**52)  # a mass of 1 as an integer; 2,048 of them still fit in int64
BEYOND = tl.constexpr(1 << 62)  # more than any sum of masses
MASS_BITS = 31  # a positive float32 orders as its bits do
BITS = 2  # of the threshold found in each pass over the masses
LARGEST_LIST = 1 << 16  # pages


@kernel
def _score(
    q, first, second, table, n_pages, tails, scores, part_peak, part_sum,
    scaling, heads, n, tiles,
    stride_qb, stride_qh, stride_qg, stride_fh, stride_fp, stride_sh, stride_sp, stride_tb,
    G: tl.constexpr, GP: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, P: tl.constexpr,
    BLOCK: tl.constexpr, BOUNDS: tl.constexpr,
):  # fmt: skip
    pair, tile = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row, head = pair // heads, pair % heads
    last = tl.load(n_pages + row) - 1
    if tile * BLOCK <= last:
        tail = tl.load(tails + row)
        g, d, at = tl.arange(0, GP), tl.arange(0, DP), tile * BLOCK + tl.arange(0, BLOCK)
        real_g, real_d, live = g < G, d < D, at <= last
        where = q + row * stride_qb + head * stride_qh + g[:, None] * stride_qg + d[None, :]
        query = tl.load(where, mask=real_g[:, None] & real_d[None, :], other=0.0).to(tl.float32)
        page = tl.load(table + row * stride_tb + at, mask=live, other=0).to(tl.int64)
        seen = live[None, :] & real_d[:, None]
        where = (head * stride_fh + page * stride_fp)[None, :] + d[:, None]
        one = tl.load(first + where, mask=seen, other=0.0).to(tl.float32)
        where = (head * stride_sh + page * stride_sp)[None, :] + d[:, None]
        two = tl.load(second + where, mask=seen, other=0.0).to(tl.float32)
        if BOUNDS:  # max(q l, q h) = q+ h + q- l
            raw = tl.dot(tl.maximum(query, 0.0), two, input_precision="ieee")
            raw += tl.dot(tl.minimum(query, 0.0), one, input_precision="ieee")
        else:
            spread = tl.dot(query * query, two, input_precision="ieee")
            spread = tl.sqrt(tl.where(spread < 0.0, 0.0, spread))  # keeps NaN
            raw = tl.dot(query, one, input_precision="ieee") + spread
        count = tl.where(at == last, tail, P).to(tl.float32)
        raw = raw * scaling + tl.log(tl.where(live, count, 1.0))[None, :]
        raw = tl.where(live[None, :], raw, float("-inf"))
        peak = tl.max(tl.where(raw == raw, raw, float("-inf")), 1)
        level = tl.where(peak == float("-inf"), 0.0, peak)  # -inf minus -inf is NaN
        total = tl.sum(tl.exp(raw - level[:, None]), 1)
        where = (pair * G + g)[:, None] * n + at[None, :]
        tl.store(scores + where, raw, mask=real_g[:, None] & live[None, :])
        where = (pair * tiles + tile) * G + g
        tl.store(part_peak + where, peak, mask=real_g)
        tl.store(part_sum + where, total, mask=real_g)


@kernel
def _share(
    scores, part_peak, part_sum, n_pages, mass, heads, n, tiles,
    G: tl.constexpr, GP: tl.constexpr, TILE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    pair = tl.program_id(0).to(tl.int64)
    pages = tl.load(n_pages + pair // heads)
    g, i = tl.arange(0, GP), tl.arange(0, MERGED)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    peak, total = tl.full([GP], float("-inf"), tl.float32), tl.zeros([GP], tl.float32)
    written = tl.cdiv(pages, TILE)
    for begin in range(0, written, MERGED):
        seen = (begin + i < written)[:, None] & (g < G)[None, :]
        where = (pair * tiles + begin + i)[:, None] * G + g[None, :]
        peaks = tl.load(part_peak + where, mask=seen, other=float("-inf"))
        sums = tl.load(part_sum + where, mask=seen, other=0.0)
        higher = tl.maximum(peak, tl.max(peaks, 0))
        level = tl.where(higher == float("-inf"), 0.0, higher)
        total = total * tl.exp(peak - level)
        total += tl.sum(sums * tl.exp(peaks - level[None, :]), 0)
        peak = higher
    level = tl.where(peak == float("-inf"), 0.0, peak)
    total = tl.where(total == 0.0, 1.0, total)
    live = (at < pages)[None, :] & (g < G)[:, None]
    raw = tl.load(
        scores + (pair * G + g)[:, None] * n + at[None, :], mask=live, other=float("-inf")
    )
    share = tl.exp(raw - level[:, None]) / total[:, None]
    tl.store(mass + pair * n + at, tl.sum(tl.where(live, share, 0.0), 0) / G, mask=at < n)


@kernel
def _select(
    mass, table, n_pages, coverage, pages, kept, heads, n, stride_mb, stride_mh, stride_tb,
    FIRST: tl.constexpr, RECENT: tl.constexpr, FLOOR: tl.constexpr,
    N: tl.constexpr, INDEX_BITS: tl.constexpr, TOP: tl.constexpr,
    BITS: tl.constexpr, RADIX: tl.constexpr, PASSES: tl.constexpr,
):  # fmt: skip
    pair = tl.program_id(0).to(tl.int64)
    row, head = pair // heads, pair % heads
    count, wanted = tl.load(n_pages + row), tl.load(coverage + row).to(tl.float32)
    at = tl.arange(0, N)
    live = at < count
    share = tl.load(mass + row * stride_mb + head * stride_mh + at, mask=live, other=0.0).to(
        tl.float32
    )
    share = tl.where(share > 0.0, share, 0.0)  # NaN counts as 0
    amount = (share * UNIT).to(tl.int64)
    need = tl.where(wanted < 1.0, (wanted * UNIT).to(tl.int64), BEYOND)
    # One number per page, larger for more mass, then for the earlier page; pins above all.
    key = (share.to(tl.int32, bitcast=True).to(tl.int64) << INDEX_BITS) + (N - 1 - at)
    pinned = (at < FIRST) | (at >= count - RECENT)
    key = tl.where(live, tl.where(pinned, TOP, key), -1)
    digit = tl.arange(0, RADIX).to(tl.int64)
    reached = tl.zeros([], tl.int64)  # the largest threshold whose pages hold what is needed
    filled = tl.zeros([], tl.int64)  # the largest threshold that leaves as many as the floor
    for i in range(PASSES):
        step = digit << (PASSES - 1 - i) * BITS
        above = key[None, :] >= (reached + step)[:, None]
        held = tl.sum(tl.where(above, amount[None, :], 0), 1)
        reached += tl.max(tl.where(held >= need, step, 0), 0)
        above = key[None, :] >= (filled + step)[:, None]
        held = tl.sum(above.to(tl.int32), 1)
        filled += tl.max(tl.where(held >= FLOOR, step, 0), 0)
    chosen = key >= tl.minimum(reached, filled)
    chosen = chosen & live
    place = tl.cumsum(chosen.to(tl.int32), 0) - 1
    total = tl.sum(chosen.to(tl.int32), 0)
    listed = tl.load(table + row * stride_tb + at, mask=live, other=0)
    tl.store(pages + pair * n + place, listed, mask=chosen)
    last = tl.load(table + row * stride_tb + tl.maximum(count - 1, 0))
    tl.store(pages + pair * n + at, last + at * 0, mask=(at >= total) & (at < n))
    tl.store(kept + pair, total)


def estimate_mass(
    q: Tensor,
    stats: PageStats,
    table: Tensor,
    n_pages: Tensor,
    tails: Tensor,
    scaling: float,
    *,
    page_tokens: int,
    workspace: Workspace = FRESH,
) -> Tensor:
    """Estimate each page's attention mass; arguments and result as in the naive twin.

    Raises:
        ValueError: queries or statistics of a type or stride the kernels do not take.
    """
    check_floats(q=q, first=stats[0], second=stats[1])
    check_integers(table=table, n_pages=n_pages, tails=tails)
    (rows, heads, group, dim), n, device = q.shape, table.shape[1], q.device
    tiles, pairs = max(1, triton.cdiv(n, SCORED)), rows * heads
    scores = workspace.scratch("scores", (pairs, group, n), torch.float32, device)
    peak = workspace.scratch("part_peak", (pairs, tiles, group), torch.float32, device)
    total = workspace.scratch("part_sum", (pairs, tiles, group), torch.float32, device)
    mass = workspace.output("mass", (rows, heads, n), torch.float32, device)
    if not mass.numel():
        return mass
    _score[pairs, tiles](
        q, stats[0], stats[1], table, n_pages, tails, scores, peak, total,
        scaling, heads, n, tiles,
        *q.stride()[:3], *stats[0].stride()[:2], *stats[1].stride()[:2], table.stride(0),
        G=group, GP=padded(group, LEAST_DOT), D=dim, DP=padded(dim, LEAST_DOT), P=page_tokens,
        BLOCK=SCORED, BOUNDS=isinstance(stats, Bounds), num_warps=4,
    )  # fmt: skip
    _share[pairs, triton.cdiv(n, SHARED)](
        scores, peak, total, n_pages, mass, heads, n, tiles,
        G=group, GP=padded(group), TILE=SCORED, BLOCK=SHARED, num_warps=4,
    )  # fmt: skip
    return mass


def select_pages(
    mass: Tensor,
    table: Tensor,
    n_pages: Tensor,
    coverage: Tensor,
    pins: Pins,
    *,
    workspace: Workspace = FRESH,
) -> tuple[Tensor, Tensor]:
    """Select the smallest page set reaching each row's coverage, as the naive twin does.

    Raises:
        ValueError: a type or stride the kernel does not take, or lists beyond ``LARGEST_LIST``.
    """
    check_floats(mass=mass)
    check_integers(table=table, n_pages=n_pages)
    rows, heads, n = mass.shape
    if n > LARGEST_LIST:
        raise ValueError(f"mass: a row may list {LARGEST_LIST} pages on GPU; got {n}")
    pages = workspace.output("pages", (rows, heads, n), torch.int32, mass.device)
    kept = workspace.output("kept", (rows, heads), torch.int32, mass.device)
    wide = padded(n, 16)
    index_bits = wide.bit_length() - 1
    key_bits = MASS_BITS + index_bits
    if pages.numel():
        _select[rows * heads,](
            mass, table, n_pages, coverage.contiguous(), pages, kept, heads, n,
            *mass.stride()[:2], table.stride(0),
            FIRST=pins.first, RECENT=pins.recent,
            FLOOR=max(pins.min_pages, pins.first + pins.recent),
            N=wide, INDEX_BITS=index_bits, TOP=(1 << key_bits) - 1,
            BITS=BITS, RADIX=1 << BITS, PASSES=triton.cdiv(key_bits, BITS),
            num_warps=max(1, min(16, wide // 512)),
        )  # fmt: skip
    else:
        kept.zero_()
    return pages, kept
