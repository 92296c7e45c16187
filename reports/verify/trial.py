"""Measuring a law that may be hostile: what it raises is a finding, never a crash."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from reports.verify.draw import case_at, keys, stack_cases
from reports.verify.error_line import error_line
from reports.verify.property import Case, Cases, Measured, Property, excess, n_lanes


class Trial(NamedTuple):
    """One measured case. ``score`` > 1 violates; the larger, the nearer to violating."""

    case: Case
    score: float
    value: float
    bound: float
    raised: str = ""  # the exception, where there was one

    @property
    def violates(self) -> bool:
        """Tell whether the case breaks the property."""
        return self.score > 1.0

    @property
    def excess(self) -> float:
        """Return how far the value is past the bound; infinite for NaN and exceptions."""
        gap = self.value - self.bound
        return gap if math.isfinite(gap) else math.inf


class Scores(NamedTuple):
    """Many measured cases, float64 ``[B]`` each."""

    score: np.ndarray
    value: np.ndarray
    bound: np.ndarray

    def best(self, cases: Cases) -> Trial:
        """Return the case nearest to violating, or furthest past the bound."""
        lane = int(np.argmax(self.score))
        return self.at(cases, lane)

    def at(self, cases: Cases, lane: int) -> Trial:
        """Return one lane."""
        score, value, bound = (float(column[lane]) for column in self)
        return Trial(case_at(cases, lane), score, value, bound)


class Raised(Exception):
    """A law or a property raised on a case."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(trial.raised)
        self.trial = trial


@dataclass(slots=True)
class Bench:
    """Measures cases of one property on one law, and counts the distinct ones."""

    prop: Property
    law: Any
    _seen: list[np.ndarray]

    @classmethod
    def of(cls, prop: Property, law: Any) -> Bench:
        """Return a bench that has seen nothing."""
        return cls(prop, law, [])

    @property
    def n_cases(self) -> int:
        """Return how many distinct cases were measured."""
        return len(np.unique(np.concatenate(self._seen))) if self._seen else 0

    def run(self, cases: Cases) -> Scores:
        """Measure every lane; raise ``Raised`` with one lane that makes the law raise."""
        self._seen.append(keys(cases))
        try:
            return self._measure(cases)
        except Exception as error:
            raise Raised(self._blame(cases, error)) from error

    def alone(self, case: Case) -> Trial:
        """Measure one case; an exception is its result."""
        cases = stack_cases([case])
        try:
            return self.run(cases).at(cases, 0)._replace(case=case)
        except Raised as raised:
            return raised.trial._replace(case=case)

    def each(self, cases: list[Case]) -> list[Trial]:
        """Measure a few cases; where the batch raises, one by one."""
        lanes = stack_cases(cases)
        try:
            scores = self.run(lanes)
        except Raised:
            return [self.alone(case) for case in cases]
        return [scores.at(lanes, i)._replace(case=case) for i, case in enumerate(cases)]

    def _measure(self, cases: Cases) -> Scores:
        with np.errstate(all="ignore"):
            measured = self.prop.measure(self.law, cases)
            shape = (n_lanes(cases),)
            value, bound = (np.asarray(part, dtype=np.float64) for part in measured)
            if value.shape != shape or bound.shape != shape:
                raise ValueError(f"measured shapes {value.shape}, {bound.shape} for {shape} cases")
            return Scores(_score(Measured(value, bound)), value, bound)

    def _blame(self, cases: Cases, error: Exception) -> Trial:
        # Halve the batch while a half still raises; lanes are independent, so one does.
        while n_lanes(cases) > 1:
            middle = n_lanes(cases) // 2
            halves = [{k: c[:middle] for k, c in cases.items()}]
            halves.append({k: c[middle:] for k, c in cases.items()})
            found = [(half, self._error(half)) for half in halves]
            broken = [(half, caught) for half, caught in found if caught is not None]
            if not broken:
                break  # only the whole batch raises: lanes are coupled
            cases, error = broken[0]
        return Trial(case_at(cases, 0), math.inf, math.nan, math.nan, error_line(error))

    def _error(self, cases: Cases) -> Exception | None:
        try:
            self._measure(cases)
        except Exception as error:
            return error
        return None


def _score(measured: Measured) -> np.ndarray:
    """Order lanes: value/bound where that is a ratio, lanes without a bound below all others."""
    value, bound = measured.value, measured.bound
    gap = excess(measured)
    ratio = np.where(bound > 0.0, value / np.where(bound > 0.0, bound, 1.0), 1.0 + gap)
    score = np.where(np.isinf(bound) & (bound > 0.0), np.arctan(value) / np.pi - 1.0, ratio)
    score = np.where(np.isnan(score), math.inf, score)
    # The ratio may round to 1 where the value exceeds the bound, and the other way round.
    above = np.maximum(score, np.nextafter(1.0, 2.0))
    return np.where(np.isnan(value) | (gap > 0.0), above, np.minimum(score, 1.0))
