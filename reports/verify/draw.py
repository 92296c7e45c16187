"""Cases drawn from a space: at random with its corners, near a given case, or all there are."""

from __future__ import annotations

import itertools
import math

import numpy as np

from reports.verify.property import Case, Cases, Choice, Number, Space

CORNER = 0.1  # share of values put on an end of their range


def draw(space: Space, rng: np.random.Generator, n: int) -> Cases:
    """Draw ``n`` cases; log ranges evenly in their logarithm, ends of ranges often."""
    return {name: _draw_column(part, rng, n) for name, part in space.items()}


def near(space: Space, cases: Cases, rng: np.random.Generator, scale: float) -> Cases:
    """Move about half the parameters of each case by about ``scale`` of their range."""
    return {name: _move(part, cases[name], rng, scale) for name, part in space.items()}


def everything(space: Space, limit: int) -> Cases | None:
    """Return every case of a finite space of at most ``limit`` cases, None of a larger one."""
    columns: list[list[float | str]] = []
    for part in space.values():
        if isinstance(part, Choice):
            columns.append(list(part.options))
        elif part.low == part.high or part.integer:
            low, high = int(part.low) if part.integer else part.low, part.high
            if high - low >= limit:
                return None
            columns.append([low + i for i in range(int(high - low) + 1)])
        else:
            return None
    if math.prod(len(column) for column in columns) > limit:
        return None
    rows = list(itertools.product(*columns))
    return {
        name: _typed(part, np.array([row[i] for row in rows]))
        for i, (name, part) in enumerate(space.items())
    }


def stack_cases(cases: list[Case]) -> Cases:
    """Return cases with the same parameters as lanes; lists and objects stay whole."""
    return {name: _column([case[name] for case in cases]) for name in cases[0]}


def case_at(cases: Cases, lane: int) -> Case:
    """Return one lane as a case of JSON values; the other way round from ``stack_cases``."""
    values = {name: column[lane] for name, column in cases.items()}
    return {name: v.item() if isinstance(v, np.generic) else v for name, v in values.items()}


def keys(cases: Cases) -> np.ndarray:
    """Return a 64-bit hash of each lane, uint64 ``[B]``, to count distinct cases by."""
    total = np.uint64(0x9E3779B97F4A7C15)
    found = np.full(len(next(iter(cases.values()))), total)
    with np.errstate(over="ignore"):
        for column in cases.values():
            found = (found ^ _bits(column)) * np.uint64(0xFF51AFD7ED558CCD)
            found ^= found >> np.uint64(32)
    return found


def to_units(part: Number, values: np.ndarray) -> np.ndarray:
    """Map values of ``part`` to [0, 1], evenly in the logarithm for a log range."""
    if part.low == part.high:
        return np.zeros(len(values))
    if part.log:
        return np.log(values / part.low) / math.log(part.high / part.low)
    return (values - part.low) / (part.high - part.low)


def from_units(part: Number, units: np.ndarray) -> np.ndarray:
    """Map [0, 1] to values of ``part``, never past its ends."""
    units = np.clip(units, 0.0, 1.0)
    if part.log:
        values = part.low * (part.high / part.low) ** units
    else:
        values = part.low + units * (part.high - part.low)
    return _typed(part, np.clip(values, part.low, part.high))


def _draw_column(part: Number | Choice, rng: np.random.Generator, n: int) -> np.ndarray:
    if isinstance(part, Choice):
        return np.array(part.options)[rng.integers(len(part.options), size=n)]
    units, corner = rng.random(n), rng.random(n)
    if part.integer and not part.log:
        values = rng.integers(int(part.low), int(part.high), size=n, endpoint=True)
    else:
        values = from_units(part, units)
    ends = _typed(part, np.where(units < 0.5, part.low, part.high))
    return np.where(corner < CORNER, ends, values)


def _move(
    part: Number | Choice, values: np.ndarray, rng: np.random.Generator, scale: float
) -> np.ndarray:
    n = len(values)
    if isinstance(part, Choice):
        fresh = _draw_column(part, rng, n)
        return np.where(rng.random(n) < scale, fresh, values)
    step = rng.normal(0.0, scale, n) * (rng.random(n) < 0.5)
    moved = from_units(part, to_units(part, values) + step)
    if part.integer:
        ones = np.rint(np.clip(values + rng.integers(-1, 2, n), part.low, part.high))
        moved = np.where(moved == values, ones.astype(np.int64), moved)
    return np.where(step == 0.0, values, moved)


def _typed(part: Number | Choice, values: np.ndarray) -> np.ndarray:
    if isinstance(part, Choice):
        return values
    return np.rint(values).astype(np.int64) if part.integer else values.astype(np.float64)


def _column(values: list[object]) -> np.ndarray:
    if isinstance(values[0], list | dict):
        column = np.empty(len(values), dtype=object)
        for lane, value in enumerate(values):  # assigning all at once would unpack the lists
            column[lane] = value
        return column
    return np.array(values)


def _bits(column: np.ndarray) -> np.ndarray:
    if column.dtype.kind in "iu":
        return column.astype(np.uint64)
    if column.dtype.kind == "f":
        return np.ascontiguousarray(column, dtype=np.float64).view(np.uint64)
    return np.array([hash_text(str(value)) for value in column.tolist()], dtype=np.uint64)


def hash_text(text: str) -> int:
    """Return 64 bits that depend on the text alone, the same in every process."""
    found = 0xCBF29CE484222325  # FNV-1a
    for byte in text.encode():
        found = ((found ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return found
