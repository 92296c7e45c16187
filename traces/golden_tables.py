"""Published kernel times as functions: dense layers by tokens, attention by what it attends to.

Times are microseconds. Between measured points they are linear in each axis, which is exact where a
kernel takes a + b*x + c*y + d*x*y; outside, the nearest segment goes on. Nothing is fitted.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from controllers.core import require

Columns = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Line:
    """A curve through measured points; the end segments go on beyond them."""

    xs: list[float]
    ys: list[float]

    @classmethod
    def through(cls, xs: np.ndarray, ys: np.ndarray) -> Line:
        """Return the curve through points in any order; points of one x are averaged."""
        at, where = np.unique(xs, return_inverse=True)
        require(len(at) >= 1, "a curve needs a point", points=len(at))
        mean = np.bincount(where, ys) / np.bincount(where)
        return cls(at.tolist(), mean.tolist())

    def __call__(self, x: float) -> float:
        """Return the value at ``x``, never below 0."""
        xs, ys = self.xs, self.ys
        if len(xs) == 1:
            return ys[0]
        left = min(max(bisect_right(xs, x) - 1, 0), len(xs) - 2)
        part = (x - xs[left]) / (xs[left + 1] - xs[left])
        return max(0.0, ys[left] + part * (ys[left + 1] - ys[left]))


@dataclass(frozen=True, slots=True)
class Sheet:
    """A function of any number of axes through a full grid of measured points."""

    axes: tuple[list[float], ...]
    values: list  # nested as deep as there are axes

    @classmethod
    def through(cls, points: np.ndarray, values: np.ndarray) -> Sheet:
        """Return the function through ``points`` ``[N, axes]``.

        Cells of the grid that were not measured are filled along the last axis, then along the
        one before, by the lines between their neighbours.
        """
        axes = [np.unique(column) for column in points.T]
        grid = np.full([len(axis) for axis in axes], np.nan)
        index = tuple(np.searchsorted(axis, c) for axis, c in zip(axes, points.T, strict=True))
        grid[index] = values
        for number in reversed(range(len(axes))):
            if np.isnan(grid).any():
                grid = np.apply_along_axis(_filled, number, grid, axes[number])
        require(bool(np.isfinite(grid).all()), "a grid needs a measured point", cells=grid.size)
        return cls(tuple(axis.tolist() for axis in axes), grid.tolist())

    def __call__(self, *at: float) -> float:
        """Return the value at a point, never below 0."""
        return max(0.0, _read(self.axes, self.values, at, 0))


def _filled(row: np.ndarray, axis: np.ndarray) -> np.ndarray:
    known = np.flatnonzero(~np.isnan(row))
    if len(known) in (0, len(row)):
        return row
    line = Line(axis[known].tolist(), row[known].tolist())
    return np.array([line(x) for x in axis.tolist()])


def _read(axes: tuple[list[float], ...], values: list, at: tuple[float, ...], depth: int) -> float:
    axis, x = axes[depth], at[depth]
    last = depth + 1 == len(axes)
    if len(axis) == 1:
        return values[0] if last else _read(axes, values[0], at, depth + 1)
    left = min(max(bisect_right(axis, x) - 1, 0), len(axis) - 2)
    part = (x - axis[left]) / (axis[left + 1] - axis[left])
    if last:
        return values[left] + part * (values[left + 1] - values[left])
    low = _read(axes, values[left], at, depth + 1)
    if part == 0.0:
        return low
    return low + part * (_read(axes, values[left + 1], at, depth + 1) - low)


@dataclass(frozen=True, slots=True)
class Attention:
    """Attention of one layer: decode rows alone, prompt chunks alone, and both in one step."""

    decode: Sheet  # rows, context of each
    prompt: Sheet  # chunk, tokens before it
    chunks: list[float]  # sizes measured together with decode rows
    mixed: list[Sheet]  # for each: tokens before it, rows, context of each

    @classmethod
    def of(cls, columns: Columns) -> Attention:
        """Build it from the columns of ``attention.csv``."""
        chunk, before = columns["prefill_chunk"], columns["kv_prefill"]
        rows, context, took = columns["n_decode"], columns["kv_decode"], columns["time_us"]
        alone, pure = (chunk == 0) & (rows > 0), (chunk > 0) & (rows == 0)
        both = (chunk > 0) & (rows > 0)
        for name, mask in (("decode-only", alone), ("prefill-only", pure), ("mixed", both)):
            require(bool(mask.any()), f"attention needs {name} rows", rows=len(chunk))
        sizes = np.unique(chunk[both])
        mixed = []
        for size in sizes:
            here = both & (chunk == size)
            points = np.stack([before[here], rows[here], context[here]], axis=1)
            mixed.append(Sheet.through(points, took[here]))
        return cls(
            decode=Sheet.through(np.stack([rows[alone], context[alone]], axis=1), took[alone]),
            prompt=Sheet.through(np.stack([chunk[pure], before[pure]], axis=1), took[pure]),
            chunks=sizes.tolist(),
            mixed=mixed,
        )

    def chunks_us(self, tokens: float, squares: float) -> float:
        """Return what prompt chunks take alone, from their tokens and ``chunk_squares``.

        More attended pairs than one prompt of that length has are KV before one chunk; fewer are
        several prompts, taken as equal ones that share one launch.
        """
        before = (squares / tokens - tokens) / 2.0
        if before >= 0.0:
            return self.prompt(tokens, before)
        several = tokens * tokens / squares
        launch = self.prompt(0.0, 0.0)
        return launch + several * max(0.0, self.prompt(tokens / several, 0.0) - launch)

    def mixed_us(self, tokens: float, squares: float, rows: float, context: float) -> float:
        """Return what prompt chunks and decode rows take together."""
        before = (squares / tokens - tokens) / 2.0
        there = max(before, 0.0)
        sizes = self.chunks
        left = min(max(bisect_right(sizes, tokens) - 1, 0), max(0, len(sizes) - 2))
        took = self.mixed[left](there, rows, context)
        if len(sizes) > 1:
            part = (tokens - sizes[left]) / (sizes[left + 1] - sizes[left])
            took += part * (self.mixed[left + 1](there, rows, context) - took)
        if before < 0.0:
            took += self.chunks_us(tokens, squares) - self.prompt(tokens, 0.0)
        return max(0.0, took)


@dataclass(frozen=True, slots=True)
class Skew:
    """How far unequal contexts push decode attention from the mean towards the longest.

    ``share`` is 0 where a batch takes as long as one of its mean context and 1 where it takes as
    long as one of its longest. Read by rows and by mean over longest context.
    """

    pure: Sheet
    mixed: Sheet

    @classmethod
    def of(cls, columns: Columns, pure: np.ndarray) -> Skew:
        """Build it from the columns of ``skew.csv``; ``pure`` marks rows without a prompt chunk."""
        return cls(_shares(columns, pure), _shares(columns, ~pure))

    def share(self, rows: float, evenness: float, *, mixed: bool) -> float:
        """Return the share of a batch of ``rows`` with mean over longest context ``evenness``."""
        sheet = self.mixed if mixed else self.pure
        axis, even = sheet.axes
        inside = min(max(rows, axis[0]), axis[-1])
        return min(1.0, sheet(inside, min(max(evenness, even[0]), even[-1])))


BINS = (0.0, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0)  # of mean over longest context


def _shares(columns: Columns, kept: np.ndarray) -> Sheet:
    """Return least-squares shares of each batch size in bins of evenness, at the bins' means."""
    require(bool(kept.any()), "skew needs rows of each regime", rows=len(kept))
    n, mean, longest = (columns[name][kept] for name in ("n", "kv_mean", "kv_big"))
    base = columns["t_mean_us"][kept]
    whole = columns["t_max_us"][kept] / base - 1.0
    excess = columns["t_skew_us"][kept] / base - 1.0
    even = mean / longest
    bins = np.digitize(even, BINS)
    points, shares = [], []
    centres = {b: float(even[bins == b].mean()) for b in np.unique(bins).tolist()}
    for rows in np.unique(n).tolist():
        for b, centre in centres.items():
            here = (n == rows) & (bins == b)
            if here.any() and whole[here].any():
                points.append((rows, centre))
                shares.append(
                    max(0.0, float(excess[here] @ whole[here] / (whole[here] ** 2).sum()))
                )
    return Sheet.through(np.array(points), np.array(shares))
