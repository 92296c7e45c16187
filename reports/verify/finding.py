"""What the verifier says of one property: certified, searched, violated, or does not apply."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from controllers.certificates.certificate import Certificate, finite_or_none


class Verdict(StrEnum):
    """How a property stands."""

    CERTIFIED = "certified"  # proved, and the search found nothing against it
    SEARCHED = "searched"  # no proof; the search found nothing against it
    VIOLATED = "violated"  # a counterexample was found
    UNFIT = "not applicable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One row of a report; ``role``: temperature, coverage, priority, sampler or serving."""

    name: str  # of the property
    role: str
    subject: str  # class name of the law, or the preset's name
    verdict: Verdict
    statement: str
    unit: str = ""
    bound: float = math.inf  # at the worst case
    worst: float = math.nan  # worst value found
    cases: int = 0
    note: str = ""
    certificate: Certificate | None = None
    counterexample: dict[str, Any] | None = None  # as written to its file
    story: tuple[str, ...] = ()

    @property
    def conservatism(self) -> float | None:
        """Bound over worst found, >= 1 where the bound holds; None where the worst is nothing.

        Nothing is what rounding alone may leave, a millionth of the bound.
        """
        usable = math.isfinite(self.bound) and math.isfinite(self.worst) and self.worst > 0
        ratio = self.bound / self.worst if usable else math.inf
        return ratio if ratio < 1e6 else None

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON values; what is not finite is null."""
        ratio = self.conservatism
        return {
            "property": self.name,
            "role": self.role,
            "subject": self.subject,
            "verdict": self.verdict.value,
            "statement": self.statement,
            "unit": self.unit,
            "bound": finite_or_none(self.bound),
            "worst": finite_or_none(self.worst),
            "conservatism": None if ratio is None else finite_or_none(ratio),
            "cases": self.cases,
            "note": self.note,
            "certificate": None if self.certificate is None else self.certificate.to_json(),
            "counterexample": self.counterexample,
        }
