"""Properties of a made-up law, small enough to know the right answer by heart."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from controllers.certificates.certificate import Certificate, certificate
from reports.verify.property import Case, Cases, Choice, Measured, Number, Space

SPACE: Space = {
    "x": Number(0.0, 10.0),
    "rate": Number(1e-3, 1e3, log=True),
    "steps": Number(1, 64, integer=True),
    "pattern": Choice(("none", "alternate", "random")),
}
Formula = Callable[[Cases], np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Toy:
    """A property whose value is a formula of the case."""

    formula: Formula
    bound: float = 1.0
    name: str = "toy.value"
    statement: str = "the value stays within its bound"
    unit: str = "toys"
    why_unfit: str = ""
    proof: Certificate | None = None
    parameters: Space = field(default_factory=lambda: dict(SPACE))

    def unfit(self, law: Any) -> str:
        return self.why_unfit

    def space(self, law: Any) -> Space:
        return self.parameters

    def measure(self, law: Any, cases: Cases) -> Measured:
        value = np.asarray(self.formula(cases), dtype=np.float64)
        return Measured(value, np.full_like(value, self.bound))

    def story(self, law: Any, case: Case) -> list[str]:
        return [f"x is {case['x']}"]

    def certificate(self, law: Any) -> Certificate | None:
        return self.proof


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunter(Toy):
    """A toy that finds its own case: a list of operations."""

    operations: tuple[str, ...] = ("submit", "step", "cancel")

    def hunt(self, law: Any, rng: np.random.Generator, budget: int) -> tuple[Case, int]:
        return {"operations": list(self.operations), "setting": {"slots": 2}}, budget

    def story(self, law: Any, case: Case) -> list[str]:
        return list(case["operations"])


def theory(*, holds: bool, kind: Any = "exact") -> Certificate:
    return certificate(
        Law(),
        "toy.value",
        kind=kind,
        holds=holds,
        statement="x <= 1",
        assumptions=("toys",),
        bound=math.inf,
        derivation="Toys",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """No law at all: toys do not look at it."""

    gain: float = 1.0
