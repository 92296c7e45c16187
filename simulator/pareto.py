"""The Pareto front of operating points, under uncertainty.

One point dominates another where it is told apart as better in some objective and as worse in
none. Told apart: the interval of their difference over the same hours (common random numbers)
excludes zero. Points that chance alone could rank stay on the front together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from simulator.plan_figures import Figures, Spread, another_hour


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An operating point and its figures hour by hour; lower is better in every objective."""

    name: str
    hours: tuple[Figures, ...]


def difference(name: str, one: Sequence[Figures], other: Sequence[Figures]) -> Spread | None:
    """Return how far a figure of ``one`` lies above that of ``other``, paired by hour."""
    pairs = zip(one, other, strict=True)
    return another_hour([_minus(a.get(name), b.get(name)) for a, b in pairs], in_log=False)


def told_apart(found: Spread | None) -> int:
    """Return -1 or 1 where the interval lies below or above zero, else 0."""
    if found is None or found.low is None or found.high is None:
        return 0
    return -1 if found.high < 0.0 else 1 if found.low > 0.0 else 0


def dominates(one: Candidate, other: Candidate, objectives: Sequence[str]) -> bool:
    """Return whether ``one`` is better somewhere and worse nowhere, as far as can be told."""
    signs = [told_apart(difference(name, one.hours, other.hours)) for name in objectives]
    return min(signs) < 0 and max(signs) <= 0


def front(candidates: Sequence[Candidate], objectives: Sequence[str]) -> Mapping[str, str | None]:
    """Return by name who dominates each candidate first; None for those on the front."""
    return {
        one.name: next((c.name for c in candidates if dominates(c, one, objectives)), None)
        for one in candidates
    }


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
