"""What the verifier checks: a property is a number that must not exceed a bound, in every case.

A case is a handful of named parameters that an adversary may choose; that makes it searchable
(random lanes, then hypothesis), small enough for a screen, and replayable from JSON. ``measure``
takes many cases at once, as lanes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from controllers.certificates.certificate import Certificate
from controllers.core import require

Case = dict[str, Any]  # parameter -> JSON scalar: one adversary's choice
Cases = dict[str, np.ndarray]  # parameter -> [B]: float64, int64 or str


@dataclass(frozen=True, slots=True)
class Number:
    """A real or integer parameter in ``[low, high]``; ``log`` draws it evenly in its logarithm."""

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def __post_init__(self) -> None:
        require(self.low <= self.high, "low must not exceed high", low=self.low, high=self.high)
        require(not self.log or self.low > 0, "a log range must be positive", low=self.low)

    def __str__(self) -> str:
        return f"[{self.low:g}, {self.high:g}]"

    def holds(self, value: Any) -> bool:
        """Tell whether ``value`` is a number of the range."""
        return isinstance(value, int | float) and self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Choice:
    """A parameter that takes one of a few names."""

    options: tuple[str, ...]

    def __str__(self) -> str:
        return ", ".join(self.options)

    def holds(self, value: Any) -> bool:
        """Tell whether ``value`` is one of the names."""
        return value in self.options


Space = Mapping[str, Number | Choice]


class Measured(NamedTuple):
    """The measured quantity and what it may not exceed, float64 ``[B]``; an infinite bound is none.

    ``value > bound`` is a violation; a property puts its own tolerance for rounding in the bound.
    NaN is a violation.
    """

    value: np.ndarray
    bound: np.ndarray


class Property(Protocol):
    """One thing a law must keep. Implementations are stateless; ``law`` is a law or a preset."""

    @property
    def name(self) -> str:
        """Return ``area.what``, as in ``micro.stability``."""
        ...

    @property
    def statement(self) -> str:
        """Return one line: what must hold, for which cases."""
        ...

    @property
    def unit(self) -> str:
        """Return the unit of the measured quantity."""
        ...

    def unfit(self, law: Any) -> str:
        """Return why the property says nothing about ``law``, or an empty string."""
        ...

    def space(self, law: Any) -> Space:
        """Return what the adversary may choose."""
        ...

    def measure(self, law: Any, cases: Cases) -> Measured:
        """Run every case; lanes never influence one another."""
        ...

    def story(self, law: Any, case: Case) -> list[str]:
        """Return the case as a few lines of text, at most 30: what happens, step by step."""
        ...

    def certificate(self, law: Any) -> Certificate | None:
        """Return what theory says of this property and law, if anything."""
        ...


def lanes_of(case: Case) -> Cases:
    """Return one case as a batch of one lane."""
    return {name: np.array([value]) for name, value in case.items()}


def case_of(cases: Cases, lane: int) -> Case:
    """Return one lane as a case of JSON scalars."""
    return {name: column[lane].item() for name, column in cases.items()}


def n_lanes(cases: Cases) -> int:
    """Return the number of lanes."""
    return len(next(iter(cases.values())))


def excess(measured: Measured) -> np.ndarray:
    """Return how far each lane is past its bound, ``[B]``; positive violates, NaN counts as inf."""
    gap = measured.value - measured.bound
    gap = np.where(np.isinf(measured.bound) & np.isfinite(measured.value), -math.inf, gap)
    return np.where(np.isnan(measured.value), math.inf, gap)
