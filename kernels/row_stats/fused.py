"""Triton twins of the row statistics: the vocabulary in splits, merged in fixed order.

A split is ``SPLIT`` logits whatever the batch, held in registers, so logits are read once and a
row's result does not depend on its neighbours. Design, bytes and estimates: README, "Triton".
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.fused_common import (
    FRESH,
    Workspace,
    check_floats,
    check_integers,
    function,
    kernel,
    padded,
)
from kernels.row_stats import naive
from kernels.row_stats.naive import Drawn, RowStats

SPLIT = 4096  # logits a program holds
LEAST_SPLIT = 128
FAR = tl.constexpr(naive.FAR)
NOTHING = tl.constexpr(-1e3)  # its exponential is 0 in float32
STEEP = tl.constexpr(naive.STEEP)
TO_UNIT = tl.constexpr(naive.TO_UNIT)
LEAST_UNIFORM = tl.constexpr(naive.LEAST_UNIFORM)
SERIES_BELOW = tl.constexpr(naive.SERIES_BELOW)


@function
def _inverse_temperature(x):
    inverse = tl.exp(-x)
    return tl.minimum(tl.maximum(inverse, 1.0 / STEEP), STEEP)


@function
def _load_split(logits, row, stride, n, token):
    """Return a split's logits, NaN read as +inf: what no softmax survives has one mark."""
    z = tl.load(logits + row * stride + token, mask=token < n, other=float("-inf")).to(tl.float32)
    return tl.where(z == z, z, float("inf"))


