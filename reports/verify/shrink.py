"""Makes a counterexample readable: round numbers and simple choices that still violate clearly."""

from __future__ import annotations

import math

from reports.verify.property import Case, Choice, Number, Space
from reports.verify.trial import Bench, Trial

PASSES = 12
KEPT = 0.2  # share of the excess that a simpler case must keep


def shrink(bench: Bench, space: Space, found: Trial) -> Trial:
    """Return a simpler case than ``found`` that violates about as clearly.

    A fifth of what ``found`` is past its bound must remain, so that a clear violation does not
    shrink to a matter of rounding.
    """
    least = KEPT * found.excess if math.isfinite(found.excess) else 0.0
    for _ in range(PASSES):
        simpler = _simpler(space, found.case)
        if not simpler:
            break
        tried = bench.each([{**found.case, **change} for change in simpler])
        kept = [c for c, t in zip(simpler, tried, strict=True) if _keeps(t, found, least)]
        if not kept:
            break
        found = _together(bench, found, kept, least, space)
    return found


def _together(bench: Bench, found: Trial, changes: list[Case], least: float, space: Space) -> Trial:
    # All at once is a guess; one after the other is sure to take at least the first.
    best: Case = {}
    for change in sorted(changes, key=lambda c: _cost_of(space, c), reverse=True):
        best.update(change)  # the simplest of each parameter comes last and stays
    at_once = bench.alone({**found.case, **best})
    if _keeps(at_once, found, least):
        return at_once
    for name, value in best.items():
        trial = bench.alone({**found.case, name: value})
        if _keeps(trial, found, least):
            found = trial
    return found


def _keeps(trial: Trial, found: Trial, least: float) -> bool:
    return trial.violates and trial.excess >= least and bool(trial.raised) == bool(found.raised)


def _simpler(space: Space, case: Case) -> list[Case]:
    found = []
    for name, part in space.items():
        values = _candidates(part, case[name])
        found += [{name: v} for v in values if _cost(part, v) < _cost(part, case[name])]
    return found


def _candidates(part: Number | Choice, value: float | str) -> list[float | str]:
    if isinstance(part, Choice):
        return list(part.options)
    assert not isinstance(value, str)
    rounded = [_significant(value, digits) for digits in (1, 2, 3)]
    found = [0.0, 1.0, -1.0, part.low, part.high, float(round(value)), *rounded]
    found += [10.0 ** math.floor(math.log10(abs(value)))] if value else []
    if part.integer:
        found += [part.low + 1, part.low + (value - part.low) // 2, value - 1]
        return sorted({round(v) for v in found if part.low <= v <= part.high})
    return sorted({v for v in found if part.low <= v <= part.high})


def _significant(value: float, digits: int) -> float:
    return float(f"{value:.{digits - 1}e}")


def _cost(part: Number | Choice, value: float | str) -> tuple[float, float]:
    """Return how long a value is to read, then how far it is from nothing."""
    if isinstance(part, Choice):
        return float(part.options.index(str(value))), 0.0
    assert not isinstance(value, str)
    mantissa = f"{abs(value):.17g}" if part.integer else repr(abs(float(value)))
    figures = mantissa.split("e")[0].replace(".", "").strip("0")
    return float(len(figures)), abs(value - part.low) if part.integer else abs(value)


def _cost_of(space: Space, change: Case) -> tuple[float, float]:
    ((name, value),) = change.items()
    return _cost(space[name], value)
