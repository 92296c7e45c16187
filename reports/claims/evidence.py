"""Small tools of judges: cases that break a property, intervals, numbers as text."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from reports.statistics import Interval
from reports.verify.draw import draw
from reports.verify.property import Property, excess

Z95 = 1.959964


def broken(prop: Property, law: Any, rng: np.random.Generator, n: int) -> np.ndarray:
    """Return which of ``n`` random cases break ``prop`` under ``law``, bool ``[n]``."""
    with np.errstate(all="ignore"):
        return excess(prop.measure(law, draw(prop.space(law), rng, n))) > 0.0


def correlation(a: np.ndarray, b: np.ndarray) -> Interval:
    """Return the rank correlation of ``[n]`` pairs; half-width by Fisher's z, None below n = 8."""
    ranks_a, ranks_b = (np.argsort(np.argsort(x, kind="stable"), kind="stable") for x in (a, b))
    if len(a) < 3 or a.std() == 0.0 or b.std() == 0.0:
        return Interval(0.0, None)
    r = float(np.corrcoef(ranks_a, ranks_b)[0, 1])
    if len(a) < 8:
        return Interval(r, None)
    z, step = math.atanh(max(min(r, 0.999999), -0.999999)), Z95 / math.sqrt(len(a) - 3)
    return Interval(r, max(math.tanh(z + step) - r, r - math.tanh(z - step)))


def by_group(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return the mean of ``values`` ``[n]`` in each group that has one, groups ascending."""
    names = np.unique(group)
    return np.array([values[group == name].mean() for name in names])


def within(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return ``values`` ``[n]`` less the mean of each one's group."""
    index = np.unique(group, return_inverse=True)[1]
    counts = np.bincount(index)
    return values - (np.bincount(index, weights=values) / counts)[index]


def text(found: Interval | None, unit: str = "") -> str:
    """Return mean and half-width to three figures."""
    if found is None:
        return "not measured"
    half = "" if found.half is None else f" ± {figures(found.half, 2)}"
    return f"{'+' if found.mean >= 0.0 else '-'}{figures(abs(found.mean), 3)}{half}{unit}"


def figures(value: float, n: int) -> str:
    """Return a positive number to ``n`` figures, without an exponent from 100 on."""
    return f"{value:.0f}" if value >= 10.0**n else f"{value:.{n}g}"


def beyond(found: Interval | None, sign: int, limit: float = 0.0) -> bool:
    """Tell whether the whole interval lies past ``limit`` in the direction of ``sign``."""
    if found is None or found.half is None:
        return False
    return sign * (found.mean - limit) > found.half


def share(part: float) -> str:
    """Return a share as per cent, three figures at most."""
    return f"{100.0 * part:.3g} %"