@kernel
def _measure_split(
    logits, x, part_peak, part_arg, part_sums, stride, stride_xs, stride_xm, n, splits,
    M: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    token = split * BLOCK + tl.arange(0, BLOCK)
    z = _load_split(logits, row, stride, n, token)
    peak, at = tl.max(z, 0, return_indices=True)
    place = row * splits + split
    tl.store(part_peak + place, peak)
    tl.store(part_arg + place, split * BLOCK + at)
    fine = tl.abs(peak) < float("inf")  # else the split is empty, or its row beyond measure
    away = tl.where(fine, z - tl.where(fine, peak, 0.0), float("-inf"))
    for i in tl.static_range(M):  # pyright: ignore
        inverse = _inverse_temperature(tl.load(x + row * stride_xs + i * stride_xm).to(tl.float32))
        least = FAR / inverse  # clamped before the product, which could overflow
        d = tl.where(away < least, least, away) * inverse
        weight = tl.exp(d)
        sums = part_sums + (place * M + i) * 3
        tl.store(sums, tl.sum(weight, 0))
        tl.store(sums + 1, tl.sum(d * weight, 0))
        tl.store(sums + 2, tl.sum(d * d * weight, 0))


@kernel
def _merge_splits(
    part_peak, part_arg, part_sums, x, argmax, lse, h, v, stride_xs, stride_xm, n, splits,
    M: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    row, i = tl.program_id(0).to(tl.int64), tl.program_id(1)
    split = tl.arange(0, SPLITS)
    real = split < splits
    place = row * splits + split
    peaks = tl.load(part_peak + place, mask=real, other=float("-inf"))
    peak = tl.max(peaks, 0)
    fine = tl.abs(peak) < float("inf")
    if i == 0:
        first = tl.load(part_arg + place, mask=real & (peaks == peak), other=n)
        tl.store(argmax + row, tl.where(fine, tl.min(first, 0), -1).to(tl.int64))
    inverse = _inverse_temperature(tl.load(x + row * stride_xs + i * stride_xm).to(tl.float32))
    level = tl.where(fine, peak, 0.0)
    counts = tl.abs(peaks) < float("inf")
    least = FAR / inverse
    away = tl.minimum(tl.where(counts, peaks - level, least), 0.0)  # above 0 in dead rows alone
    shift = tl.where(away < least, least, away) * inverse
    fade = tl.where(counts, tl.exp(shift), 0.0)
    sums = part_sums + (place * M + i) * 3
    s = tl.load(sums, mask=real, other=0.0)
    w = tl.load(sums + 1, mask=real, other=0.0)
    q = tl.load(sums + 2, mask=real, other=0.0)
    total = tl.sum(fade * s, 0)
    total = tl.where(fine, total, 1.0)
    mean = tl.sum(fade * (w + shift * s), 0) / total
    square = tl.sum(fade * (q + 2.0 * shift * w + shift * shift * s), 0) / total
    out = row * M + i
    log = tl.log(total)
    nan = float("nan")
    tl.store(lse + out, tl.where(fine, level * inverse + log, nan))
    tl.store(h + out, tl.where(fine, log - mean, nan))
    tl.store(v + out, tl.where(fine, tl.maximum(square - mean * mean, 0.0), nan))


@function
def _weights(z, level, inverse):
    """Return exp((z - level)/T): 0 far below the level, and never above 1."""
    least = NOTHING / inverse  # clamped before the product, which could overflow
    return tl.exp(tl.maximum(tl.minimum(z - level, 0.0), least) * inverse)


@kernel
def _invert(
    logits, x, noise, part_peak, part_sums, argmax, tokens, stride, n, splits,
    BLOCK: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    row, split, i = tl.program_id(0).to(tl.int64), tl.arange(0, SPLITS), tl.arange(0, BLOCK)
    real = split < splits
    place = row * splits + split
    peaks = tl.load(part_peak + place, mask=real, other=float("-inf"))
    peak = tl.max(peaks, 0)
    level = tl.where(tl.abs(peak) < float("inf"), peak, 0.0)
    inverse = _inverse_temperature(tl.load(x + row).to(tl.float32))
    held = tl.load(part_sums + place * 3, mask=real, other=0.0) * _weights(peaks, level, inverse)
    held = held.to(tl.float64)
    reached = tl.cumsum(held, 0)
    target = tl.load(noise + row) * tl.max(reached, 0)
    # Rounding may leave no candidate: then the last that has probability at all.
    over = tl.min(tl.where((reached > target) & (held > 0.0), split, SPLITS), 0)
    chosen = tl.minimum(over, tl.max(tl.where(held > 0.0, split, 0), 0))
    before = tl.max(tl.where(split < chosen, reached, 0.0), 0)
    token = chosen * BLOCK + i
    weight = _weights(_load_split(logits, row, stride, n, token), level, inverse)
    reached = before + tl.cumsum(weight.to(tl.float64), 0)
    over = tl.min(tl.where((reached > target) & (weight > 0.0), i, BLOCK), 0)
    over = tl.minimum(over, tl.max(tl.where(weight > 0.0, i, 0), 0))
    fine = tl.load(argmax + row) >= 0
    tl.store(tokens + row, tl.where(fine, chosen * BLOCK + over, -1).to(tl.int64))


@function
def _gumbel(u):
    u = tl.maximum(u, LEAST_UNIFORM)
    series = u * (1.0 + u * (0.5 + u * (1.0 / 3.0 + u * 0.25)))
    return -tl.log(tl.where(u < SERIES_BELOW, series, -tl.log(1.0 - u)))


@kernel
def _draw_split(
    logits, x, seeds, positions, part_peak, part_score, part_arg, stride, n, splits,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    token = split * BLOCK + tl.arange(0, BLOCK)
    z = _load_split(logits, row, stride, n, token)
    zero = token * 0
    position = zero + tl.load(positions + row).to(tl.int32)
    word, _, _, _ = tl.philox(tl.load(seeds + row), token, position, zero, zero)
    signed = word.to(tl.int32, bitcast=True)
    noise = _gumbel(tl.where(signed < 0, -signed - 1, signed).to(tl.float32) * TO_UNIT)
    inverse = _inverse_temperature(tl.load(x + row).to(tl.float32))
    lost = tl.abs(z) == float("inf")
    score = tl.where(lost, float("-inf"), tl.where(lost, 0.0, z) * inverse + noise)
    best, at = tl.max(score, 0, return_indices=True)
    place = row * splits + split
    tl.store(part_peak + place, tl.max(z, 0))
    tl.store(part_score + place, best)
    tl.store(part_arg + place, split * BLOCK + at)


@kernel
def _choose_split(part_peak, part_score, part_arg, tokens, n, splits, SPLITS: tl.constexpr):
    row, split = tl.program_id(0).to(tl.int64), tl.arange(0, SPLITS)
    real = split < splits
    place = row * splits + split
    peak = tl.max(tl.load(part_peak + place, mask=real, other=float("-inf")), 0)
    scores = tl.load(part_score + place, mask=real, other=float("-inf"))
    first = tl.load(part_arg + place, mask=real & (scores == tl.max(scores, 0)), other=n)
    chosen = tl.where(tl.abs(peak) < float("inf"), tl.min(first, 0), -1)
    tl.store(tokens + row, chosen.to(tl.int64))


def row_stats(logits: Tensor, x: Tensor, *, workspace: Workspace = FRESH) -> RowStats:
    """Measure every row of ``logits [S, n]`` at ln T = ``x [S, m]``, as the naive twin does.

    Raises:
        ValueError: logits of a type or stride the kernels do not take.
    """
    return _measure(logits, x, workspace)[0]


def draw(logits: Tensor, x: Tensor, noise: Tensor, *, workspace: Workspace = FRESH) -> Drawn:
    """Draw one token per row by inverting the CDF, and measure H there, as the naive twin does.

    The splits' sums tell in which split the token lies; only that one is read again.

    Raises:
        ValueError: logits of a type or stride the kernels do not take.
    """
    rows, n, block, splits = _split(logits)
    x = x.contiguous()
    stats, peak, sums = _measure(logits, x[:, None], workspace)
    tokens = workspace.output("tokens", (rows,), torch.int64, logits.device)
    if rows:
        _invert[rows,](
            logits, x, noise.double().contiguous(), peak, sums, stats.argmax, tokens,
            logits.stride(0), n, splits, BLOCK=block, SPLITS=padded(splits),
            num_warps=_warps(block),
        )  # fmt: skip
    return Drawn(tokens, stats.h[:, 0])


def _measure(logits: Tensor, x: Tensor, workspace: Workspace) -> tuple[RowStats, Tensor, Tensor]:
    """Return the statistics, and of each split its largest logit and its sums."""
    rows, n, block, splits = _split(logits)
    device, m = logits.device, x.shape[1]
    peak = workspace.scratch("part_peak", (rows, splits), torch.float32, device)
    arg = workspace.scratch("part_arg", (rows, splits), torch.int32, device)
    sums = workspace.scratch("part_sums", (rows, splits, m, 3), torch.float32, device)
    argmax = workspace.output("argmax", (rows,), torch.int64, device)
    lse, h, v = (
        workspace.output(name, (rows, m), torch.float32, device) for name in ("lse", "h", "v")
    )
    if rows and m:
        _measure_split[rows, splits](
            logits, x, peak, arg, sums, logits.stride(0), *x.stride(), n, splits,
            M=m, BLOCK=block, num_warps=_warps(block),
        )  # fmt: skip
        _merge_splits[rows, m](
            peak, arg, sums, x, argmax, lse, h, v, *x.stride(), n, splits,
            M=m, SPLITS=padded(splits), num_warps=1,
        )  # fmt: skip
    return RowStats(argmax, lse, h, v), peak, sums


def gumbel_sample(
    logits: Tensor, x: Tensor, seeds: Tensor, positions: Tensor, *, workspace: Workspace = FRESH
) -> Tensor:
    """Draw one token per row by the Gumbel trick, int64 ``[S]``, with the naive twin's noise.

    Raises:
        ValueError: logits of a type or stride the kernels do not take.
    """
    rows, n, block, splits = _split(logits)
    check_integers(seeds=seeds, positions=positions)
    device = logits.device
    peak = workspace.scratch("part_peak", (rows, splits), torch.float32, device)
    score = workspace.scratch("part_score", (rows, splits), torch.float32, device)
    arg = workspace.scratch("part_arg", (rows, splits), torch.int32, device)
    tokens = workspace.output("tokens", (rows,), torch.int64, device)
    if rows:
        _draw_split[rows, splits](
            logits, x.contiguous(), seeds, positions, peak, score, arg,
            logits.stride(0), n, splits, BLOCK=block, num_warps=_warps(block),
        )  # fmt: skip
        _choose_split[rows,](
            peak, score, arg, tokens, n, splits, SPLITS=padded(splits), num_warps=1
        )
    return tokens


def _split(logits: Tensor) -> tuple[int, int, int, int]:
    """Return rows, logits per row, logits per split and splits."""
    check_floats(logits=logits)
    rows, n = logits.shape
    if n < 1:
        raise ValueError(f"logits: a row must hold a token; got {n}")
    block = min(SPLIT, padded(n, LEAST_SPLIT))
    return rows, n, block, triton.cdiv(n, block)


def _warps(block: int) -> int:
    return max(1, min(8, block // 512))
