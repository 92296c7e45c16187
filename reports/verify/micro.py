"""Micro properties on frozen logits: no growing error, no limit cycle, no swing from a late sensor.

``PROPERTIES`` lists every property of temperature laws, those of the other micro modules included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from controllers import certificates
from controllers.certificates.certificate import Certificate
from reports.verify.micro_bypass import Bypass
from reports.verify.micro_cap import Cap
from reports.verify.micro_cases import (
    START_SPACE,
    measure_by_plant,
    pace_of,
    plant_space,
    temperature_unfit,
    x_star,
    x_user,
)
from reports.verify.micro_loop import Loop, Path, run
from reports.verify.micro_story import loop_story
from reports.verify.micro_tube import Tube
from reports.verify.micro_windup import Windup
from reports.verify.plants import Plant
from reports.verify.property import Case, Cases, Measured, Number, Property, Space

SMALLEST = 1e-6  # ln T; an error is compared with this at least
SLACK = 1e-6  # relative, for rounding
TAIL = 64  # steps
CYCLE = 1e-3  # ln T of reversals in the tail
PATIENCE = 8  # times as long a run for lanes that still reverse: a slow decay is no cycle
EARLY = 32  # steps
FAR = 10.0  # times the first error: no calm loop swings so far
LEAST = 1e-3  # ln T; the smallest start, and what a first error counts at least beside FAR


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """On frozen logits the command never gets further from the equilibrium than it was at first.

    Value: the largest |u - x*| over max(|u_0 - x*|, |x_in0 - x*|). A law whose command does not
    depend on its own past passes: it is open loop.
    """

    name: str = "micro.stability"
    statement: str = "frozen logits, H* reachable: |ln T - x*| never exceeds its first value"
    unit: str = "times the first error"
    steps: int = 64

    def unfit(self, law: Any) -> str:
        """Return why ``law`` is no temperature law, or an empty string."""
        return temperature_unfit(law)

    def space(self, law: Any) -> Space:
        """Return plants, equilibria and starting points."""
        return {**plant_space(law), **START_SPACE}

    def measure(self, law: Any, cases: Cases) -> Measured:
        """Return the growth of the error, ``[B]``."""

        def one(picked: Cases, plant: Plant) -> Measured:
            path = run(law, plant, frozen(picked, self.steps))
            growth = np.abs(path.error).max(axis=0) / _first_error(path)
            return Measured(growth, np.full_like(growth, 1.0 + SLACK))

        return measure_by_plant(cases, one)

    def story(self, law: Any, case: Case) -> list[str]:
        """Return the loop step by step."""
        return loop_story(law, case, lambda cases: frozen(cases, self.steps), self._verdict)

    def certificate(self, law: Any) -> Certificate | None:
        """Return the gain range of frozen logits."""
        return certificates.stability(law)

    def _verdict(self, path: Path) -> str:
        first, most = _first_error(path)[0], np.abs(path.error).max()
        grew = most > first * (1.0 + SLACK)
        what = "grew: this loop expands" if grew else "did not grow"
        return f"error {first:.3g} at first, {most:.3g} at most ({most / first:.4g} times): {what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settles:
    """On frozen logits the command ends at rest or creeping one way, not in a cycle.

    Value: total variation of ln T over the last 64 steps, less the net move. A lane that still
    reverses after ``steps`` runs 8 times as long and is judged there.
    """

    name: str = "micro.settles"
    statement: str = "frozen logits, H* reachable: ln T comes to rest, no limit cycle"
    unit: str = "ln T of reversals in 64 steps"
    steps: int = 256

    def unfit(self, law: Any) -> str:
        """Return why ``law`` is no temperature law, or an empty string."""
        return temperature_unfit(law)

    def space(self, law: Any) -> Space:
        """Return plants, equilibria and starting points."""
        return {**plant_space(law), **START_SPACE}

    def measure(self, law: Any, cases: Cases) -> Measured:
        """Return the reversals of the tail, ``[B]``."""
        value = self._reversals(law, cases, self.steps)
        restless = np.flatnonzero(~(value <= CYCLE))
        if len(restless):
            again = {name: np.asarray(column)[restless] for name, column in cases.items()}
            value[restless] = self._reversals(law, again, PATIENCE * self.steps)
        return Measured(value, np.full_like(value, CYCLE))

    def _reversals(self, law: Any, cases: Cases, steps: int) -> np.ndarray:
        def one(picked: Cases, plant: Plant) -> Measured:
            reversals = _reversals(run(law, plant, frozen(picked, steps), last=TAIL))
            return Measured(reversals, reversals)

        return measure_by_plant(cases, one).value

    def story(self, law: Any, case: Case) -> list[str]:
        """Return the loop step by step."""
        return loop_story(law, case, lambda cases: frozen(cases, self.steps), self._verdict)

    def certificate(self, law: Any) -> Certificate | None:
        """Return the gain range in which frozen logits converge."""
        return certificates.settles(law)

    def _verdict(self, path: Path) -> str:
        reversals = _reversals(path)[0]
        what = "a limit cycle" if reversals > CYCLE else "at rest"
        return f"reversals of {reversals:.3g} in ln T over the last {TAIL} steps: {what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """With a sensor one or two steps late, the command ends up swinging no wider than it began.

    Value: largest |u - x*| of the last 64 steps over the largest of the first 32. That one counts
    as ``FAR`` times the first error at most: a loop may have blown up within 32 steps. A linear
    loop at its limit swings 1.1 times its first error, so that no stable one comes near ``FAR``.
    """

    name: str = "micro.delay"
    statement: str = (
        "frozen logits, sensor 1 or 2 steps late: the late error stays within the early"
    )
    unit: str = "times the early error"
    steps: int = 256

    def unfit(self, law: Any) -> str:
        """Return why ``law`` is no temperature law, or an empty string."""
        return temperature_unfit(law)

    def space(self, law: Any) -> Space:
        """Return plants, equilibria, starting points and how late the sensor is."""
        return {**plant_space(law), **START_SPACE, "late": Number(1, 2, integer=True)}

    def measure(self, law: Any, cases: Cases) -> Measured:
        """Return the late error over as much of the early one as counts, ``[B]``."""

        def one(picked: Cases, plant: Plant) -> Measured:
            path = run(law, plant, self._loop(picked))
            early, tail = _early_and_tail(path)
            return Measured(tail / _counted(early, path), np.full_like(tail, 1.0 + SLACK))

        return measure_by_plant(cases, one)

    def _loop(self, cases: Cases) -> Loop:
        return frozen(cases, self.steps, late=np.asarray(cases["late"], np.int64))

    def story(self, law: Any, case: Case) -> list[str]:
        """Return the loop step by step."""
        return loop_story(law, case, self._loop, self._verdict)

    def certificate(self, law: Any) -> Certificate | None:
        """Return the gain range with a sensor two steps late, which one step late includes."""
        return certificates.delay(law, delay_steps=2)

    def _verdict(self, path: Path) -> str:
        early, tail = (values[0] for values in _early_and_tail(path))
        grew = tail > _counted(early, path)[0] * (1.0 + SLACK)
        what = "it ends further out than it began" if grew else "it calms down"
        return (
            f"error {_first_error(path)[0]:.3g} at first, {early:.3g} in the first {EARLY} steps, "
            f"{tail:.3g} in the last {TAIL}: {what}"
        )


def frozen(cases: Cases, steps: int, **changes: Any) -> Loop:
    """Return the loop of ``cases`` on logits that never change."""
    start = {"x_user": x_user(cases), "x_star": x_star(cases), "pace": pace_of(cases)}
    return Loop(steps=steps, **start, **changes)


def _first_error(path: Path) -> np.ndarray:
    first = np.maximum(np.abs(path.error[0]), np.abs(path.error_in[0]))
    return np.maximum(first, SMALLEST)


def _reversals(path: Path) -> np.ndarray:
    tail = path.u[-TAIL:]
    return np.abs(np.diff(tail, axis=0)).sum(axis=0) - np.abs(tail[-1] - tail[0])


def _early_and_tail(path: Path) -> tuple[np.ndarray, np.ndarray]:
    sizes = np.maximum(np.abs(path.error), np.abs(path.error_in))
    return np.maximum(sizes[:EARLY].max(axis=0), SMALLEST), np.abs(path.error[-TAIL:]).max(axis=0)


def _counted(early: np.ndarray, path: Path) -> np.ndarray:
    return np.minimum(early, FAR * np.maximum(_first_error(path), LEAST))


PROPERTIES: tuple[Property, ...] = (
    Stability(),
    Settles(),
    Delay(),
    Tube(),
    Windup(),
    Cap(),
    Bypass(),
)
