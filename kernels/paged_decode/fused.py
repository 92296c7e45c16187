"""Triton twin of paged decode: split over the *selected* pages, merged in fixed order.

A chunk is ``CHUNK`` tokens' worth of listed pages whatever the batch, so a row's result does not
depend on who shares its step. Design, bytes and estimates: README, "Triton".
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
from kernels.paged_decode.naive import Decoded

CHUNK = 256  # tokens a program reduces before it writes a partial result
TILE = 64  # tokens read at once
TILE_BYTES = 64 * 1024  # of K and V in a tile: with more, registers spill
LIVE_PROGRAMS = 132 * 16  # 16 per SM of an H100: more only queue
STAGED_BYTES = 128 * 1024  # shared memory the pipelined tiles of a program may take
MERGED = tl.constexpr(16)  # partial results read at once
SHARED_PAGES = 64  # pages whose mass a program writes


@kernel
def _attend(
    q, k_pages, v_pages, pages, kept, tails, nats,
    part_out, part_lse, page_lse, page_nats,
    scaling, heads, m, chunks,
    stride_qb, stride_qh, stride_qg, stride_kh, stride_kp, stride_kt, stride_vh, stride_vp,
    stride_vt, stride_pb, stride_ph, stride_kept_b, stride_kept_h, stride_np,
    G: tl.constexpr, GP: tl.constexpr, D: tl.constexpr, DP: tl.constexpr,
    P: tl.constexpr, PP: tl.constexpr, AT_ONCE: tl.constexpr, CHUNK_PAGES: tl.constexpr,
    MASSES: tl.constexpr, SURPRISAL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    pair = tl.program_id(0).to(tl.int64)
    row, head = pair // heads, pair % heads
    n_kept = tl.load(kept + row * stride_kept_b + head * stride_kept_h)
    tail = tl.load(tails + row)
    g, d, t = tl.arange(0, GP), tl.arange(0, DP), tl.arange(0, AT_ONCE * PP)
    real_g, real_d = g < G, d < D
    at = q + row * stride_qb + head * stride_qh + g[:, None] * stride_qg + d[None, :]
    query = tl.load(at, mask=real_g[:, None] & real_d[None, :], other=0.0).to(tl.float32)
    first_chunk, n_chunks = tl.program_id(1), tl.cdiv(n_kept, CHUNK_PAGES)
    for chunk in range(first_chunk, n_chunks, tl.num_programs(1)):
        peak = tl.full([GP], float("-inf"), tl.float32)
        total = tl.zeros([GP], tl.float32)
        acc = tl.zeros([GP, DP], tl.float32)
        end = tl.minimum((chunk + 1) * CHUNK_PAGES, n_kept)
        for first in range(chunk * CHUNK_PAGES, end, AT_ONCE):  # pyright: ignore
            place, offset = first + t // PP, t % PP
            live = (place < end) & (offset < tl.where(place == n_kept - 1, tail, P))
            listed = pages + row * stride_pb + head * stride_ph + place
            page = tl.load(listed, mask=live, other=0).to(tl.int64)
            k_at = head * stride_kh + page * stride_kp + offset * stride_kt
            seen = live[None, :] & real_d[:, None]
            keys = tl.load(k_pages + k_at[None, :] + d[:, None], mask=seen, other=0.0)
            scores = tl.dot(query, keys.to(tl.float32), input_precision=PRECISION) * scaling
            scores = tl.where(live[None, :], scores, float("-inf"))
            known = tl.where(scores == scores, scores, float("-inf"))  # a maximum drops NaN
            higher = tl.maximum(peak, tl.max(known, 1))
            level = tl.where(higher == float("-inf"), 0.0, higher)  # -inf minus -inf is NaN
            fade, weight = tl.exp(peak - level), tl.exp(scores - level[:, None])
            total = total * fade + tl.sum(weight, 1)
            v_at = head * stride_vh + page * stride_vp + offset * stride_vt
            seen = live[:, None] & real_d[None, :]
            values = tl.load(v_pages + v_at[:, None] + d[None, :], mask=seen, other=0.0)
            product = tl.dot(weight, values.to(tl.float32), input_precision=PRECISION)
            acc = acc * fade[:, None] + product
            peak = higher
            if MASSES or SURPRISAL:
                mine = tl.sum(tl.reshape(weight, [GP, AT_ONCE, PP]), 2)
                some = tl.where(mine == 0.0, 1.0, mine)
                lse = tl.where(mine == 0.0, float("-inf"), level[:, None] + tl.log(some))
                at_page = first + tl.arange(0, AT_ONCE)
                where = (pair * m + at_page)[None, :] * G + g[:, None]
                wanted = (at_page < end)[None, :] & real_g[:, None]
                tl.store(page_lse + where, lse, mask=wanted)
                if SURPRISAL:
                    nat = tl.load(nats + page * stride_np + offset, mask=live, other=0.0)
                    nat = tl.where(nat == nat, nat, 0.0).to(tl.float32)
                    weighted = tl.reshape(weight * nat[None, :], [GP, AT_ONCE, PP])
                    tl.store(page_nats + where, tl.sum(weighted, 2) / some, mask=wanted)
        some = tl.where(total == 0.0, 1.0, total)
        lse = tl.where(peak == float("-inf"), total, peak) + tl.log(some)
        lse = tl.where(total == 0.0, float("-inf"), lse)
        where = (pair * chunks + chunk) * G + g
        tl.store(part_lse + where, lse, mask=real_g)
        written = real_g[:, None] & real_d[None, :]
        tl.store(part_out + where[:, None] * D + d[None, :], acc / some[:, None], mask=written)


@kernel
def _merge(
    part_out, part_lse, kept, out, lse, heads, chunks, stride_kept_b, stride_kept_h,
    G: tl.constexpr, D: tl.constexpr, DP: tl.constexpr, CHUNK_PAGES: tl.constexpr,
):  # fmt: skip
    pair, g = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row, head = pair // heads, pair % heads
    n_kept = tl.load(kept + row * stride_kept_b + head * stride_kept_h)
    written = tl.cdiv(n_kept, CHUNK_PAGES)
    i, d = tl.arange(0, MERGED), tl.arange(0, DP)
    peak, total, acc = float("-inf"), 0.0, tl.zeros([DP], tl.float32)
    for first in range(0, written, MERGED):
        live = first + i < written
        where = (pair * chunks + first + i) * G + g
        part = tl.load(part_lse + where, mask=live, other=float("-inf"))
        seen = live[:, None] & (d < D)[None, :]
        partial = tl.load(part_out + where[:, None] * D + d[None, :], mask=seen, other=0.0)
        known = tl.where(part == part, part, float("-inf"))
        higher = tl.maximum(peak, tl.max(known, 0))
        level = tl.where(higher == float("-inf"), 0.0, higher)
        fade, weight = tl.exp(peak - level), tl.exp(part - level)
        total = total * fade + tl.sum(weight, 0)
        acc = acc * fade + tl.sum(weight[:, None] * partial, 0)
        peak = higher
    some = tl.where(total == 0.0, 1.0, total)
    level = tl.where(peak == float("-inf"), total, peak)
    whole = tl.where(total == 0.0, float("-inf"), level + tl.log(some))
    tl.store(lse + pair * G + g, whole)
    result = (acc / some).to(out.dtype.element_ty)
    tl.store(out + (pair * G + g) * D + d, result, mask=d < D)


@kernel
def _shares(
    page_lse, page_nats, lse, kept, mass, surprisal, heads, m, stride_kept_b, stride_kept_h,
    G: tl.constexpr, GP: tl.constexpr, BLOCK: tl.constexpr,
    MASSES: tl.constexpr, SURPRISAL: tl.constexpr,
):  # fmt: skip
    pair = tl.program_id(0).to(tl.int64)
    row, head = pair // heads, pair % heads
    n_kept = tl.load(kept + row * stride_kept_b + head * stride_kept_h)
    page, g = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, GP)
    live = (page < n_kept)[:, None] & (g < G)[None, :]
    where = (pair * m + page)[:, None] * G + g[None, :]
    whole = tl.load(lse + pair * G + g, mask=g < G, other=0.0)
    whole = tl.where(whole == float("-inf"), 0.0, whole)
    part = tl.load(page_lse + where, mask=live, other=float("-inf"))
    share = tl.exp(part - whole[None, :]) / G
    if MASSES:
        tl.store(mass + pair * m + page, tl.sum(share, 1), mask=page < m)
    if SURPRISAL:
        nats = tl.load(page_nats + where, mask=live, other=0.0)
        tl.store(surprisal + pair * m + page, tl.sum(share * nats, 1), mask=page < m)


def decode_pages(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    pages: Tensor,
    kept: Tensor,
    tails: Tensor,
    scaling: float,
    *,
    surprisal: Tensor | None = None,
    masses: bool = False,
    programs: int | None = None,
    workspace: Workspace = FRESH,
) -> Decoded:
    """Attend each row to its listed pages; arguments and result as in the naive twin.

    Args:
        programs: how many programs share a row and head's chunks; it changes no bit of the result.
        workspace: where scratch and results are allocated.

    Raises:
        ValueError: a type, stride or page size the kernels do not take.
    """
    check_floats(q=q, k_pages=k_pages, v_pages=v_pages)
    # Both strides of ``kept`` are passed: dense attention expands one count over the heads.
    check_integers(pages=pages, kept=kept[:, :1], tails=tails)
    if surprisal is not None:
        check_floats(surprisal=surprisal)
    (rows, heads, group, dim), size, m = q.shape, k_pages.shape[2], pages.shape[2]
    page, tile = padded(size), _pages_at_once(size, dim, k_pages.element_size())
    chunk_pages = max(tile, CHUNK // page)
    chunks = max(1, triton.cdiv(m, chunk_pages))
    device, nats = q.device, surprisal is not None
    paged = masses or nats

    def buffer(name: str, *shape: int) -> Tensor:
        return workspace.scratch(name, shape, torch.float32, device)

    part_out = buffer("part_out", rows, heads, chunks, group, dim)
    part_lse = buffer("part_lse", rows, heads, chunks, group)
    page_lse = buffer("page_lse", rows, heads, m, group) if paged else part_lse
    page_nats = buffer("page_nats", rows, heads, m, group) if nats else part_lse
    out = workspace.output("out", q.shape, q.dtype, device)
    lse = workspace.output("lse", (rows, heads, group), torch.float32, device)
    share, pairs = (rows, heads, m), rows * heads
    mass = workspace.output("page_mass", share, torch.float32, device) if masses else None
    weighted = workspace.output("page_surprisal", share, torch.float32, device) if nats else None
    if not pairs:
        return Decoded(out, lse, mass, weighted)
    split = min(chunks, programs or max(1, LIVE_PROGRAMS // pairs))
    tile_bytes = tile * _page_bytes(size, dim, k_pages.element_size())
    _attend[pairs, split](
        q, k_pages, v_pages, pages, kept, tails, surprisal if nats else part_lse,
        part_out, part_lse, page_lse, page_nats, scaling, heads, m, chunks,
        *q.stride()[:3], *k_pages.stride()[:3], *v_pages.stride()[:3], *pages.stride()[:2],
        *kept.stride(), surprisal.stride(0) if surprisal is not None else 0,
        G=group, GP=padded(group, LEAST_DOT), D=dim, DP=padded(dim, LEAST_DOT), P=size, PP=page,
        AT_ONCE=tile, CHUNK_PAGES=chunk_pages, MASSES=masses, SURPRISAL=nats,
        PRECISION="ieee" if torch.float32 in (q.dtype, k_pages.dtype) else "tf32",
        num_warps=8 if k_pages.element_size() == 4 else 4,
        num_stages=min(3, max(1, STAGED_BYTES // tile_bytes)),
    )  # fmt: skip
    _merge[pairs, group](
        part_out, part_lse, kept, out, lse, heads, chunks, *kept.stride(),
        G=group, D=dim, DP=padded(dim), CHUNK_PAGES=chunk_pages, num_warps=1 if dim <= 64 else 2,
    )  # fmt: skip
    if paged:
        _shares[pairs, max(1, triton.cdiv(m, SHARED_PAGES))](
            page_lse, page_nats, lse, kept, lse if mass is None else mass,
            lse if weighted is None else weighted, heads, m, *kept.stride(),
            G=group, GP=padded(group), BLOCK=SHARED_PAGES, MASSES=masses, SURPRISAL=nats,
            num_warps=4,
        )  # fmt: skip
    return Decoded(out, lse, mass, weighted)


def _page_bytes(size: int, dim: int, element: int) -> int:
    return 2 * padded(size) * padded(dim, LEAST_DOT) * element


def _pages_at_once(size: int, dim: int, element: int) -> int:
    """Return the pages of a tile, a power of two: a plain function of shapes, never tuned."""
    fit = TILE_BYTES // _page_bytes(size, dim, element)
    least = max(1, LEAST_DOT // padded(size))
    if fit < least:
        raise ValueError(
            f"page_tokens: K and V of a tile must fit {TILE_BYTES} bytes on GPU; got {size} tokens "
            f"of {dim} x {element} bytes"
        )
    return max(least, min(fit, TILE // padded(size)))
